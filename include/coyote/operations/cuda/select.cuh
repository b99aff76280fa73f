// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/rowwise.cuh"
#include "coyote/operations/select.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

template <class S>
struct ScaleRows {
  Rows<const S> f;
  Rows<const unsigned char> picked;
  Rows<const S> x;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    if (picked.rows > 0 && picked(row, 0) == 0) return make_pack<N>([](int) { return 0.0f; });
    const float factor = to_float(f(row, 0));
    const Pack<N> values = load<N>(x.row(row) + column);
    return make_pack<N>([&](int i) { return factor * values[i]; });
  }
};

/// One warp per row.
template <int N, class S>
__global__ void __launch_bounds__(row_threads)
    scale_rows_backward_kernel(Rows<const S> f, Rows<const S> x, Rows<const S> dy, Rows<S> dx, Rows<S> df) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (row_threads / 32) + threadIdx.x / 32;
  if (row >= dy.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float factor = to_float(f(row, 0));
  float sum = 0;
  for (Index column = lane * N; column < dy.width; column += 32 * N) {
    const Pack<N> gradient = load<N>(dy.row(row) + column), values = load<N>(x.row(row) + column);
    store<N>(dx.row(row) + column, make_pack<N>([&](int i) { return factor * gradient[i]; }));
#pragma unroll
    for (int i = 0; i < N; ++i) sum += gradient[i] * values[i];
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, lanes);
  if (lane == 0) df(row, 0) = from_float<S>(sum);
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i] = f[i] * x[i] for the rows picked (all when `picked` is absent), 0 for the others. y may be x. f, picked [rows, 1].
template <class S>
void scale_rows(Context<Cuda>& context, Rows<const S> f, Rows<const unsigned char> picked, Rows<const S> x, Rows<S> y) {
  cuda::map_rows(context, cuda::ScaleRows<S>{f, picked, x}, Write::overwrite, y, x);
}

/// Gradients of scale_rows with all rows picked: dx[i] = f[i] * dy[i], df[i] = <dy[i], x[i]>.
template <class S>
void scale_rows_backward(Context<Cuda>& context, Rows<const S> f, Rows<const S> x, Rows<const S> dy, Rows<S> dx, Rows<S> df) {
  if (dy.empty()) return;
  cuda::with_packs<S>(
      dy.width,
      [&](auto packs) {
        const auto blocks = static_cast<unsigned>(ceil_div(dy.rows, cuda::row_threads / 32));
        cuda::scale_rows_backward_kernel<packs(), S><<<blocks, cuda::row_threads, 0, context.stream()>>>(f, x, dy, dx, df);
        COYOTE_CUDA_CHECK_LAUNCH("scale_rows_backward");
      },
      x, dy, dx);
}

}  // namespace coyote::inline v0

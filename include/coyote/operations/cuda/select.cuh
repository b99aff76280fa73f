// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/rowwise.cuh"
#include "coyote/operations/cuda/sums.cuh"
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

template <class S>
__global__ void __launch_bounds__(row_threads) pick_above_kernel(double threshold, Rows<const S> f, Rows<unsigned char> picked) {
  const Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < f.rows) picked(i, 0) = static_cast<double>(to_float(f(i, 0))) >= threshold;
}

/// A thread counts for its row the ones that come before it: quadratic in the length, which is nothing next to attention.
template <class Rule, class S>
__global__ void __launch_bounds__(row_threads) pick_top_kernel(Sequences sequences, Rows<const S> f, Rows<unsigned char> picked) {
  __shared__ float others[row_threads];
  const auto s = static_cast<std::int32_t>(blockIdx.y);
  const std::int32_t n = sequences.size(s), i = static_cast<std::int32_t>(blockIdx.x * row_threads + threadIdx.x);
  const std::int64_t begin = sequences.begin(s);
  if (static_cast<std::int32_t>(blockIdx.x * row_threads) >= n) return;
  const auto score = [&](std::int32_t row) {
    const float x = row < n ? to_float(f(begin + row, 0)) : 0.0f;
    return x == x ? x : -INFINITY;  // NaN comes last, with whatever is minus infinity
  };
  const float mine = score(i);
  std::int32_t before = 0;
  for (std::int32_t tile = 0; tile < n; tile += row_threads) {
    __syncthreads();
    others[threadIdx.x] = score(tile + static_cast<std::int32_t>(threadIdx.x));
    __syncthreads();
    const std::int32_t count = n - tile < row_threads ? n - tile : row_threads;
    for (std::int32_t j = 0; j < count; ++j) before += others[j] > mine || (others[j] == mine && tile + j < i) ? 1 : 0;
  }
  if (i < n) picked(begin + i, 0) = before < Rule::chosen(n);
}

/// mean f - target / n of a block's sequence, in every thread.
template <class Rule, class S>
__device__ double excess_of(const Sequences& sequences, std::int32_t s, Rows<const S> f) {
  const std::int32_t n = sequences.size(s);
  double sum = 0;
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < n; i += row_threads) {
    sum += static_cast<double>(to_float(f(sequences.begin(s) + i, 0)));
  }
  return (block_sum<row_threads>(sum) - Rule::target(n)) / n;
}
template <class Rule, class S>
__global__ void __launch_bounds__(row_threads) penalty_kernel(Sequences sequences, Rows<const S> f, double* penalties) {
  const auto s = static_cast<std::int32_t>(blockIdx.x);
  const double excess = excess_of<Rule>(sequences, s, f);
  if (threadIdx.x == 0) penalties[s] = excess > 0 ? excess : 0;
}
template <int Unused = 0>
__global__ void __launch_bounds__(row_threads)
    add_penalties_kernel(const double* penalties, Index count, double weight, double* to) {
  double sum = 0;
  for (Index s = threadIdx.x; s < count; s += row_threads) sum += penalties[s];
  sum = block_sum<row_threads>(sum);
  if (threadIdx.x == 0) *to += weight * sum;
}
template <class Rule, class S>
__global__ void __launch_bounds__(row_threads)
    penalty_backward_kernel(Sequences sequences, double weight, Rows<const S> f, Rows<S> df) {
  const auto s = static_cast<std::int32_t>(blockIdx.x);
  if (!(excess_of<Rule>(sequences, s, f) > 0)) return;
  const std::int32_t n = sequences.size(s);
  const auto slope = static_cast<float>(weight / n);
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < n; i += row_threads) {
    S& to = df(sequences.begin(s) + i, 0);
    to = from_float<S>(to_float(to) + slope);
  }
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

/// picked = f >= threshold. f, picked [rows, 1].
template <class S>
void pick_above(Context<Cuda>& context, double threshold, Rows<const S> f, Rows<unsigned char> picked) {
  if (f.empty()) return;
  cuda::pick_above_kernel<S>
      <<<static_cast<unsigned>(ceil_div(f.rows, cuda::row_threads)), cuda::row_threads, 0, context.stream()>>>(threshold, f,
                                                                                                               picked);
  COYOTE_CUDA_CHECK_LAUNCH("pick_above");
}

/// picked = 1 for the Rule::chosen(n) rows of each sequence, of n, with the highest f; of equal ones the earlier rows.
template <class S, class Rule>
void pick_top(Context<Cuda>& context, const Batch& batch, Rows<const S> f, Rows<unsigned char> picked) {
  const dim3 grid(static_cast<unsigned>(ceil_div(batch.length, cuda::row_threads)), static_cast<unsigned>(batch.sequences));
  cuda::pick_top_kernel<Rule, S><<<grid, cuda::row_threads, 0, context.stream()>>>(cuda::sequences_of(batch), f, picked);
  COYOTE_CUDA_CHECK_LAUNCH("pick_top");
}

/// Adds weight * max(0, mean f - Rule::target(n) / n), averaged over the sequences of a batch, to the auxiliary loss on the
/// device.
template <class S, class Rule>
void add_penalty(Context<Cuda>& context, const Batch& batch, double weight, Rows<const S> f) {
  const auto frame = context.frame();
  const Rows<double> penalties = context.make<double>(1, batch.sequences);
  cuda::penalty_kernel<Rule, S><<<static_cast<unsigned>(batch.sequences), cuda::row_threads, 0, context.stream()>>>(
      cuda::sequences_of(batch), f, penalties.data);
  COYOTE_CUDA_CHECK_LAUNCH("penalty");
  cuda::add_penalties_kernel<><<<1, cuda::row_threads, 0, context.stream()>>>(penalties.data, batch.sequences,
                                                                              weight / static_cast<double>(batch.sequences),
                                                                              context.value(cuda::Slot::auxiliary).data());
  COYOTE_CUDA_CHECK_LAUNCH("add_penalties");
}

/// Adds the penalty's gradient to df.
template <class S, class Rule>
void add_penalty_backward(Context<Cuda>& context, const Batch& batch, double weight, Rows<const S> f, Rows<S> df) {
  cuda::penalty_backward_kernel<Rule, S><<<static_cast<unsigned>(batch.sequences), cuda::row_threads, 0, context.stream()>>>(
      cuda::sequences_of(batch), weight / static_cast<double>(batch.sequences), f, df);
  COYOTE_CUDA_CHECK_LAUNCH("penalty_backward");
}

/// The auxiliary loss of the latest training step: waits for it.
inline double auxiliary_loss(Context<Cuda>& context) { return context.auxiliary_loss = context.fetch(cuda::Slot::auxiliary); }

/// The auxiliary loss is 0 again, on the host and on the device.
inline void clear_penalties(Context<Cuda>& context) {
  context.auxiliary_loss = 0;
  COYOTE_CUDA_CHECK(cudaMemsetAsync(context.value(cuda::Slot::auxiliary).data(), 0, sizeof(double), context.stream()));
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/resident.cuh"
#include "coyote/operations/cuda/rowwise.cuh"
#include "coyote/operations/decoding.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// The position of a decoding step: read on the device where the step is there.
struct StepPosition {
  std::int32_t host;
  const std::int32_t* device;

  explicit StepPosition(const Step& at)
      : host(static_cast<std::int32_t>(at.position)), device(at.device == nullptr ? nullptr : at.device->position) {}
  __device__ std::int32_t get() const { return device != nullptr ? *device : host; }
};

/// x[row], for rows of another matrix that stand where the position says.
template <class S>
__global__ void __launch_bounds__(row_threads)
    store_rows_kernel(StepPosition at, Index capacity, Rows<const S> x, Rows<float> to) {
  follow();
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x, s = Index{blockIdx.x} * blockDim.y + threadIdx.y;
  if (c < x.width && s < x.rows) to(s * capacity + at.get() % capacity, c) = to_float(x(s, c));
}

/// A block makes 32 channels of one sequence's row; where there are many taps, its 32 warps share them.
template <class S>
__global__ void __launch_bounds__(1024)
    convolution_step_kernel(StepPosition at, Rows<const float> taps, Rows<const float> bias, Rows<float> history, Index memory,
                            Rows<const S> u, Rows<const S> gate, Rows<const S> skip, Rows<S> y) {
  __shared__ float parts[32][32];
  follow();
  const Index s = blockIdx.x, c = Index{blockIdx.y} * 32 + threadIdx.x;
  const std::int32_t position = at.get(), reach = static_cast<std::int32_t>(taps.rows) - 1;
  const std::int32_t used = position < reach ? position : reach;
  const bool inside = c < u.width;
  const auto slot = [&](std::int32_t then) { return s * memory + then % static_cast<std::int32_t>(memory); };
  float sum = 0;
  if (inside) {
#pragma unroll 4
    for (std::int32_t t = 1 + static_cast<std::int32_t>(threadIdx.y); t <= used; t += static_cast<std::int32_t>(blockDim.y)) {
      sum = fmaf(taps(t, c), history(slot(position - t), c), sum);
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || !inside) return;
  const float now = to_float(u(s, c));
  sum = fmaf(taps(0, c), now, sum);
  for (unsigned other = 1; other < blockDim.y; ++other) sum += parts[other][threadIdx.x];
  if (bias.rows > 0) sum += bias(bias.rows == 1 ? 0 : position, c);
  if (gate.rows > 0) sum *= to_float(gate(s, c));
  if (skip.rows > 0) sum += to_float(skip(s, c));
  y(s, c) = from_float<S>(sum);
  if (memory > 0) history(slot(position), c) = now;
}

/// The number of a bias that belongs to the step: its only row, or the one of its position; 0 where it is absent.
__device__ inline float bias_at(const Rows<const float>& bias, std::int32_t position, Index column) {
  return bias.rows == 0 ? 0.0f : bias(bias.rows == 1 ? 0 : position, column);
}

/// The row of a bias that belongs to the step.
struct BiasRow {
  StepPosition at;
  Rows<const float> bias;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t, std::int32_t column) const {
    return load<N>(bias.row(bias.rows == 1 ? 0 : at.get()) + column);
  }
};
template <class S>
struct ScaledRow {
  Rows<const float> factor;
  Rows<const S> x;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> f = load<N>(factor.data + column), values = load<N>(x.row(row) + column);
    return make_pack<N>([&](int i) { return f[i] * values[i]; });
  }
};
template <class S>
struct ShiftedRow {
  Rows<const float> mix, before;
  Rows<const S> u;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> m = load<N>(mix.data + column), then = load<N>(before.row(row) + column), now = load<N>(u.row(row) + column);
    return make_pack<N>([&](int i) { return m[i] * now[i] + (1.0f - m[i]) * then[i]; });
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// to[s * capacity + position mod capacity] = x[s], for the `capacity` rows that `to` has for each of x's.
template <class S>
void store_rows(Context<Cuda>& context, const Step& at, Rows<const S> x, Rows<float> to) {
  if (x.empty()) return;
  cuda::launch_following(context, &cuda::store_rows_kernel<S>, "launch of store_rows", cuda::row_grid(x.rows, x.width),
                         cuda::row_block(x.width), 0, cuda::StepPosition(at), to.rows / x.rows, x, to);
}

/// One row of a convolution for every sequence: see the host's; times gate, plus skip, unless they are absent. Up to eight taps
/// cost the same at every position.
template <class S>
void convolution_step(Context<Cuda>& context, const Step& at, Rows<const float> taps, Rows<const float> bias, Rows<float> history,
                      Rows<const S> u, Rows<S> y, Rows<const S> gate = {}, Rows<const S> skip = {}) {
  if (u.empty()) return;
  const dim3 grid(static_cast<unsigned>(u.rows), static_cast<unsigned>(ceil_div(u.width, 32)));
  const dim3 block(32, taps.rows <= 8 ? 1 : 32);
  cuda::launch_following(context, &cuda::convolution_step_kernel<S>, "launch of convolution_step", grid, block, 0,
                         cuda::StepPosition(at), taps, bias, history, history.rows / u.rows, u, gate, skip, y);
}

/// y += bias, of which the step's row is the only one or the one of its position. No bias: nothing.
template <class S>
void bias_step(Context<Cuda>& context, const Step& at, Rows<const float> bias, Rows<S> y) {
  if (bias.rows > 0) cuda::map_rows(context, cuda::BiasRow{cuda::StepPosition(at), bias}, Write::add, y, bias);
}

/// y = mix * u + (1 - mix) * before, per channel.
template <class S>
void token_shift_step(Context<Cuda>& context, Rows<const float> mix, Rows<const float> before, Rows<const S> u, Rows<S> y) {
  cuda::map_rows(context, cuda::ShiftedRow<S>{mix, before, u}, Write::overwrite, y, mix, before, u);
}

/// y += factor * x, per channel.
template <class S>
void add_scaled(Context<Cuda>& context, Rows<const float> factor, Rows<const S> x, Rows<S> y) {
  cuda::map_rows(context, cuda::ScaledRow<S>{factor, x}, Write::add, y, factor, x);
}

/// sums += u, y = sums.
template <class S>
void sum_step(Context<Cuda>& context, Rows<const S> u, Rows<float> sums, Rows<S> y) {
  cuda::map_rows(context, cuda::SameRow<S>{u}, Write::add, sums, u);
  cuda::map_rows(context, cuda::SameRow<float>{sums}, Write::overwrite, y, Rows<const float>(sums));
}

}  // namespace coyote::inline v0

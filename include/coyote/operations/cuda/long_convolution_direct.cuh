// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_layout.cuh"
#include "coyote/operations/wrap.hpp"

/// Long convolutions of short sequences by their definition, on rows as they are: a block holds 32 channels of one sequence in
/// shared memory as float. n/2 multiply-adds per value cost less than a change of layout.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

inline constexpr int direct_rows = 64, direct_channels = 32, direct_threads = 8;
using DirectTile = float[direct_rows][direct_channels];

/// i - j, or on a ring of n rows i - j + n: the row that tap j of row i reads, and the tap by which row i reads row j.
__device__ inline int row_behind(int i, int j, int n) { return i >= j ? i - j : i - j + n; }

template <class S>
__global__ void __launch_bounds__(direct_channels* direct_threads)
    direct_kernel(Sequences sequences, Wrap wrap, Rows<const S> x, Rows<const float> taps, Epilogue<S> epilogue) {
  __shared__ DirectTile rows, filter;
  const int lane = static_cast<int>(threadIdx.x), part = static_cast<int>(threadIdx.y);
  const int c = static_cast<int>(blockIdx.y) * direct_channels + lane;
  const int n = sequences.size(static_cast<int>(blockIdx.x));
  const Index first = sequences.begin(static_cast<int>(blockIdx.x));
  const bool there = c < x.width;
  for (int i = part; there && i < n; i += direct_threads) {
    rows[i][lane] = to_float(x(first + i, c));
    filter[i][lane] = taps(i, c);
  }
  __syncthreads();
  for (int i = part; there && i < n; i += direct_threads) {
    float sum = 0;
    const int count = wrap == Wrap::cyclic ? n : i + 1;
    for (int t = 0; t < count; ++t) sum += filter[t][lane] * rows[row_behind(i, t, n)][lane];
    epilogue(first + i, i, c, sum);
  }
}

/// A block takes 32 channels of a group of sequences. lags and biases: [groups][longest][width] sums of the group, null where
/// not wanted.
template <class S>
__global__ void __launch_bounds__(direct_channels* direct_threads)
    direct_gradient_kernel(Sequences sequences, Wrap wrap, int per_group, Rows<const S> x, Rows<const float> taps,
                           Rows<const S> gate, Rows<const S> convolved, Rows<const S> dy, Rows<S> dx, Write write, Rows<S> dgate,
                           float* lags, float* biases) {
  constexpr int own = direct_rows / direct_threads;
  __shared__ DirectTile rows, filter, d;
  const int lane = static_cast<int>(threadIdx.x), part = static_cast<int>(threadIdx.y);
  const int c = static_cast<int>(blockIdx.y) * direct_channels + lane;
  const bool there = c < x.width;
  float lag_sums[own] = {}, bias_sums[own] = {};
  const int group = static_cast<int>(blockIdx.x);
  for (int i = part; there && i < sequences.length; i += direct_threads) filter[i][lane] = taps(i, c);
  const int end = min(sequences.sequences, (group + 1) * per_group);
  for (int s = group * per_group; s < end; ++s) {
    const int n = sequences.size(s);
    const Index first = sequences.begin(s);
    __syncthreads();
    if (there) {
#pragma unroll
      for (int k = 0; k < own; ++k) {
        const int i = part + k * direct_threads;
        if (i >= n) break;
        rows[i][lane] = to_float(x(first + i, c));
        float value = to_float(dy(first + i, c));
        if (dgate.rows > 0) dgate(first + i, c) = from_float<S>(value * to_float(convolved(first + i, c)));
        if (gate.rows > 0) value *= to_float(gate(first + i, c));
        d[i][lane] = value;
        bias_sums[k] += value;
      }
    }
    __syncthreads();
    if (!there) continue;
    if (lags != nullptr) {
#pragma unroll
      for (int k = 0; k < own; ++k) {
        const int t = part + k * direct_threads;
        if (t >= n) break;
        float sum = 0;
        for (int i = wrap == Wrap::cyclic ? 0 : t; i < n; ++i) sum += d[i][lane] * rows[row_behind(i, t, n)][lane];
        lag_sums[k] += sum;
      }
    }
    if (write == Write::none) continue;
    for (int j = part; j < n; j += direct_threads) {
      float sum = write == Write::add ? to_float(dx(first + j, c)) : 0.0f;
      for (int i = wrap == Wrap::cyclic ? 0 : j; i < n; ++i) sum += filter[row_behind(i, j, n)][lane] * d[i][lane];
      dx(first + j, c) = from_float<S>(sum);
    }
  }
  if (!there) return;
#pragma unroll
  for (int k = 0; k < own; ++k) {
    const int t = part + k * direct_threads;
    if (t >= sequences.length) break;
    const Index place = (static_cast<Index>(group) * sequences.length + t) * x.width + c;
    if (lags != nullptr) lags[place] = lag_sums[k];
    if (biases != nullptr) biases[place] = bias_sums[k];
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/resident.cuh"
#include "coyote/operations/cuda/following.cuh"

// Sums over many elements in a fixed order: blocks leave partial sums, which one later kernel adds up. No result depends on
// which block ran first.

namespace coyote::inline v0::cuda {
inline namespace COYOTE_CUDA_ARCHITECTURES {

/// The sum of `value` over the threads of a block of `threads`; every thread receives it.
template <int threads, class T>
__device__ T block_sum(T value) {
  __shared__ T parts[threads / 32];
  for (int reach = 16; reach > 0; reach /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, reach);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  T total = parts[0];
  for (int w = 1; w < threads / 32; ++w) total += parts[w];
  __syncthreads();
  return total;
}

/// parts[0] + ... + parts[count - 1], by a block of 256 threads, each of which receives it.
template <class T>
__device__ double sum_of_parts(const T* parts, Index count) {
  double sum = 0;
#pragma unroll 8
  for (Index i = threadIdx.x; i < count; i += 256) sum += static_cast<double>(parts[i]);
  return block_sum<256>(sum);
}
/// *to = scale * (parts[0] + ... + parts[count - 1])
template <class T>
__device__ void add_parts(const T* parts, Index count, double scale, double* to) {
  const double sum = sum_of_parts(parts, count);
  if (threadIdx.x == 0) *to = scale * sum;
}
template <class T>
__global__ void __launch_bounds__(256) add_parts_kernel(const T* parts, Index count, double scale, double* to) {
  follow();
  add_parts(parts, count, scale, to);
}

}  // namespace COYOTE_CUDA_ARCHITECTURES

}  // namespace coyote::inline v0::cuda

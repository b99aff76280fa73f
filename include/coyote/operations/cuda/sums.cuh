// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/resident.cuh"

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

/// *to = scale * (parts[0] + ... + parts[count - 1])
template <class T>
__global__ void __launch_bounds__(256) add_parts_kernel(const T* parts, Index count, double scale, double* to) {
  double sum = 0;
  for (Index i = threadIdx.x; i < count; i += 256) sum += static_cast<double>(parts[i]);
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) *to = scale * sum;
}

/// parts[b, c] = the sum of x[i, c] over the rows of chunk b.
template <class S>
__global__ void __launch_bounds__(256)
    column_parts_kernel(const S* x, Index stride, Index rows, int width, int chunk, float* parts) {
  // 32 columns a block; 8 rows at a time
  __shared__ float partial[8][33];
  const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
  const int c = blockIdx.x * 32 + lane;
  const Index first = Index{blockIdx.y} * chunk, last = first + chunk < rows ? first + chunk : rows;
  float sum = 0;
  if (c < width) {
    for (Index i = first + group; i < last; i += 8) sum += to_float(x[i * stride + c]);
  }
  partial[group][lane] = sum;
  __syncthreads();
  if (group == 0 && c < width) {
    for (int g = 1; g < 8; ++g) sum += partial[g][lane];
    parts[Index{blockIdx.y} * width + c] = sum;
  }
}
/// total[c] += parts[0, c] + parts[1, c] + ...
template <class T>
__global__ void __launch_bounds__(256) add_column_parts_kernel(const T* parts, int count, int width, float* total) {
  const int c = blockIdx.x * 256 + threadIdx.x;
  if (c >= width) return;
  float sum = 0;
  for (int b = 0; b < count; ++b) sum += parts[static_cast<Index>(b) * width + c];
  total[c] += sum;
}

}  // namespace COYOTE_CUDA_ARCHITECTURES

/// total[0, c] += the sum of x[i, c] over all rows.
template <class S>
void add_column_sums(Context<Cuda>& context, Rows<const S> x, Rows<float> total) {
  if (x.empty()) return;
  const auto frame = context.frame();
  // As many chunks as fill the device, of at least 64 rows.
  const Index tiles = ceil_div(x.width, 32), most = std::max<Index>(1, 4 * context.limits().multiprocessors / tiles);
  const Index chunk = std::max<Index>(64, ceil_div(x.rows, most)), chunks = ceil_div(x.rows, chunk);
  float* parts = context.make<float>(chunks, x.width).data;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(chunks));
  column_parts_kernel<S>
      <<<grid, 256, 0, context.stream()>>>(x.data, x.stride, x.rows, static_cast<int>(x.width), static_cast<int>(chunk), parts);
  COYOTE_CUDA_CHECK_LAUNCH("column_parts");
  add_column_parts_kernel<<<static_cast<unsigned>(ceil_div(x.width, 256)), 256, 0, context.stream()>>>(
      parts, static_cast<int>(chunks), static_cast<int>(x.width), total.data);
  COYOTE_CUDA_CHECK_LAUNCH("add_column_parts");
}

}  // namespace coyote::inline v0::cuda

// SPDX-License-Identifier: Apache-2.0
// One deliberate fault for each tool of compute-sanitizer, which has to report it: what shows that its silence about our kernels
// means something. Usage: sanitizer_controls memcheck|racecheck|initcheck|synccheck

#include <cstdio>
#include <cstring>

namespace {

constexpr int threads = 64;

/// Every thread reads one place beyond the end.
__global__ void read_beyond(const int* data, int* out) { out[threadIdx.x] = data[threads + threadIdx.x]; }

/// Nothing orders a thread's store and its neighbour's load.
__global__ void race(int* out) {
  __shared__ int values[threads];
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = values[(threadIdx.x + 33) % threads];
}

/// Reads what nobody has written.
__global__ void read_unwritten(const int* data, int* out) { out[threadIdx.x] = data[threadIdx.x] + 1; }

__global__ void sync0(int* out) {
  if (threadIdx.x % 2 == 0) __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void sync1(int* out) {
  __syncwarp(0x1u);
  out[threadIdx.x] = 1;
}
__global__ void sync2(int* out) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void sync3(int* out) {
  __shared__ unsigned long long bar;
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(&bar));
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(at));
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(at));
  }
  __syncthreads();
  asm volatile("{.reg .b64 t; mbarrier.arrive.shared.b64 t, [%0];}" ::"r"(at));
  out[threadIdx.x] = 1;
}
__global__ void sync4(int* out) {
  __shared__ unsigned long long bar;
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(&bar));
  if (threadIdx.x == 0) asm volatile("{.reg .b64 t; mbarrier.arrive.shared.b64 t, [%0];}" ::"r"(at));
  out[threadIdx.x] = 1;
}
__global__ void sync5(int* out) {
  if (threadIdx.x < 40) asm volatile("barrier.sync 1, 64;" ::: "memory");
  else asm volatile("barrier.sync 1, 64;" ::: "memory");
  out[threadIdx.x] = 1;
}
__global__ void sync6(int* out) {
  if (threadIdx.x < 16) __syncwarp(0xffffffffu);
  out[threadIdx.x] = __shfl_sync(0xffu, threadIdx.x, 1);
}

}  // namespace

int main(int argc, char** argv) {
  const char* const tool = argc > 1 ? argv[1] : "";
  int *data = nullptr, *out = nullptr;
  cudaMalloc(&data, threads * sizeof(int));
  cudaMalloc(&out, threads * sizeof(int));
  const auto is = [&](const char* name) { return std::strcmp(tool, name) == 0; };
  if (is("memcheck")) read_beyond<<<1, threads>>>(data, out);
  if (is("racecheck")) race<<<1, threads>>>(out);
  if (is("initcheck")) read_unwritten<<<1, threads>>>(data, out);
  if (is("sync0")) sync0<<<1, threads>>>(out);
  if (is("sync1")) sync1<<<1, threads>>>(out);
  if (is("sync2")) sync2<<<1, threads>>>(out);
  if (is("sync3")) sync3<<<1, threads>>>(out);
  if (is("sync4")) sync4<<<1, threads>>>(out);
  if (is("sync5")) sync5<<<1, threads>>>(out);
  if (is("sync6")) sync6<<<1, threads>>>(out);
  std::printf("%s: %s\n", tool, cudaGetErrorString(cudaDeviceSynchronize()));
}

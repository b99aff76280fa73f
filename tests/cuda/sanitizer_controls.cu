// SPDX-License-Identifier: Apache-2.0
// One deliberate fault for each tool of compute-sanitizer, which has to report it: what shows that its silence about our kernels
// means something. Usage: sanitizer_controls memcheck|racecheck|initcheck|synccheck

#include <cstdio>
#include <cstring>

namespace {

constexpr int threads = 64;

/// Reads behind the end.
__global__ void read_beyond(const int* data, int* out) { out[threadIdx.x] = data[threads + threadIdx.x]; }

/// Nothing orders a thread's store and its neighbour's load.
__global__ void race(int* out) {
  __shared__ int values[threads];
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = values[(threadIdx.x + 33) % threads];
}

/// Reads what nobody has written.
__global__ void read_unwritten(const int* data, int* out) { out[threadIdx.x] = data[threadIdx.x] + 1; }

/// Half of each warp waits at a barrier of all threads.
__global__ void meet_by_halves(int* out) {
  if (threadIdx.x % 2 == 0) __syncthreads();
  out[threadIdx.x] = 1;
}

}  // namespace

int main(int argc, char** argv) {
  const auto is = [&](const char* tool) { return argc == 2 && std::strcmp(argv[1], tool) == 0; };
  int *data = nullptr, *out = nullptr;
  if (cudaMalloc(&data, threads * sizeof(int)) != cudaSuccess || cudaMalloc(&out, threads * sizeof(int)) != cudaSuccess) {
    std::puts("no GPU");
    return 77;
  }
  if (is("memcheck")) read_beyond<<<1, threads>>>(data, out);
  if (is("racecheck")) race<<<1, threads>>>(out);
  if (is("initcheck")) read_unwritten<<<1, threads>>>(data, out);
  if (is("synccheck")) meet_by_halves<<<1, threads>>>(out);
  cudaDeviceSynchronize();
}

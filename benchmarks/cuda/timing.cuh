// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "coyote/operations/cuda/column_sums.cuh"

/// What the benchmarks of the Cuda backend share: medians by CUDA events over inputs that no cache holds, and the floor.
namespace coyote_benchmark {

namespace cy = coyote;
using cy::Index;
using cy::Rows;

/// Bytes of inputs that calls take turns over, at least.
inline constexpr double rotated_bytes = 240e6;

template <class S>
__global__ void fill_kernel(S* data, Index size, std::uint32_t seed, float scale) {
  for (Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += Index{gridDim.x} * blockDim.x) {
    std::uint32_t bits = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    bits ^= bits >> 16;
    bits *= 2246822519u;
    bits ^= bits >> 13;
    bits *= 3266489917u;
    bits ^= bits >> 16;
    data[i] = cy::cuda::from_float<S>(scale * (static_cast<float>(bits >> 8) * 0x1p-23f - 1.0f));
  }
}

/// Random matrices of one shape, one for each turn.
template <class S>
class Turns {
 public:
  Turns(Index turns, Index rows, Index width, float scale = 1) : rows_(rows), width_(width), array_(turns * rows * width) {
    fill_kernel<<<1024, 256>>>(array_.data(), array_.size(), seed_ += 77, scale);
  }
  Rows<S> operator[](Index turn) { return {array_.data() + turn * rows_ * width_, rows_, width_}; }

 private:
  static inline std::uint32_t seed_ = 0;
  Index rows_, width_;
  cy::cuda::DeviceArray<S> array_;
};

inline Index turns_for(double bytes) { return static_cast<Index>(std::ceil(rotated_bytes / bytes)); }
/// How many calls a series has that takes turns.
inline Index calls_for(Index turns) { return std::max<Index>(20, turns); }

/// The median time of run(turn) in ms, of each call by itself between two events. All calls are given at once, so that the host
/// is never waited for.
template <class Run>
double median_ms(cy::Context<cy::Cuda>& context, Run&& run, int repeats = 31, int warmup = 5) {
  std::vector<cudaEvent_t> events(static_cast<std::size_t>(2 * repeats));
  for (cudaEvent_t& event : events) COYOTE_CUDA_CHECK(cudaEventCreate(&event));
  for (int i = 0; i < warmup; ++i) run(Index{i});
  for (int i = 0; i < repeats; ++i) {
    COYOTE_CUDA_CHECK(cudaEventRecord(events[static_cast<std::size_t>(2 * i)], context.stream()));
    run(Index{i});
    COYOTE_CUDA_CHECK(cudaEventRecord(events[static_cast<std::size_t>(2 * i + 1)], context.stream()));
  }
  context.synchronise();
  std::vector<float> times(static_cast<std::size_t>(repeats));
  for (std::size_t i = 0; i < times.size(); ++i) {
    COYOTE_CUDA_CHECK(cudaEventElapsedTime(&times[i], events[2 * i], events[2 * i + 1]));
  }
  for (cudaEvent_t event : events) cudaEventDestroy(event);
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]);
}

/// The median time of one of run(0), ..., run(calls - 1) in ms, all captured in a graph that is replayed: what a call costs in a
/// captured training step. As there, partial sums of gradients wait and are added up at the end, within the time.
template <class Run>
double replayed_ms(cy::Context<cy::Cuda>& context, Index calls, Run&& run) {
  const auto series = [&] {
    cy::GatheredSums<cy::Cuda> sums(context);
    for (Index i = 0; i < calls; ++i) run(i);
    sums.finish();
  };
  for (int i = 0; i < 2; ++i) series();  // the memory that it takes is there then, in one block
  context.synchronise();
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  COYOTE_CUDA_CHECK(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal));
  series();
  COYOTE_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &graph));
  COYOTE_CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  const double ms = median_ms(
      context, [&](Index) { COYOTE_CUDA_CHECK(cudaGraphLaunch(replay, context.stream())); }, 15, 2);
  COYOTE_CUDA_CHECK(cudaGraphExecDestroy(replay));
  COYOTE_CUDA_CHECK(cudaGraphDestroy(graph));
  return ms / static_cast<double>(calls);
}

/// Bytes per ms of a large copy on the device, read plus written: what floors are counted in.
inline double copy_rate(cy::Context<cy::Cuda>& context) {
  constexpr Index bytes = Index{1} << 31;
  Turns<float> from(1, 1, bytes / 4), to(1, 1, bytes / 4);
  const double ms = median_ms(
      context,
      [&](Index) {
        COYOTE_CUDA_CHECK(cudaMemcpyAsync(to[0].data, from[0].data, bytes, cudaMemcpyDeviceToDevice, context.stream()));
      },
      11, 2);
  return 2.0 * static_cast<double>(bytes) / ms;
}

/// One line: what, its shape, the time, and the time against the floor.
inline void report(const std::string& name, const std::string& shape, double ms, double bytes, double rate) {
  std::printf("%-34s %-24s %9.4f ms  floor %8.4f  x %5.2f\n", name.c_str(), shape.c_str(), ms, bytes / rate, ms * rate / bytes);
  std::fflush(stdout);
}

}  // namespace coyote_benchmark

// SPDX-License-Identifier: Apache-2.0
// Long convolutions in bf16 on a GPU: one line `name shape ms floor_ms` per row, medians by CUDA events, inputs rotated over at
// least 240 MB. The floor is the bytes that must move, float taps included, over the rate of a copy measured here.
// Arguments: the shortest and the longest length to run (all without them).
#include "coyote/operations/cuda/long_convolution.cuh"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

using namespace coyote;

__global__ void fill(bf16* data, std::size_t count, unsigned seed) {
  for (std::size_t i = blockIdx.x * 256ull + threadIdx.x; i < count; i += gridDim.x * 256ull) {
    unsigned h = static_cast<unsigned>(i) * 2654435761u + seed;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    data[i] = __float2bfloat16(static_cast<float>(static_cast<int>(h)) * (1.7f / 2147483648.0f));
  }
}
__global__ void fill(float* data, std::size_t count, float scale, unsigned seed) {
  for (std::size_t i = blockIdx.x * 256ull + threadIdx.x; i < count; i += gridDim.x * 256ull) {
    unsigned h = static_cast<unsigned>(i) * 2654435761u + seed;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    data[i] = static_cast<float>(static_cast<int>(h)) * (scale / 2147483648.0f);
  }
}

/// Median milliseconds of run(turn), `together` launches between two events.
template <class Run>
double median_ms(cudaStream_t stream, Run&& run, int together, int repeats = 15) {
  cudaEvent_t start, stop;
  COYOTE_CUDA_CHECK(cudaEventCreate(&start));
  COYOTE_CUDA_CHECK(cudaEventCreate(&stop));
  std::vector<float> times;
  int turn = 0;
  for (int i = 0; i < repeats + 3; ++i) {
    COYOTE_CUDA_CHECK(cudaEventRecord(start, stream));
    for (int k = 0; k < together; ++k) run(turn++);
    COYOTE_CUDA_CHECK(cudaEventRecord(stop, stream));
    COYOTE_CUDA_CHECK(cudaEventSynchronize(stop));
    float ms = 0;
    COYOTE_CUDA_CHECK(cudaEventElapsedTime(&ms, start, stop));
    if (i >= 3) times.push_back(ms / static_cast<float>(together));
  }
  COYOTE_CUDA_CHECK(cudaEventDestroy(start));
  COYOTE_CUDA_CHECK(cudaEventDestroy(stop));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double copy_bytes_per_ms(cudaStream_t stream) {
  const std::size_t bytes = std::size_t{2} << 30;
  cuda::DeviceArray<char> from(static_cast<Index>(bytes)), to(static_cast<Index>(bytes));
  const double ms = median_ms(
      stream, [&](int) { COYOTE_CUDA_CHECK(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream)); },
      1);
  return 2 * static_cast<double>(bytes) / ms;
}

void run_shape(Context<Cuda>& context, Index length, Index batch, Index width, double rate) {
  const Index size = batch * width * length;
  const int sets = static_cast<int>(std::max<Index>(1, ceil_div(240'000'000, 2 * size)));
  cuda::DeviceArray<bf16> x(sets * size), y(sets * size), d(sets * size), gate(sets * size), kept(sets * size),
      dgate(sets * size);
  cuda::DeviceArray<float> taps(width * length), dtaps(width * length);
  unsigned seed = 1;
  for (auto* array : {&x, &d, &gate, &kept})
    fill<<<1024, 256>>>(array->data(), static_cast<std::size_t>(array->size()), seed += 77);
  fill<<<1024, 256>>>(taps.data(), static_cast<std::size_t>(taps.size()), 1.0f / static_cast<float>(length), 5);
  COYOTE_CUDA_CHECK(cudaDeviceSynchronize());
  const int together = length <= 1024 ? 8 : length <= 4096 ? 2 : 1;
  const auto report = [&](const char* name, double bytes_per_value, double tap_bytes, auto&& run) {
    const double ms = median_ms(
        context.stream(), [&](int turn) { run((turn % sets) * size); }, together);
    const double floor = (bytes_per_value * static_cast<double>(size) + tap_bytes * static_cast<double>(width * length)) / rate;
    std::printf("%s L=%td,B=%td,D=%td %.4f %.4f\n", name, length, batch, width, ms, floor);
    std::fflush(stdout);
  };
  report("conv_forward_channel_major", 4, 4, [&](Index at) {
    cuda::long_convolution_channel_major<bf16>(context, batch, width, length, x.data() + at, taps.data(), y.data() + at);
  });
  report("conv_backward_channel_major", 6, 12, [&](Index at) {
    cuda::long_convolution_channel_major_backward<bf16>(context, batch, width, length, x.data() + at, taps.data(), d.data() + at,
                                                        y.data() + at, dtaps.data());
  });
  const Batch sequences{.sequences = batch, .length = length};
  const auto rows = [&](auto& array, Index at) { return Rows(array.data() + at, batch * length, width); };
  const auto view = [&](auto& array, Index at) { return Rows<const bf16>(rows(array, at)); };
  const Rows<float> filter(taps.data(), length, width), gradient(dtaps.data(), length, width);
  const Rows<float> bias(taps.data(), 1, width), dbias(dtaps.data(), 1, width);
  report("conv_forward_rows", 4, 4, [&](Index at) {
    long_convolution<bf16>(context, sequences, Wrap::causal, view(x, at), filter, {}, {}, {}, rows(y, at));
  });
  report("conv_forward_rows_gated", 6, 4, [&](Index at) {
    long_convolution<bf16>(context, sequences, Wrap::causal, view(x, at), filter, bias, view(gate, at), {}, rows(y, at));
  });
  report("conv_backward_rows", 6, 12, [&](Index at) {
    long_convolution_backward<bf16>(context, sequences, Wrap::causal, view(x, at), filter, {}, {}, view(d, at), rows(y, at),
                                    Write::overwrite, {}, gradient, {});
  });
  report("conv_backward_rows_gated", 12, 12, [&](Index at) {
    long_convolution_backward<bf16>(context, sequences, Wrap::causal, view(x, at), filter, view(gate, at), view(kept, at),
                                    view(d, at), rows(y, at), Write::overwrite, rows(dgate, at), gradient, dbias);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const Index shortest = argc > 1 ? std::atol(argv[1]) : 1, longest = argc > 2 ? std::atol(argv[2]) : Index{1} << 30;
  Context<Cuda> context;
  const double rate = copy_bytes_per_ms(context.stream());
  std::printf("copy %.0f GB/s\n", rate / 1e6);
  constexpr Index shapes[][3] = {{128, 64, 768},  {256, 64, 768},  {512, 64, 768},   {1024, 64, 768}, {2048, 64, 768},
                                 {4096, 64, 768}, {8192, 32, 768}, {16384, 16, 768}, {65536, 4, 768}, {524288, 1, 384}};
  for (const auto& [length, batch, width] : shapes) {
    if (shortest <= length && length <= longest) run_shape(context, length, batch, width, rate);
  }
}

// SPDX-License-Identifier: Apache-2.0
// Cross entropy of a tied head in bf16 on a GPU, 8192 entries: one line `name shape ms floor_ms` per row, medians by CUDA events
// over replays of a graph of several calls, whose inputs rotate over at least 240 MB. The floor is 2 (forward only) or 6 rows V D
// flop at 800 TFLOP/s, about what large bf16 products reach on a H200. Usage: cross_entropy [rows width [once]],
// `once` for profilers: a call with gradients, twice.
#include "coyote/operations/cuda/cross_entropy.cuh"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "timing.cuh"

namespace {

using namespace coyote;
namespace cuda = coyote::cuda;  // CUB has another

__device__ float noise(std::size_t i, unsigned seed) {
  unsigned h = static_cast<unsigned>(i) * 2654435761u + seed;
  h ^= h >> 15;
  h *= 2246822519u;
  h ^= h >> 13;
  return static_cast<float>(static_cast<int>(h)) / 2147483648.0f;
}
__global__ void fill_bf16(bf16* data, std::size_t count, float scale, unsigned seed) {
  for (std::size_t i = blockIdx.x * 256ull + threadIdx.x; i < count; i += gridDim.x * 256ull) {
    data[i] = __float2bfloat16(scale * noise(i, seed));
  }
}
__global__ void fill_float(float* data, std::size_t count, float scale, unsigned seed) {
  for (std::size_t i = blockIdx.x * 256ull + threadIdx.x; i < count; i += gridDim.x * 256ull) data[i] = scale * noise(i, seed);
}

void run_shape(Context<Cuda>& context, Index rows, Index width, bool once = false) {
  constexpr Index vocabulary = 8192;
  const Index each = rows * width * 4 + vocabulary * width * 8;
  const int sets = static_cast<int>(ceil_div(240'000'000, each));
  cuda::DeviceArray<bf16> hidden(sets * rows * width), dhidden(sets * rows * width);
  cuda::DeviceArray<float> table(sets * vocabulary * width), dtable(sets * vocabulary * width);
  std::vector<Token> label_values;
  for (Index i = 0; i < rows; ++i) label_values.push_back(static_cast<Token>(i * 7919 % vocabulary));
  const cuda::DeviceArray<Token> labels(label_values.data(), rows);
  cuda::DeviceArray<Token> predicted(rows);
  cuda::DeviceArray<double> losses(rows);
  const float scale = 3.0f / std::sqrt(static_cast<float>(width));
  fill_bf16<<<1024, 256>>>(hidden.data(), static_cast<std::size_t>(hidden.size()), 1.7f, 1);
  fill_float<<<1024, 256>>>(table.data(), static_cast<std::size_t>(table.size()), scale, 2);
  COYOTE_CUDA_CHECK(cudaDeviceSynchronize());
  const auto size = static_cast<std::size_t>(rows);
  const std::span<const Token> wanted(labels.data(), size);
  const std::span<Token> found(predicted.data(), size);
  const auto h = [&](int set) { return Rows<const bf16>(hidden.data() + set * rows * width, rows, width); };
  const auto dh = [&](int set) { return Rows<bf16>(dhidden.data() + set * rows * width, rows, width); };
  const auto e = [&](int set) { return Rows<const float>(table.data() + set * vocabulary * width, vocabulary, width); };
  const auto de = [&](int set) { return Rows<float>(dtable.data() + set * vocabulary * width, vocabulary, width); };
  const auto report = [&](const char* name, double products, auto&& run) {
    const double ms = coyote_benchmark::replayed_ms(context, std::min(sets, 24), run);
    const double flop = 2 * products * static_cast<double>(rows * vocabulary * width);
    std::printf("%s rows=%td,V=%td,D=%td %.4f %.4f\n", name, rows, vocabulary, width, ms, flop / 800e9);
    std::fflush(stdout);
  };
  if (once) {
    for (int i = 0; i < 2; ++i) cross_entropy<bf16>(context, h(i), e(i), wanted, found, {}, dh(i), de(i));
    return context.synchronise();
  }
  report("cross_entropy_forward", 1,
         [&](int set) { cross_entropy<bf16>(context, h(set), e(set), wanted, found, {}, Rows<bf16>(), Rows<float>()); });
  report("cross_entropy", 3, [&](int set) { cross_entropy<bf16>(context, h(set), e(set), wanted, found, {}, dh(set), de(set)); });
  report("cross_entropy_by_products", 3, [&](int set) {
    const auto frame = context.frame();
    cuda::product_cross_entropy<bf16>(context, h(set), e(set), labels.data(), predicted.data(), losses.data(), dh(set), de(set));
  });
}

}  // namespace

int main(int argc, char** argv) {
  Context<Cuda> context;
  if (argc > 2) {
    run_shape(context, std::atol(argv[1]), std::atol(argv[2]), argc > 3);
    return 0;
  }
  for (const Index width : {64, 128, 256, 512}) {
    for (const Index rows : {2048, 4096, 8192}) run_shape(context, rows, width);
  }
}

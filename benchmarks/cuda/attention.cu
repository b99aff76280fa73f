// SPDX-License-Identifier: Apache-2.0
// Attention on Cuda: one line per case, `name shape ms floor_ms TFLOP/s`. Medians by CUDA events over inputs that rotate through
// at least 240 MB; the floor is the bytes of q, k, v and y (and of the gradients) over the measured copy rate.
//
// Usage: attention [copy] [forward] [backward] [wide] [bigrams] [bigrams_backward] [step]   (all when none is named)

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "coyote/mixers/patterns.hpp"
#include "coyote/operations/cuda/attention.cuh"

namespace {

using namespace coyote;
namespace cuda = coyote::cuda;

__global__ void draw(bf16* to, Index count, std::uint64_t name) {
  const Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const RandomWords w = philox(RandomWords{static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(name), 0, 7}, 1, 2);
  const float u = (static_cast<float>(w.x) + 0.5f) * 0x1p-32f, v = static_cast<float>(w.y) * 0x1p-32f;
  to[i] = __float2bfloat16(sqrtf(-2 * logf(u)) * cospif(2 * v));
}

/// The median time in ms of run(n), n counting up.
template <class Run>
double median_ms(cudaStream_t stream, Run&& run, int warm = 3, int repeats = 15) {
  std::vector<float> times;
  cudaEvent_t start, stop;
  COYOTE_CUDA_CHECK(cudaEventCreate(&start));
  COYOTE_CUDA_CHECK(cudaEventCreate(&stop));
  float spent = 0;
  for (int n = 0; n < warm + repeats && (spent < 400 || times.size() < 3); ++n) {
    COYOTE_CUDA_CHECK(cudaEventRecord(start, stream));
    run(n);
    COYOTE_CUDA_CHECK(cudaEventRecord(stop, stream));
    COYOTE_CUDA_CHECK(cudaEventSynchronize(stop));
    float ms = 0;
    COYOTE_CUDA_CHECK(cudaEventElapsedTime(&ms, start, stop));
    spent += ms;
    if (n >= warm) times.push_back(ms);
  }
  COYOTE_CUDA_CHECK(cudaEventDestroy(start));
  COYOTE_CUDA_CHECK(cudaEventDestroy(stop));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double copy_rate = 0;  // bytes per ms, read plus written

void measure_copy(Context<Cuda>& context) {
  const std::size_t size = std::size_t{2} << 30;
  cuda::DeviceArray<unsigned char> from(static_cast<Index>(size)), to(static_cast<Index>(size));
  const double ms = median_ms(context.stream(), [&](int) {
    COYOTE_CUDA_CHECK(cudaMemcpyAsync(to.data(), from.data(), size, cudaMemcpyDeviceToDevice, context.stream()));
  });
  copy_rate = 2 * static_cast<double>(size) / ms;
  std::printf("copy_rate GB/s %.0f\n", copy_rate / 1e6);
}

struct Case {
  Index batch, length, heads, width;
  Index rows() const { return batch * length; }
  Index d() const { return heads * width; }
};

/// Inputs for some calls: q, k and v packed as a layer has them.
class Inputs {
 public:
  explicit Inputs(const Case& c, bool backward, Token symbols = 0) : case_(c) {
    const Index per_set = c.rows() * c.d() * (backward ? 8 : 4) * 2;
    sets_ = std::max<Index>(1, (240'000'000 + per_set - 1) / per_set);
    const auto fresh = [&](Index width, std::uint64_t name) {
      cuda::DeviceArray<bf16> a(c.rows() * width);
      draw<<<static_cast<unsigned>(ceil_div(a.size(), 256)), 256>>>(a.data(), a.size(), name);
      COYOTE_CUDA_CHECK_LAUNCH("draw");
      return a;
    };
    for (Index n = 0; n < sets_; ++n) {
      qkv_.push_back(fresh(3 * c.d(), static_cast<std::uint64_t>(2 * n)));
      y_.push_back(fresh(c.d(), 0));
      if (backward) {
        dy_.push_back(fresh(c.d(), static_cast<std::uint64_t>(2 * n + 1)));
        dqkv_.push_back(cuda::DeviceArray<bf16>(3 * c.d() * c.rows()));
      }
      log_.push_back(cuda::DeviceArray<float>(c.rows() * c.heads));
    }
    if (symbols > 0) {
      std::vector<Token> tokens;
      const Stream draws(Seed{5}, Purpose::test);
      for (Index i = 0; i < c.rows(); ++i) {
        tokens.push_back(static_cast<Token>(draws.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(symbols))));
      }
      tokens_ = cuda::DeviceArray<Token>(tokens.data(), c.rows());
      device_.tokens = tokens_.data();
    }
    batch_ = {.sequences = c.batch, .length = c.length, .device = &device_};
    COYOTE_CUDA_CHECK(cudaDeviceSynchronize());
  }
  template <class Pattern>
  void forward(Context<Cuda>& context, int n) {
    const auto frame = context.frame();
    const auto i = static_cast<std::size_t>(n % sets_);
    const auto index = build_index<Pattern>(context, batch_);
    attention<bf16, Pattern>(context, batch_, index, case_.heads, scale(), {}, part(qkv_[i], 0), part(qkv_[i], 1),
                             part(qkv_[i], 2), y(i), log(i));
  }
  template <class Pattern>
  void backward(Context<Cuda>& context, const cuda::DeviceIndex& index, int n) {
    const auto i = static_cast<std::size_t>(n % sets_);
    attention_backward<bf16, Pattern>(context, batch_, index, case_.heads, scale(), {}, part(qkv_[i], 0), part(qkv_[i], 1),
                                      part(qkv_[i], 2), y(i), log(i), {dy_[i].data(), case_.rows(), case_.d()}, part(dqkv_[i], 0),
                                      part(dqkv_[i], 1), part(dqkv_[i], 2));
  }
  Index sets() const { return sets_; }
  const Batch& batch() const { return batch_; }

 private:
  float scale() const { return 1 / std::sqrt(static_cast<float>(case_.width)); }
  Rows<bf16> part(cuda::DeviceArray<bf16>& a, Index which) const {
    return Rows<bf16>(a.data(), case_.rows(), 3 * case_.d()).columns(which * case_.d(), case_.d());
  }
  Rows<bf16> y(std::size_t i) { return {y_[i].data(), case_.rows(), case_.d()}; }
  Rows<float> log(std::size_t i) { return {log_[i].data(), case_.rows(), case_.heads}; }

  Case case_;
  Index sets_ = 1;
  std::vector<cuda::DeviceArray<bf16>> qkv_, y_, dy_, dqkv_;
  std::vector<cuda::DeviceArray<float>> log_;
  cuda::DeviceArray<Token> tokens_;
  DeviceBatch device_;
  Batch batch_;
};

void print(const char* name, const Case& c, double ms, double bytes, double flop) {
  std::printf("%s L=%td,head=%td,B=%td,H=%td %.4f floor %.4f TFLOP/s %.0f\n", name, c.length, c.width, c.batch, c.heads, ms,
              bytes / copy_rate, flop / ms / 1e9);
  std::fflush(stdout);
}

template <class Pattern>
void time_case(Context<Cuda>& context, const std::string& name, const Case& c, bool forward, bool backward, double pairs,
               Token symbols = 0) {
  Inputs inputs(c, backward, symbols);
  const double size = 2.0 * static_cast<double>(c.rows() * c.d());
  const double flop = 4 * pairs * static_cast<double>(c.width * c.heads * c.batch);
  if (forward) {
    const double ms = median_ms(context.stream(), [&](int n) { inputs.forward<Pattern>(context, n); });
    print((name + "_forward").c_str(), c, ms, 4 * size, flop);
  }
  if (backward) {
    const auto frame = context.frame();
    for (Index n = 0; n < inputs.sets(); ++n) inputs.forward<Pattern>(context, static_cast<int>(n));
    const auto index = build_index<Pattern>(context, inputs.batch());
    const double ms = median_ms(context.stream(), [&](int n) { inputs.backward<Pattern>(context, index, n); });
    print((name + "_backward").c_str(), c, ms, 8 * size, 2.5 * flop);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> chosen(argv + 1, argv + argc);
  const auto wanted = [&](const char* name) {
    return chosen.empty() || std::find(chosen.begin(), chosen.end(), name) != chosen.end();
  };
  Context<Cuda> context;
  measure_copy(context);
  const bool forward = wanted("forward"), backward = wanted("backward");
  const auto triangle = [](Index n) { return 0.5 * static_cast<double>(n) * static_cast<double>(n); };
  if (forward || backward) {
    for (const Index width : {64, 128}) {
      for (const Index length : {512, 1024, 2048, 4096, 8192, 16384, 65536}) {
        const Case c{.batch = std::max<Index>(1, 16384 / length), .length = length, .heads = 2048 / width, .width = width};
        time_case<Dense>(context, "attention", c, forward, backward, triangle(length));
      }
    }
  }
  if (wanted("wide")) {
    for (const Index width : {64, 128, 256, 512}) {
      for (const Index length : {64, 512}) {
        const Case c{.batch = 32768 / length, .length = length, .heads = 1, .width = width};
        time_case<Dense>(context, "one_head", c, true, true, triangle(length));
      }
    }
  }
  if (wanted("bigrams") || wanted("bigrams_backward")) {
    for (const Index length : {1024, 16384, 65536, 262144}) {
      const Case c{.batch = std::max<Index>(1, 16384 / length), .length = length, .heads = 16, .width = 128};
      time_case<RepeatedBigrams<4>>(context, "repeated_bigrams_4", c, wanted("bigrams"), wanted("bigrams_backward"),
                                    4.0 * static_cast<double>(length), 256);
    }
  }
}

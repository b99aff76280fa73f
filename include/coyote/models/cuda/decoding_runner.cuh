// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/graph.cuh"
#include "coyote/core/cuda/resident.cuh"
#include "coyote/models/decoder.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// A step's position and tokens as arguments of a kernel: the copy engine takes longer to start, and to be waited for.
struct StepNumbersByValue {
  static constexpr Index most = 256;
  std::int32_t numbers[most];
};
template <class = void>
__global__ void __launch_bounds__(StepNumbersByValue::most)
    write_step_kernel(StepNumbersByValue from, std::int32_t* to, int count) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) to[i] = from.numbers[i];
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// Decoding steps on a GPU. The first two run as they are told, and the arena comes to rest; the third is captured, and it and
/// all later ones are one launch of the graph. Position and tokens lie at fixed addresses, to which the graph's first kernel
/// writes its arguments; if those are too many, they are sent ahead of it.
template <>
class DecodingRunner<Cuda> {
 public:
  template <class Work>
  void run(Context<Cuda>& context, const Step& step, Work&& work) {
    const auto count = static_cast<Index>(step.tokens.size());
    if (arrays_.size() != 1 + count) {
      context.synchronise();
      graph_ = {};
      arrays_ = cuda::DeviceArray<std::int32_t>(1 + count);
    }
    const bool by_value = 1 + count <= cuda::StepNumbersByValue::most;
    cuda::StepNumbersByValue numbers;
    if (by_value) {
      write(step, numbers.numbers);
    } else {
      std::byte* staged = context.stage(arrays_.bytes());
      write(step, reinterpret_cast<std::int32_t*>(staged));
      context.send(staged, arrays_.data(), arrays_.bytes());
    }
    const DeviceStep on_device{arrays_.data(), arrays_.data() + 1};
    Step here = step;
    here.device = &on_device;
    const auto whole = [&] {
      if (by_value) {
        cuda::write_step_kernel<>
            <<<1, cuda::StepNumbersByValue::most, 0, context.stream()>>>(numbers, arrays_.data(), static_cast<int>(1 + count));
        COYOTE_CUDA_CHECK_LAUNCH("write_step");
      }
      const Context<Cuda>::Settled settled(context);
      work(here);
    };
    if (generation_ != context.generation()) {
      generation_ = context.generation();
      runs_ = 0;
      graph_ = {};
    }
    if (graph_.size() == 0) {
      if (runs_++ < 2) return whole();
      graph_.emplace(context, whole);
    } else if (by_value) {
      graph_[0].begin_with(numbers, arrays_.data(), static_cast<int>(1 + count));
    }
    graph_[0].launch(context);
  }

 private:
  static void write(const Step& step, std::int32_t* numbers) {
    numbers[0] = static_cast<std::int32_t>(step.position);
    std::copy(step.tokens.begin(), step.tokens.end(), numbers + 1);
  }

  cuda::DeviceArray<std::int32_t> arrays_;
  std::uint64_t generation_ = 0;
  int runs_ = 0;
  List<cuda::Graph> graph_;  // none or one
};

}  // namespace coyote::inline v0

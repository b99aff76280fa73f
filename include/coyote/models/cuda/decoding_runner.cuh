// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/graph.cuh"
#include "coyote/core/cuda/resident.cuh"
#include "coyote/models/decoder.hpp"

namespace coyote::inline v0 {

/// Decoding steps on a GPU. The first two run as they are told, and the arena comes to rest; the third is captured, and it and
/// all later ones are one launch of the graph. Position and tokens lie at fixed addresses and are sent ahead of it.
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
    const std::size_t bytes = arrays_.bytes();
    std::byte* staged = context.stage(bytes);
    auto* numbers = reinterpret_cast<std::int32_t*>(staged);
    numbers[0] = static_cast<std::int32_t>(step.position);
    std::copy(step.tokens.begin(), step.tokens.end(), numbers + 1);
    context.send(staged, arrays_.data(), bytes);
    const DeviceStep on_device{arrays_.data(), arrays_.data() + 1};
    Step here = step;
    here.device = &on_device;
    if (generation_ != context.generation()) {
      generation_ = context.generation();
      runs_ = 0;
      graph_ = {};
    }
    if (graph_.size() == 0) {
      if (runs_++ < 2) return work(here);
      graph_.emplace(context, [&] { work(here); });
    }
    graph_[0].launch(context);
  }

 private:
  cuda::DeviceArray<std::int32_t> arrays_;
  std::uint64_t generation_ = 0;
  int runs_ = 0;
  List<cuda::Graph> graph_;  // none or one
};

}  // namespace coyote::inline v0

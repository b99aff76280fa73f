// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <list>

#include "coyote/core/cuda/graph.cuh"
#include "coyote/core/cuda/resident.cuh"
#include "coyote/training/step_runner.hpp"

namespace coyote::inline v0 {

namespace cuda {

/// What a captured step was captured for: batches of this shape, and tensors at the addresses of then.
struct StepShape {
  Index sequences, length, rows, labels;
  bool packed, has_tokens;
  std::uint64_t arena;
  friend bool operator==(const StepShape&, const StepShape&) = default;
};

}  // namespace cuda

/// Steps on a GPU. The first two of a shape run as they are told, and the arena comes to rest; the third is captured, and it
/// and all later ones are one launch of a graph. The arrays of the batch, the step's number and its rate lie at fixed
/// addresses and are sent ahead of it. Graphs of the latest few shapes are kept.
template <>
class StepRunner<Cuda> {
 public:
  template <class Work>
  void run(Context<Cuda>& context, const Batch& batch, std::uint64_t step, double rate, Work&& work) {
    context.step = step;
    const cuda::BatchImage image(batch);
    if (static_cast<std::size_t>(arrays_.size()) < image.bytes()) {
      context.synchronise();
      graphs_.clear();
      arrays_ = cuda::DeviceArray<std::byte>(static_cast<Index>(image.bytes()));
    }
    std::byte* staged = context.stage(image.bytes());
    image.write(staged);
    context.send(staged, arrays_.data(), image.bytes());
    context.send_numbers({step, rate});
    const NumbersScope scope{context};
    const DeviceBatch arrays = image.at(arrays_.data());
    Batch here = batch;
    here.device = &arrays;
    const cuda::StepShape shape{
        batch.sequences,        batch.length,          batch.rows(),        static_cast<Index>(batch.labels.size()),
        !batch.offsets.empty(), !batch.tokens.empty(), context.generation()};
    const auto whole_step = [&] {
      work(here);
      context.send_values();
    };
    Entry& entry = find(shape);
    if (entry.graph.size() == 0) {
      if (entry.runs++ < 2 || !captures_) return whole_step();
      entry.graph.emplace(context, whole_step);
    }
    entry.graph[0].launch(context);
    context.expect_values();
  }

  /// Whether steps are captured at all; tests compare both ways.
  void captures(bool on) {
    captures_ = on;
    graphs_.clear();
  }
  /// The number of graphs held.
  Index graphs() const {
    Index count = 0;
    for (const Entry& entry : graphs_) count += entry.graph.size();
    return count;
  }

 private:
  struct NumbersScope {
    Context<Cuda>& context;
    ~NumbersScope() { context.forget_numbers(); }
  };
  struct Entry {
    cuda::StepShape shape;
    int runs = 0;
    List<cuda::Graph> graph;  // none or one
  };
  static constexpr std::size_t most = 8;

  Entry& find(const cuda::StepShape& shape) {
    for (auto entry = graphs_.begin(); entry != graphs_.end(); ++entry) {
      if (entry->shape == shape) {
        graphs_.splice(graphs_.begin(), graphs_, entry);
        return graphs_.front();
      }
    }
    if (graphs_.size() == most) graphs_.pop_back();
    graphs_.push_front({shape, 0, {}});
    return graphs_.front();
  }

  cuda::DeviceArray<std::byte> arrays_;
  std::list<Entry> graphs_;
  bool captures_ = true;
};

}  // namespace coyote::inline v0

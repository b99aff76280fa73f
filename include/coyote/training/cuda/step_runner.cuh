// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
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
/// addresses. They are sent ahead to a place of their own, beside the step before, from where the device brings them there.
/// Graphs of the latest few shapes are kept.
template <>
class StepRunner<Cuda> {
 public:
  void prepare(Context<Cuda>& context, const Batch& batch, std::uint64_t step, double rate) {
    const cuda::BatchImage image(batch);
    // One copy brings the numbers and, behind them, the arrays: a second one would wait for the first.
    const std::size_t bytes = numbers_room + image.bytes();
    if (static_cast<std::size_t>(ahead_.size()) < bytes) {
      context.synchronise();
      ahead_ = cuda::DeviceArray<std::byte>(static_cast<Index>(bytes));
    }
    std::byte* staged = context.stage(bytes);
    numbers_ = {step, rate};
    std::memcpy(staged, &numbers_, sizeof(numbers_));
    image.write(staged + numbers_room);
    context.send_ahead(staged, ahead_.data(), bytes);
  }
  template <class Work>
  void run(Context<Cuda>& context, const Batch& batch, std::uint64_t step, double rate, Work&& work) {
    context.step = step;
    const cuda::BatchImage image(batch);
    const std::size_t bytes = numbers_room + image.bytes();
    if (static_cast<std::size_t>(arrays_.size()) < bytes) {
      context.synchronise();
      graphs_.clear();
      arrays_ = cuda::DeviceArray<std::byte>(static_cast<Index>(bytes));
    }
    context.take_ahead(ahead_.data(), arrays_.data(), bytes);
    const cuda::StepNumbers numbers{step, rate};
    if (numbers != numbers_) context.upload(&numbers, arrays_.data(), sizeof(numbers));  // it became another step since
    const NumbersScope scope(context, reinterpret_cast<const cuda::StepNumbers*>(arrays_.data()));
    const DeviceBatch arrays = image.at(arrays_.data() + numbers_room);
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
  static constexpr std::size_t numbers_room = 256;
  struct NumbersScope {
    Context<Cuda>& context;
    NumbersScope(Context<Cuda>& c, const cuda::StepNumbers* numbers) : context(c) { context.use_numbers(numbers); }
    NumbersScope(const NumbersScope&) = delete;
    ~NumbersScope() { context.use_numbers(nullptr); }
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

  cuda::DeviceArray<std::byte> arrays_, ahead_;
  cuda::StepNumbers numbers_;  // those in ahead_
  std::list<Entry> graphs_;
  bool captures_ = true;
};

}  // namespace coyote::inline v0

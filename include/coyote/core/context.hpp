// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "coyote/core/abi.hpp"
#include "coyote/core/arena.hpp"
#include "coyote/core/batch.hpp"
#include "coyote/core/random.hpp"
#include "coyote/core/rows.hpp"
#include "coyote/core/workers.hpp"

namespace coyote::inline v0 {

/// Plain loops over any commutative ring, usable in constant evaluation: the oracle.
struct Reference {};
/// The host's processor: vector kernels, float and double.
struct Cpu {};
/// An NVIDIA GPU; its context and layers come with coyote/cuda.hpp.
struct Cuda {};

/// Does a backend compute in scalars of type S?
template <class Backend, class S>
inline constexpr bool computes_in = true;
template <class S>
inline constexpr bool computes_in<Cpu, S> = std::is_same_v<S, float> || std::is_same_v<S, double>;

/// What one thread of execution needs while it runs layers: mode, the seed and step that name random draws, memory for
/// activations, worker threads or a stream. Layers are shared between threads; a context is not.
template <class Backend>
class Context;

/// What every backend's context has.
struct ContextBase {
  Mode mode = Mode::inference;
  Seed seed = {};
  std::uint64_t step = 0;     ///< names the dropout draws of a training step
  double auxiliary_loss = 0;  ///< layers with a penalty of their own add it here in a training forward

  constexpr bool training() const { return mode == Mode::training; }
};

/// Sets a context's mode for a scope.
class ModeScope {
 public:
  constexpr ModeScope(ContextBase& context, Mode mode) : context_(context), before_(std::exchange(context.mode, mode)) {}
  ModeScope(const ModeScope&) = delete;
  ModeScope& operator=(const ModeScope&) = delete;
  constexpr ~ModeScope() { context_.mode = before_; }

 private:
  ContextBase& context_;
  Mode before_;
};

/// Tensors own their memory here, so that whole layers run in constant evaluation.
template <>
class Context<Reference> : public ContextBase {
 public:
  /// What an operation returns that sums up to one number.
  using Value = double;
  template <class T>
  using Tensor = Matrix<T>;
  struct Frame {
    constexpr ~Frame() {}
  };

  /// An activation or scratch matrix.
  template <class T>
  constexpr Matrix<T> make(Index rows, Index width) const {
    return {rows, width};
  }
  constexpr Frame frame() const { return {}; }
  /// Calls work(i) for every row 0 .. count - 1; see Context<Cpu>.
  template <class Work>
  constexpr void for_rows(Index count, Index /*width*/, Work&& work) const {
    for (Index i = 0; i < count; ++i) work(i);
  }
  /// Calls work(i, sums) for every row, which adds to sums[0 .. total.width - 1]; then total += sums. See Context<Cpu>.
  template <class T, class Work>
  constexpr void sum_rows(Index count, Rows<T> total, Work&& work) const {
    for (Index i = 0; i < count; ++i) work(i, total.data);
  }
};

/// Tensors are views into the context's arena: they live until the frame in which they were made ends.
template <>
class Context<Cpu> : public ContextBase {
 public:
  using Value = double;
  template <class T>
  using Tensor = Rows<T>;

  /// Gives back, when it goes, all tensors made since it came.
  class Frame {
   public:
    explicit Frame(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { arena_.release(mark_); }

   private:
    Arena& arena_;
    Arena::Mark mark_;
  };

  /// @param threads  worker threads, the caller included; 0 = as many as the machine has
  explicit Context(Index threads = 0)
      : workers_(std::make_unique<Workers>(threads == 0 ? std::max<Index>(1, std::thread::hardware_concurrency()) : threads)),
        scratch_(static_cast<std::size_t>(workers_->threads())) {
    detail::require_uniform_units();
  }

  /// An uninitialised activation or scratch matrix. Rows are contiguous.
  template <class T>
  Rows<T> make(Index rows, Index width) {
    return {static_cast<T*>(arena_.allocate(static_cast<std::size_t>(rows * width) * sizeof(T))), rows, width};
  }
  [[nodiscard]] Frame frame() { return Frame(arena_); }

  Index threads() const { return workers_->threads(); }
  /// Calls work(block, scratch) for each block 0 .. blocks - 1 on the workers; what is allocated from `scratch`, an
  /// Arena of the running thread, is given back after the block. Cut work by its size, never by the number of
  /// threads: then results do not depend on it.
  template <class Work>
  void parallel(Index blocks, Work&& work) {
    // Any thread may come to take the largest block, now or much later: the memory that one needed, all have.
    std::size_t most = 0;
    for (const Arena& arena : scratch_) most = std::max(most, arena.peak());
    for (Arena& arena : scratch_) arena.reserve(most);
    workers_->run(blocks, [&](Index block, Index worker) {
      Arena& scratch = scratch_[static_cast<std::size_t>(worker)];
      const Frame frame(scratch);
      work(block, scratch);
    });
  }

  /// Calls work(i) for every row 0 .. count - 1, in parallel; a row costs about `width` simple operations. Operations
  /// whose rows do not depend on each other are written once, over this.
  template <class Work>
  void for_rows(Index count, Index width, Work&& work) {
    const Index block = std::max<Index>(1, 32768 / std::max<Index>(1, width));
    workers_->run(ceil_div(count, block), [&](Index b, Index) {
      for (Index i = b * block; i < std::min(count, (b + 1) * block); ++i) work(i);
    });
  }

  /// Calls work(i, sums) for every row 0 .. count - 1, in parallel; it adds to sums[0 .. total.width - 1], and in the end
  /// total += sums, in an order that does not depend on the number of threads.
  template <class T, class Work>
  void sum_rows(Index count, Rows<T> total, Work&& work) {
    const Frame scope = frame();
    const Index block = std::max<Index>(32, 65536 / std::max<Index>(1, total.width));
    const Rows<T> sums = make<T>(ceil_div(count, block), total.width);
    workers_->run(sums.rows, [&](Index b, Index) {
      for (Index c = 0; c < sums.width; ++c) sums(b, c) = T{};
      for (Index i = b * block; i < std::min(count, (b + 1) * block); ++i) work(i, sums.row(b));
    });
    for (Index b = 0; b < sums.rows; ++b) {
      for (Index c = 0; c < sums.width; ++c) total(0, c) += sums(b, c);
    }
  }

  Arena& arena() { return arena_; }
  /// The largest number of bytes of activations and scratch in use so far.
  std::size_t peak_memory() const {
    std::size_t bytes = arena_.peak();
    for (const Arena& arena : scratch_) bytes += arena.peak();
    return bytes;
  }
  /// See Arena::poison.
  void poison(bool on) {
    arena_.poison(on);
    for (Arena& arena : scratch_) arena.poison(on);
  }

 private:
  Arena arena_;
  std::unique_ptr<Workers> workers_;
  std::vector<Arena> scratch_;
};

/// A context for work outside a forward pass: one thread, inference.
template <class Backend>
constexpr Context<Backend> make_context() {
  if constexpr (std::is_constructible_v<Context<Backend>, Index>) {
    return Context<Backend>(Index{1});
  } else {
    return Context<Backend>();
  }
}

/// A batch for the operations of a backend: the caller's own on the host, one with a copy of its arrays on a device.
/// It lives until the context's current frame ends. Models make it; whoever calls a layer by itself does.
template <class Backend>
class Resident {
 public:
  constexpr Resident(Context<Backend>&, const Batch& batch) : batch_(batch) {}
  constexpr operator const Batch&() const { return batch_; }

 private:
  Batch batch_;
};

/// The same for a decoding step.
template <class Backend>
class ResidentStep {
 public:
  constexpr ResidentStep(Context<Backend>&, const Step& step) : step_(step) {}
  constexpr operator const Step&() const { return step_; }

 private:
  Step step_;
};

/// The type of an activation that a layer keeps: owning on Reference, a view into the arena elsewhere.
template <class Backend, class T>
using Tensor = typename Context<Backend>::template Tensor<T>;

}  // namespace coyote::inline v0

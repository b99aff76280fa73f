// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "coyote/core/arena.hpp"
#include "coyote/core/random.hpp"
#include "coyote/core/rows.hpp"
#include "coyote/core/workers.hpp"

namespace coyote::inline v0 {

/// Plain loops over any commutative ring, usable in constant evaluation: the oracle.
struct Reference {};
/// The host's processor: Eigen and our own vector kernels, float and double.
struct Cpu {};
/// An NVIDIA GPU; its context and layers come with coyote/cuda.hpp.
struct Cuda {};

/// What one thread of execution needs while it runs layers: mode, the seed and step that name random draws, memory for
/// activations, worker threads or a stream. Layers are shared between threads; a context is not.
template <class Backend>
class Context;

/// What every backend's context has.
struct ContextBase {
  Mode mode = Mode::inference;
  Seed seed = {};
  std::uint64_t step = 0;       ///< names the dropout draws of a training step
  double auxiliary_loss = 0;    ///< layers with a penalty of their own add it here in a training forward

  constexpr bool training() const { return mode == Mode::training; }
};

/// Tensors own their memory here, so that whole layers run in constant evaluation.
template <>
class Context<Reference> : public ContextBase {
 public:
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
};

/// Tensors are views into the context's arena: they live until the frame in which they were made ends.
template <>
class Context<Cpu> : public ContextBase {
 public:
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
        scratch_(static_cast<std::size_t>(workers_->threads())) {}

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
    workers_->run(blocks, [&](Index block, Index worker) {
      Arena& scratch = scratch_[static_cast<std::size_t>(worker)];
      const Frame frame(scratch);
      work(block, scratch);
    });
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

/// The type of an activation that a layer keeps: owning on Reference, a view into the arena elsewhere.
template <class Backend, class T>
using Tensor = typename Context<Backend>::template Tensor<T>;

}  // namespace coyote::inline v0

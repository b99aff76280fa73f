// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "coyote/core/error.hpp"
#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// A fixed crew of threads, the caller's included, that works through numbered blocks. Which thread takes which block
/// varies; results do not, because a block's work depends on its number alone.
class Workers {
 public:
  explicit Workers(Index threads) {
    if (threads < 1) throw Error("Workers", "at least one thread", words(threads));
    for (Index id = 1; id < threads; ++id) {
      threads_.emplace_back([this, id] { serve(id); });
    }
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  Index threads() const { return static_cast<Index>(threads_.size()) + 1; }

  /// Calls work(block, worker) for every block in 0 .. blocks - 1; worker < threads() is the number of the thread that
  /// runs it. Returns when all are done; the first exception is thrown again here. Allocates nothing. Do not nest.
  template <class Work>
  void run(Index blocks, Work&& work) {
    // The work is compiled once, behind a pointer, for one thread and for many.
    run_blocks(
        blocks,
        [](void* work_, Index block, Index worker) { (*static_cast<std::remove_reference_t<Work>*>(work_))(block, worker); },
        const_cast<void*>(static_cast<const void*>(std::addressof(work))));
  }

 private:
  /// About 20 microseconds of looking before a thread sleeps: calls follow each other closely within a step.
  static constexpr Index spins = 4000;
  using Call = void (*)(void* work, Index block, Index worker);

  [[gnu::noinline]] void run_blocks(Index blocks, Call call, void* work) {
    if (blocks <= 1 || threads_.empty()) {
      for (Index block = 0; block < blocks; ++block) call(work, block, 0);
      return;
    }
    call_ = call;
    argument_ = work;
    blocks_ = blocks;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<Index>(threads_.size()), std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take(0);
    for (Index spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin > spins) std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  void take(Index worker) {
    try {
      for (Index block; (block = next_.fetch_add(1, std::memory_order_relaxed)) < blocks_;) call_(argument_, block, worker);
    } catch (...) {
      next_.store(blocks_, std::memory_order_relaxed);
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }
  void serve(Index worker) {
    std::uint64_t seen = 0;
    for (;;) {
      Index spin = 0;
      while (generation_.load(std::memory_order_acquire) == seen && ++spin < spins) relax();
      if (spin == spins) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stop_) return;
      take(worker);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }
  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<Index> next_{0}, busy_{0};
  Index blocks_ = 0;
  Call call_ = nullptr;
  void* argument_ = nullptr;
  std::exception_ptr failure_;
  bool stop_ = false;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// Where an arena's blocks come from: the host's memory, on boundaries of `alignment` bytes.
struct HostMemory {
  static constexpr std::size_t alignment = 64;
  void* allocate(std::size_t bytes) { return ::operator new (bytes, std::align_val_t{alignment}); }
  void deallocate(void* data) noexcept { ::operator delete (data, std::align_val_t{alignment}); }
  /// NaN in every floating type, -1 in integers
  void poison(void* data, std::size_t bytes) { std::memset(data, 0xFF, bytes); }
  /// The size of a new block that holds at least `bytes`, after one of `last`.
  static std::size_t block_size(std::size_t bytes, std::size_t last) { return std::max(bytes, 2 * last); }
};

/// Memory for activations and scratch: handed out in order, given back in reverse order, on boundaries that the memory
/// names. When it runs empty after it had to grow, it becomes one block, so that the next pass of the same sizes allocates
/// nothing and finds every tensor at its old address.
template <class Memory>
class BasicArena {
 public:
  struct Mark {
    std::size_t block = 0, used = 0;
  };

  explicit BasicArena(Memory memory = {}) : memory_(memory) {}
  BasicArena(BasicArena&& other) noexcept
      : memory_(other.memory_),
        blocks_(std::exchange(other.blocks_, {})),
        top_(std::exchange(other.top_, {})),
        peak_(other.peak_),
        generation_(other.generation_),
        poison_(other.poison_) {}
  BasicArena& operator=(BasicArena&&) = delete;
  ~BasicArena() { release_blocks(); }

  void* allocate(std::size_t bytes) {
    bytes = (bytes + Memory::alignment - 1) / Memory::alignment * Memory::alignment;
    if (top_.block == 0 && top_.used == 0 && blocks_.size() > 1) consolidate();
    Mark at = top_;
    while (at.block < blocks_.size() && at.used + bytes > size_of(at.block)) {
      at = {at.block + 1, 0};
    }
    if (at.block == blocks_.size()) {
      const std::size_t last = blocks_.empty() ? std::size_t{1} << 16 : size_of(blocks_.size() - 1);
      add_block(Memory::block_size(bytes, last));  // if it throws, all stays as it was
    }
    std::byte* result = blocks_[at.block].data + at.used;
    top_ = {at.block, at.used + bytes};
    std::size_t in_use = top_.used;
    for (std::size_t b = 0; b < top_.block; ++b) in_use += size_of(b);
    peak_ = std::max(peak_, in_use);
    if (poison_ && bytes > 0) memory_.poison(result, bytes);
    return result;
  }

  Mark mark() const { return top_; }
  void release(Mark mark) { top_ = mark; }

  /// Makes room for so many bytes in one block, if nothing is in use.
  void reserve(std::size_t bytes) {
    if (top_.block != 0 || top_.used != 0 || bytes == 0) return;
    const std::size_t total = capacity();
    if (blocks_.size() == 1 && total >= bytes) return;
    release_blocks();
    add_block(std::max(total, bytes));
  }

  /// The number of bytes that the arena holds.
  std::size_t capacity() const {
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.bytes;
    return total;
  }
  /// The largest number of bytes in use at once so far.
  std::size_t peak() const { return peak_; }
  /// Changes whenever a block comes or goes: with an equal one, equal requests give equal addresses.
  std::uint64_t generation() const { return generation_; }
  /// Fills what is handed out from now on with NaN bytes: tests find reads of memory that nobody wrote.
  void poison(bool on) { poison_ = on; }

 private:
  /// Uninitialised bytes: the arena never pays for clearing memory that a kernel overwrites.
  struct Block {
    std::byte* data;
    std::size_t bytes;
  };

  std::size_t size_of(std::size_t block) const { return blocks_[block].bytes; }
  void add_block(std::size_t bytes) {
    blocks_.reserve(blocks_.size() + 1);
    blocks_.push_back({static_cast<std::byte*>(memory_.allocate(bytes)), bytes});
    ++generation_;
  }
  void release_blocks() noexcept {
    for (const Block& block : blocks_) memory_.deallocate(block.data);
    blocks_.clear();
    ++generation_;
  }
  void consolidate() {
    release_blocks();
    add_block(peak_);
  }

  Memory memory_;
  std::vector<Block> blocks_;
  Mark top_;
  std::size_t peak_ = 0;
  std::uint64_t generation_ = 0;
  bool poison_ = false;
};

using Arena = BasicArena<HostMemory>;

}  // namespace coyote::inline v0

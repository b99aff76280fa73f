// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "coyote/core/array.hpp"

namespace coyote::inline v0 {

/// Memory for activations and scratch: handed out in order, given back in reverse order, all on 64-byte boundaries.
/// When it runs empty after it had to grow, it becomes one block, so that the next pass of the same sizes allocates
/// nothing and finds every tensor at its old address.
class Arena {
 public:
  struct Mark {
    std::size_t block = 0, used = 0;
  };

  Arena() = default;
  Arena(Arena&&) noexcept = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void* allocate(std::size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (top_.block == 0 && top_.used == 0 && blocks_.size() > 1) consolidate();
    while (top_.block < blocks_.size() && top_.used + bytes > size_of(top_.block)) {
      top_ = {top_.block + 1, 0};
    }
    if (top_.block == blocks_.size()) {
      const std::size_t last = blocks_.empty() ? std::size_t{1} << 16 : size_of(blocks_.size() - 1);
      blocks_.emplace_back(static_cast<Index>(std::max(bytes, 2 * last)));
    }
    std::byte* result = blocks_[top_.block].data() + top_.used;
    top_.used += bytes;
    std::size_t in_use = top_.used;
    for (std::size_t b = 0; b < top_.block; ++b) in_use += size_of(b);
    peak_ = std::max(peak_, in_use);
    if (poison_) std::memset(result, 0xFF, bytes);  // NaN in every floating type, -1 in integers
    return result;
  }

  Mark mark() const { return top_; }
  void release(Mark mark) { top_ = mark; }

  /// Makes room for so many bytes in one block, if nothing is in use.
  void reserve(std::size_t bytes) {
    if (top_.block != 0 || top_.used != 0 || bytes == 0) return;
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.bytes();
    if (blocks_.size() == 1 && total >= bytes) return;
    blocks_.clear();
    blocks_.emplace_back(static_cast<Index>(std::max(total, bytes)));
  }

  /// The largest number of bytes in use at once so far.
  std::size_t peak() const { return peak_; }
  /// Fills what is handed out from now on with NaN bytes: tests find reads of memory that nobody wrote.
  void poison(bool on) { poison_ = on; }

 private:
  /// Uninitialised bytes: the arena never pays for clearing memory that a kernel overwrites.
  class Block {
   public:
    explicit Block(Index bytes)
        : data_(static_cast<std::byte*>(::operator new (static_cast<std::size_t>(bytes), std::align_val_t{64}))), bytes_(bytes) {}
    Block(Block&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
    Block& operator=(Block&& other) noexcept {
      std::swap(data_, other.data_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Block() {
      if (data_ != nullptr) ::operator delete (data_, std::align_val_t{64});
    }
    std::byte* data() { return data_; }
    std::size_t bytes() const { return static_cast<std::size_t>(bytes_); }

   private:
    std::byte* data_;
    Index bytes_;
  };

  std::size_t size_of(std::size_t block) const { return blocks_[block].bytes(); }
  void consolidate() {
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.bytes();
    blocks_.clear();
    blocks_.emplace_back(static_cast<Index>(total));
  }

  std::vector<Block> blocks_;
  Mark top_;
  std::size_t peak_ = 0;
  bool poison_ = false;
};

}  // namespace coyote::inline v0

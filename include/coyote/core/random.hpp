// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// Philox4x32-10: 128 random bits as a pure function of a 128-bit counter and a 64-bit key.
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

/// What a random stream is for. Streams of different purposes are independent.
enum class Purpose : std::uint32_t { initial_value = 1, dropout = 2, task = 3, pattern = 4, test = 5 };

/// A random stream named by (seed, purpose, name, step): draw i is a pure function of these and i, so a change
/// elsewhere in a program changes nothing here, and any draw can be made by any thread.
class Stream {
 public:
  constexpr Stream(Seed seed, Purpose purpose, std::uint64_t name = 0, std::uint64_t step = 0)
      : key_(derive(seed, purpose, name)), step_(step) {}

  /// 128 random bits: draw `index` of this stream.
  constexpr std::array<std::uint32_t, 4> bits(std::uint64_t index) const {
    return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), static_cast<std::uint32_t>(step_),
                   static_cast<std::uint32_t>(step_ >> 32)},
                  key_);
  }
  /// Uniform integer below `bound` (1 .. 2^32), by multiplication: bias below bound / 2^64.
  constexpr std::uint64_t below(std::uint64_t index, std::uint64_t bound) const {
    const auto b = bits(index);
    const std::uint64_t word = (std::uint64_t{b[1]} << 32) | b[0];
    // The high 64 bits of word * bound, for bound <= 2^32.
    return ((word >> 32) * bound + (((word & 0xFFFFFFFFu) * bound) >> 32)) >> 32;
  }
  /// Uniform in (0, 1).
  constexpr double uniform(std::uint64_t index) const { return to_unit(bits(index), 0); }
  /// Standard normal, by Box and Muller.
  double normal(std::uint64_t index) const {
    const auto b = bits(index);
    return std::sqrt(-2 * std::log(to_unit(b, 0))) * std::cos(6.283185307179586476925 * to_unit(b, 2));
  }

  /// The generator's key and the upper half of its counter, for kernels that make many draws at once.
  constexpr std::array<std::uint32_t, 2> key() const { return key_; }
  constexpr std::uint64_t step() const { return step_; }

 private:
  static constexpr double to_unit(std::array<std::uint32_t, 4> b, std::size_t from) {
    const std::uint64_t word = (std::uint64_t{b[from + 1]} << 32 | b[from]) >> 11;  // 53 bits
    return (static_cast<double>(word) + 0.5) * 0x1p-53;
  }
  static constexpr std::array<std::uint32_t, 2> derive(Seed seed, Purpose purpose, std::uint64_t name) {
    const auto mixed = philox({static_cast<std::uint32_t>(name), static_cast<std::uint32_t>(name >> 32),
                               static_cast<std::uint32_t>(purpose), 0x636F796Fu},
                              {static_cast<std::uint32_t>(seed.value), static_cast<std::uint32_t>(seed.value >> 32)});
    return {mixed[0], mixed[1]};
  }

  std::array<std::uint32_t, 2> key_;
  std::uint64_t step_;
};

/// A Stream read in order, for code that draws an unknown number of values one after another.
class Draws {
 public:
  constexpr explicit Draws(Stream stream) : stream_(stream) {}
  constexpr std::uint64_t below(std::uint64_t bound) { return stream_.below(next_++, bound); }
  constexpr double uniform() { return stream_.uniform(next_++); }
  double normal() { return stream_.normal(next_++); }

 private:
  Stream stream_;
  std::uint64_t next_ = 0;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// 128 random bits.
struct RandomWords {
  std::uint32_t x, y, z, w;

  COYOTE_HOST_DEVICE constexpr std::uint32_t operator[](std::uint32_t i) const {
    return i == 0 ? x : i == 1 ? y : i == 2 ? z : w;
  }
};

/// Philox4x32-10: 128 random bits as a pure function of a 128-bit counter and a 64-bit key.
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
COYOTE_HOST_DEVICE constexpr RandomWords philox(RandomWords counter, std::uint32_t key_0, std::uint32_t key_1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter.x;
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter.z;
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter.y ^ key_0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter.w ^ key_1, static_cast<std::uint32_t>(a)};
    key_0 += 0x9E3779B9u;
    key_1 += 0xBB67AE85u;
  }
  return counter;
}
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  const RandomWords words = philox(RandomWords{counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  return {words.x, words.y, words.z, words.w};
}

/// What a random stream is for. Streams of different purposes are independent.
enum class Purpose : std::uint32_t { initial_value = 1, dropout = 2, task = 3, pattern = 4, test = 5 };

/// A random stream named by (seed, purpose, name, step): draw i is a pure function of these and i, so a change
/// elsewhere in a program changes nothing here, and any draw can be made by any thread.
class Stream {
 public:
  COYOTE_HOST_DEVICE constexpr Stream(Seed seed, Purpose purpose, std::uint64_t name = 0, std::uint64_t step = 0) : step_(step) {
    const RandomWords mixed = philox(RandomWords{low(name), high(name), static_cast<std::uint32_t>(purpose), 0x636F796Fu},
                                     low(seed.value), high(seed.value));
    key_0_ = mixed.x;
    key_1_ = mixed.y;
  }

  /// 128 random bits: draw `index` of this stream.
  COYOTE_HOST_DEVICE constexpr RandomWords words(std::uint64_t index) const {
    return philox(RandomWords{low(index), high(index), low(step_), high(step_)}, key_0_, key_1_);
  }
  constexpr std::array<std::uint32_t, 4> bits(std::uint64_t index) const {
    const RandomWords w = words(index);
    return {w.x, w.y, w.z, w.w};
  }
  /// Uniform integer below `bound` (1 .. 2^32), by multiplication: bias below bound / 2^64.
  COYOTE_HOST_DEVICE constexpr std::uint64_t below(std::uint64_t index, std::uint64_t bound) const {
    const RandomWords b = words(index);
    // The high 64 bits of the draw times bound, for bound <= 2^32.
    return (b.y * bound + ((b.x * bound) >> 32)) >> 32;
  }
  /// Uniform in (0, 1).
  constexpr double uniform(std::uint64_t index) const { return to_unit(bits(index), 0); }
  /// Standard normal, by Box and Muller.
  double normal(std::uint64_t index) const {
    const auto b = bits(index);
    return std::sqrt(-2 * std::log(to_unit(b, 0))) * std::cos(6.283185307179586476925 * to_unit(b, 2));
  }

  /// The generator's key and the upper half of its counter, for kernels that make many draws at once.
  constexpr std::array<std::uint32_t, 2> key() const { return {key_0_, key_1_}; }
  constexpr std::uint64_t step() const { return step_; }

 private:
  static constexpr double to_unit(std::array<std::uint32_t, 4> b, std::size_t from) {
    const std::uint64_t word = (std::uint64_t{b[from + 1]} << 32 | b[from]) >> 11;  // 53 bits
    return (static_cast<double>(word) + 0.5) * 0x1p-53;
  }
  COYOTE_HOST_DEVICE static constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  COYOTE_HOST_DEVICE static constexpr std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

  std::uint32_t key_0_ = 0, key_1_ = 0;
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

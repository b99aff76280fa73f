// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "coyote/core/random.hpp"

namespace cy = coyote;

using Four = std::array<std::uint32_t, 4>;

TEST_CASE("philox gives the published known answers") {
  // Salmon et al. (SC 2011), known-answer vectors of Philox4x32-10.
  constexpr std::uint32_t ones = 0xffffffffu;
  static_assert(cy::philox({0, 0, 0, 0}, {0, 0}) == Four{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  static_assert(cy::philox({ones, ones, ones, ones}, {ones, ones}) == Four{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  static_assert(cy::philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
                Four{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
  CHECK(cy::philox({0, 0, 0, 0}, {0, 0}) == Four{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(cy::philox({1, 0, 0, 0}, {0, 0}) != Four{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
}

TEST_CASE("a stream is named by seed, purpose, name and step, and by nothing else") {
  constexpr cy::Stream a(cy::Seed{1}, cy::Purpose::test, 7, 3);
  static_assert(a.bits(5) == cy::Stream(cy::Seed{1}, cy::Purpose::test, 7, 3).bits(5));
  static_assert(a.bits(5) != a.bits(6));
  static_assert(a.bits(5) != a.bits(5 + (std::uint64_t{1} << 32)));
  static_assert(a.bits(5) != cy::Stream(cy::Seed{2}, cy::Purpose::test, 7, 3).bits(5));
  static_assert(a.bits(5) != cy::Stream(cy::Seed{std::uint64_t{1} << 32}, cy::Purpose::test, 7, 3).bits(5));
  static_assert(a.bits(5) != cy::Stream(cy::Seed{1}, cy::Purpose::task, 7, 3).bits(5));
  static_assert(a.bits(5) != cy::Stream(cy::Seed{1}, cy::Purpose::test, 8, 3).bits(5));
  static_assert(a.bits(5) != cy::Stream(cy::Seed{1}, cy::Purpose::test, 7, 4).bits(5));
}

TEST_CASE("below stays below, reaches every value and is even") {
  const cy::Stream stream(cy::Seed{11}, cy::Purpose::test);
  for (const std::uint64_t bound : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3}, std::uint64_t{10}}) {
    std::array<int, 10> count{};
    constexpr int draws = 20000;
    for (std::uint64_t i = 0; i < draws; ++i) {
      const std::uint64_t value = stream.below(i, bound);
      REQUIRE(value < bound);
      ++count[static_cast<std::size_t>(value)];
    }
    const double expected = draws / static_cast<double>(bound);
    for (std::size_t v = 0; v < bound; ++v) CHECK(std::abs(count[v] - expected) <= 6 * std::sqrt(expected));
  }
  const std::uint64_t largest = std::uint64_t{1} << 32;
  bool high = false;
  for (std::uint64_t i = 0; i < 64; ++i) {
    REQUIRE(stream.below(i, largest) < largest);
    high = high || stream.below(i, largest) >= largest / 2;
  }
  CHECK(high);
}

TEST_CASE("uniform and normal draws have the moments of their laws") {
  const cy::Stream stream(cy::Seed{5}, cy::Purpose::test, 1);
  constexpr int draws = 40000;
  double sum = 0, squares = 0, normal_sum = 0, normal_squares = 0, normal_fourth = 0;
  for (std::uint64_t i = 0; i < draws; ++i) {
    const double u = stream.uniform(i);
    REQUIRE(u > 0);
    REQUIRE(u < 1);
    sum += u;
    squares += u * u;
    const double z = stream.normal(i);
    normal_sum += z;
    normal_squares += z * z;
    normal_fourth += z * z * z * z;
  }
  CHECK(std::abs(sum / draws - 0.5) <= 6 * std::sqrt(1.0 / 12 / draws));
  CHECK(std::abs(squares / draws - 1.0 / 3) <= 6 * std::sqrt(4.0 / 45 / draws));
  CHECK(std::abs(normal_sum / draws) <= 6 * std::sqrt(1.0 / draws));
  CHECK(std::abs(normal_squares / draws - 1) <= 6 * std::sqrt(2.0 / draws));
  CHECK(std::abs(normal_fourth / draws - 3) <= 6 * std::sqrt(96.0 / draws));
}

TEST_CASE("draws in order are the stream's draws 0, 1, 2, ...") {
  const cy::Stream stream(cy::Seed{5}, cy::Purpose::task, 9);
  cy::Draws draws(stream);
  CHECK(draws.below(100) == stream.below(0, 100));
  CHECK(draws.uniform() == stream.uniform(1));
  CHECK(draws.normal() == stream.normal(2));
  CHECK(draws.below(7) == stream.below(3, 7));
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coyote/theory/mqar.hpp"

namespace coyote::inline v0::theory {

/// The product ring (Z / 2^16)^L: L computations side by side in one, lane by lane, at the speed of vector instructions. Exact
/// for stacks whose numbers stay small (within -2^15 .. 2^15 - 1), as those of sort_scan, which are -1, 0 or 1.
template <Index L = 32>
struct Lanes {
  std::uint16_t lane[static_cast<std::size_t>(L)] = {};

  constexpr Lanes() = default;
  constexpr explicit Lanes(int value) {
    for (auto& x : lane) x = static_cast<std::uint16_t>(value);
  }
  /// Lane n as a small integer.
  constexpr int at(Index n) const { return static_cast<std::int16_t>(lane[n]); }
  constexpr void set(Index n, int value) { lane[n] = static_cast<std::uint16_t>(value); }

  constexpr Lanes& operator+=(const Lanes& o) {
    for (Index n = 0; n < L; ++n) lane[n] = static_cast<std::uint16_t>(lane[n] + o.lane[n]);
    return *this;
  }
  constexpr Lanes& operator-=(const Lanes& o) {
    for (Index n = 0; n < L; ++n) lane[n] = static_cast<std::uint16_t>(lane[n] - o.lane[n]);
    return *this;
  }
  constexpr Lanes& operator*=(const Lanes& o) {
    for (Index n = 0; n < L; ++n) lane[n] = static_cast<std::uint16_t>(std::uint32_t{lane[n]} * o.lane[n]);
    return *this;
  }
  friend constexpr Lanes operator+(Lanes a, const Lanes& b) { return a += b; }
  friend constexpr Lanes operator-(Lanes a, const Lanes& b) { return a -= b; }
  friend constexpr Lanes operator*(Lanes a, const Lanes& b) { return a *= b; }
  friend constexpr Lanes operator-(const Lanes& a) { return Lanes() - a; }
  friend constexpr bool operator==(const Lanes&, const Lanes&) = default;
};

/// The answers to any number of instances, L at a time. Values must be bits. Errors: an instance of another size or code.
template <Index L>
constexpr List<Array<Token>> solve_all(const Construction<Lanes<L>>& construction, std::span<const Aligned> instances) {
  List<Array<Token>> answers;
  for (std::size_t first = 0; first < instances.size(); first += static_cast<std::size_t>(L)) {
    const auto count = std::min(static_cast<Index>(instances.size() - first), L);
    Matrix<Lanes<L>> x(construction.stack.length(), construction.stack.width());
    for (Index n = 0; n < count; ++n) {
      construction.write(instances[first + static_cast<std::size_t>(n)],
                         [&](Index i, Index c, Token number) { x(i, c).set(n, number); });
    }
    const Matrix<Lanes<L>> y = construction.stack.run(x);
    for (Index n = 0; n < count; ++n) {
      answers.emplace(construction.read_answers([&](Index i, Index c) { return y(i, c).at(n); }));
    }
  }
  return answers;
}

}  // namespace coyote::inline v0::theory

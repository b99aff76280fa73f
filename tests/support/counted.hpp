// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/mixer.hpp"

namespace coyote::test {

/// A real number that counts what is done with it.
struct Counted {
  double value = 0;
  inline static Cost done = {};

  Counted() = default;
  explicit Counted(double value_) : value(value_) {}
  explicit operator double() const { return value; }

  friend bool operator==(const Counted&, const Counted&) = default;
  friend auto operator<=>(const Counted&, const Counted&) = default;
  friend Counted operator+(Counted a, Counted b) { return ++done.additions, Counted(a.value + b.value); }
  friend Counted operator-(Counted a, Counted b) { return ++done.additions, Counted(a.value - b.value); }
  friend Counted operator*(Counted a, Counted b) { return ++done.multiplications, Counted(a.value * b.value); }
  friend Counted operator/(Counted a, Counted b) { return ++done.functions, Counted(a.value / b.value); }
  friend Counted operator-(Counted a) { return Counted(-a.value); }
  friend Counted& operator+=(Counted& a, Counted b) { return a = a + b; }
  friend Counted exp(Counted a) { return ++done.functions, Counted(std::exp(a.value)); }
  friend Counted sqrt(Counted a) { return ++done.functions, Counted(std::sqrt(a.value)); }
  friend Counted sin(Counted a) { return ++done.functions, Counted(std::sin(a.value)); }
  friend Counted cos(Counted a) { return ++done.functions, Counted(std::cos(a.value)); }
};

}  // namespace coyote::test

namespace coyote::inline v0 {
template <>
inline constexpr bool is_real<test::Counted> = true;
}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include "coyote/core/error.hpp"

namespace coyote::inline v0::theory {

/// A fraction of 64-bit integers in lowest terms, with a positive denominator: exact, and never silently wrong. An operation
/// throws precisely when its result has no such form; intermediate results have 128 bits and cannot overflow.
class Rational {
 public:
  constexpr Rational() = default;
  constexpr Rational(long long value) : numerator_(value) {}
  /// numerator / denominator. Errors: a denominator of 0; lowest terms that do not fit into 64 bits.
  constexpr Rational(long long numerator, long long denominator) {
    if (denominator == 0) throw Error("theory::Rational", "a denominator other than 0", "0");
    *this = reduced(numerator, denominator);
  }

  constexpr std::int64_t numerator() const { return numerator_; }
  constexpr std::int64_t denominator() const { return denominator_; }
  explicit constexpr operator double() const { return static_cast<double>(numerator_) / static_cast<double>(denominator_); }

  friend constexpr Rational operator+(Rational a, Rational b) {
    return reduced(Wide{a.numerator_} * b.denominator_ + Wide{b.numerator_} * a.denominator_,
                   Wide{a.denominator_} * b.denominator_);
  }
  friend constexpr Rational operator-(Rational a, Rational b) {
    return reduced(Wide{a.numerator_} * b.denominator_ - Wide{b.numerator_} * a.denominator_,
                   Wide{a.denominator_} * b.denominator_);
  }
  friend constexpr Rational operator*(Rational a, Rational b) {
    return reduced(Wide{a.numerator_} * b.numerator_, Wide{a.denominator_} * b.denominator_);
  }
  /// Errors: division by 0.
  friend constexpr Rational operator/(Rational a, Rational b) {
    if (b.numerator_ == 0) throw Error("theory::Rational", "a divisor other than 0", "0");
    return reduced(Wide{a.numerator_} * b.denominator_, Wide{a.denominator_} * b.numerator_);
  }
  friend constexpr Rational operator-(Rational a) { return reduced(-Wide{a.numerator_}, a.denominator_); }
  /// 1 / this. Errors: the inverse of 0.
  constexpr Rational inverse() const { return Rational(1) / *this; }

  constexpr Rational& operator+=(Rational o) { return *this = *this + o; }
  constexpr Rational& operator-=(Rational o) { return *this = *this - o; }
  constexpr Rational& operator*=(Rational o) { return *this = *this * o; }
  constexpr Rational& operator/=(Rational o) { return *this = *this / o; }

  friend constexpr bool operator==(Rational, Rational) = default;
  friend constexpr bool operator<(Rational a, Rational b) {
    return Wide{a.numerator_} * b.denominator_ < Wide{b.numerator_} * a.denominator_;
  }

 private:
  __extension__ typedef __int128 Wide;  // an alias cannot say that it is an extension in nvcc

  static constexpr Wide gcd(Wide a, Wide b) {
    while (b != 0) {
      const Wide rest = a % b;
      a = b;
      b = rest;
    }
    return a < 0 ? -a : a;
  }
  static constexpr Rational reduced(Wide numerator, Wide denominator) {
    const Wide common = gcd(numerator, denominator) * (denominator < 0 ? -1 : 1);
    numerator /= common;
    denominator /= common;
    constexpr Wide low = std::numeric_limits<std::int64_t>::min(), high = std::numeric_limits<std::int64_t>::max();
    if (numerator < low || numerator > high || denominator > high) {
      throw Error("theory::Rational", "a result whose numerator and denominator fit into 64 bits; PrimeField has no such limit",
                  "an overflow");
    }
    Rational result;
    result.numerator_ = static_cast<std::int64_t>(numerator);
    result.denominator_ = static_cast<std::int64_t>(denominator);
    return result;
  }

  std::int64_t numerator_ = 0, denominator_ = 1;
};

}  // namespace coyote::inline v0::theory

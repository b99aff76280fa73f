// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coyote::test {

/// Integers modulo a prime below 2^31, as a ring that Reference computes over.
template <std::uint64_t P>
struct PrimeField {
  std::uint64_t value = 0;

  constexpr PrimeField() = default;
  constexpr explicit PrimeField(std::int64_t x) : value(static_cast<std::uint64_t>((x % modulus + modulus) % modulus)) {}

  friend constexpr bool operator==(PrimeField, PrimeField) = default;
  friend constexpr PrimeField operator+(PrimeField a, PrimeField b) { return from((a.value + b.value) % P); }
  friend constexpr PrimeField operator-(PrimeField a, PrimeField b) { return from((a.value + P - b.value) % P); }
  friend constexpr PrimeField operator*(PrimeField a, PrimeField b) { return from(a.value * b.value % P); }
  constexpr PrimeField operator-() const { return from((P - value) % P); }
  constexpr PrimeField& operator+=(PrimeField other) { return *this = *this + other; }

 private:
  static constexpr auto modulus = static_cast<std::int64_t>(P);
  static constexpr PrimeField from(std::uint64_t reduced) {
    PrimeField result;
    result.value = reduced;
    return result;
  }
};

}  // namespace coyote::test

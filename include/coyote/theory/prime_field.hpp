// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include "coyote/core/array.hpp"
#include "coyote/core/error.hpp"

namespace coyote::inline v0::theory {

/// Integers modulo a prime P < 2^31: a field in which theorems hold exactly and nothing overflows. The default is
/// 998 244 353 = 119 * 2^23 + 1 with generator 3, whose roots of unity make transforms of any power of two up to 2^23.
template <std::uint32_t P = 998244353>
class PrimeField {
 public:
  static constexpr std::uint32_t modulus = P;

  constexpr PrimeField() = default;
  /// The residue of any integer, negative ones included.
  constexpr PrimeField(long long value) : value_(static_cast<std::uint32_t>((value % P + P) % P)) {}

  constexpr std::uint32_t value() const { return value_; }
  /// The representative in -(P-1)/2 .. (P-1)/2, which reads small negative results as what they are.
  constexpr long long centred() const {
    return value_ > P / 2 ? static_cast<long long>(value_) - static_cast<long long>(P) : static_cast<long long>(value_);
  }

  constexpr PrimeField& operator+=(PrimeField o) {
    value_ = value_ + o.value_ >= P ? value_ + o.value_ - P : value_ + o.value_;
    return *this;
  }
  constexpr PrimeField& operator-=(PrimeField o) {
    value_ = value_ >= o.value_ ? value_ - o.value_ : value_ + P - o.value_;
    return *this;
  }
  constexpr PrimeField& operator*=(PrimeField o) {
    value_ = static_cast<std::uint32_t>(std::uint64_t{value_} * o.value_ % P);
    return *this;
  }
  friend constexpr PrimeField operator+(PrimeField a, PrimeField b) { return a += b; }
  friend constexpr PrimeField operator-(PrimeField a, PrimeField b) { return a -= b; }
  friend constexpr PrimeField operator*(PrimeField a, PrimeField b) { return a *= b; }
  friend constexpr PrimeField operator-(PrimeField a) { return PrimeField() - a; }
  friend constexpr bool operator==(PrimeField, PrimeField) = default;

  /// This number to the power of a non-negative exponent.
  constexpr PrimeField pow(std::uint64_t exponent) const {
    PrimeField result = 1, base = *this;
    for (; exponent > 0; exponent >>= 1, base *= base) {
      if (exponent & 1) result *= base;
    }
    return result;
  }
  /// 1 / this. Throws for 0.
  constexpr PrimeField inverse() const {
    if (value_ == 0) throw Error("PrimeField::inverse", "a number other than 0", "0");
    return pow(P - 2);
  }
  friend constexpr PrimeField operator/(PrimeField a, PrimeField b) { return a * b.inverse(); }

 private:
  static_assert(P < (std::uint32_t{1} << 31), "coyote: a PrimeField's modulus is below 2^31, so that sums fit in a word");
  std::uint32_t value_ = 0;
};

/// The field of the library's exact tests.
using Field = PrimeField<>;

/// Number-theoretic transform of n = 2^m elements, in place: X[k] = sum_t x[t] w^(t k), w a root of unity of order n;
/// inverse: with 1/w and a factor 1/n. Errors: n not a power of two, or above 2^23.
constexpr void transform(Field* x, Index n, bool inverse) {
  if (n < 1 || (n & (n - 1)) != 0 || n > (Index{1} << 23)) {
    throw Error("theory::transform", "a power of two up to 2^23", words(n));
  }
  for (Index i = 1, j = 0; i < n; ++i) {
    Index bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j |= bit;
    if (i < j) std::swap(x[i], x[j]);
  }
  for (Index length = 2; length <= n; length <<= 1) {
    const Field root = Field(3).pow((Field::modulus - 1) / static_cast<std::uint32_t>(length));
    const Field step = inverse ? root.inverse() : root;
    for (Index begin = 0; begin < n; begin += length) {
      Field w = 1;
      for (Index k = begin; k < begin + length / 2; ++k, w *= step) {
        const Field a = x[k], b = x[k + length / 2] * w;
        x[k] = a + b;
        x[k + length / 2] = a - b;
      }
    }
  }
  if (inverse) {
    const Field scale = Field(n).inverse();
    for (Index k = 0; k < n; ++k) x[k] *= scale;
  }
}

/// to[i] += sum_t taps[t] x[i-t] for t < count <= n and i < n, by three transforms of bit_ceil(n + count - 1) points: rows before
/// the first are 0, or with `cyclic` the last ones.
constexpr void convolve_by_transform(const Field* taps, Index count, const Field* x, Index n, bool cyclic, Field* to) {
  Index size = 1;
  while (size < n + count - 1) size *= 2;
  Array<Field> a(size), b(size);
  for (Index t = 0; t < count; ++t) a[t] = taps[t];
  for (Index i = 0; i < n; ++i) b[i] = x[i];
  transform(a.data(), size, false);
  transform(b.data(), size, false);
  for (Index k = 0; k < size; ++k) a[k] *= b[k];
  transform(a.data(), size, true);
  for (Index i = 0; i < n; ++i) to[i] += a[i];
  for (Index i = n; cyclic && i < n + count - 1; ++i) to[i - n] += a[i];
}

}  // namespace coyote::inline v0::theory

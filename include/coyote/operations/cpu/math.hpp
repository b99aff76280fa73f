// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>

#include "coyote/operations/cpu/simd.hpp"

namespace coyote::inline v0::cpu::inline COYOTE_ISA {

namespace detail {

/// The integer as wide as S, whose vectors are the masks of comparisons of vectors of S.
template <class S>
using Bits = std::conditional_t<sizeof(S) == 4, std::int32_t, std::int64_t>;

/// What exp needs of a format. The polynomial is g(r) = (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2, interpolated in the
/// Chebyshev nodes; ln(2) is cut in a part whose products with the exponent are exact and a rest.
template <class S>
struct Exp;
template <>
struct Exp<float> {
  static constexpr float lowest = -104, highest = 89;
  static constexpr float rounder = 0x1.8p23f;
  static constexpr float ln2_high = 0x1.63p-1f, ln2_low = -2.12194440e-4f;
  static constexpr std::int32_t bias = 127, mantissa = 23;
  static constexpr float g[] = {0.5f, 0.16666576666119928f, 0.041666554212984150f, 0.0083632328836826182f,
                                0.0013926250831497612f};
};
template <>
struct Exp<double> {
  static constexpr double lowest = -746, highest = 710;
  static constexpr double rounder = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr std::int64_t bias = 1023, mantissa = 52;
  static constexpr double g[] = {0.5,
                                 0.1666666666666666746,
                                 0.041666666666623820532,
                                 0.0083333333333300381973,
                                 0.0013888888917367080562,
                                 0.00019841269863171556026,
                                 0.000024801521057868205199,
                                 2.7557268276905696187e-6,
                                 2.7620201591031548792e-7,
                                 2.5100472505694996003e-8};
};

/// x = n ln 2 + r with |r| <= ln(2) / 2 and n whole: returns n, and exp(r) - 1 in `rest`. NaN gives NaN in `rest`.
template <class S>
inline Vec<Bits<S>> split_exponent(Vec<S> x, Vec<S>& rest) {
  using E = Exp<S>;
  const Vec<S> shifted = x * S(1.44269504088896340736) + E::rounder;
  const Vec<S> n = shifted - E::rounder;
  const Vec<S> r = (x - n * E::ln2_high) - n * E::ln2_low;
  constexpr int last = static_cast<int>(std::size(E::g)) - 1;
  Vec<S> g = broadcast<S>(E::g[last]);
  COYOTE_UNROLL for (int i = last - 1; i >= 0; --i) g = g * r + E::g[i];
  rest = r * r * g + r;
  // The rounder's own mantissa holds n in its low bits.
  Vec<Bits<S>> bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  return bits - std::bit_cast<Bits<S>>(E::rounder);
}
/// 2^n for n from 1 - bias to bias.
template <class S>
inline Vec<S> power_of_two(Vec<Bits<S>> n) {
  const Vec<Bits<S>> bits = (n + Exp<S>::bias) << Exp<S>::mantissa;
  Vec<S> power;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

}  // namespace detail

/// exp(x) within 2 units in the last place: 0 below the smallest number, infinity above the largest, NaN for NaN.
template <class S>
inline Vec<S> vector_exp(Vec<S> x) {
  using E = detail::Exp<S>;
  x = x < E::lowest ? broadcast<S>(E::lowest) : x;
  x = x > E::highest ? broadcast<S>(E::highest) : x;
  Vec<S> rest;
  const Vec<detail::Bits<S>> n = detail::split_exponent<S>(x, rest);
  // Two halves of the power reach numbers below the normal ones and above the largest.
  const Vec<detail::Bits<S>> half = n >> 1;
  return (rest + S(1)) * detail::power_of_two<S>(half) * detail::power_of_two<S>(n - half);
}

/// exp(x) for x <= 0 (or NaN), where results below the normal numbers become 0: what a softmax needs, in fewer steps.
template <class S>
inline Vec<S> vector_exp_negative(Vec<S> x) {
  using E = detail::Exp<S>;
  // The power of two of the lowest argument has the exponent bits 0: it is the number 0.
  constexpr S lowest = sizeof(S) == 4 ? S(-88) : S(-709);
  constexpr S rounder = E::rounder + E::bias;
  x = x < lowest ? broadcast<S>(lowest) : x;
  const Vec<S> shifted = x * S(1.44269504088896340736) + rounder;
  const Vec<S> n = shifted - rounder;
  const Vec<S> r = (x - n * E::ln2_high) - n * E::ln2_low;
  constexpr int last = static_cast<int>(std::size(E::g)) - 1;
  Vec<S> g = broadcast<S>(E::g[last]);
  COYOTE_UNROLL for (int i = last - 1; i >= 0; --i) g = g * r + E::g[i];
  Vec<detail::Bits<S>> bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits <<= E::mantissa;  // n + bias, the low bits of the rounded number, become the exponent
  Vec<S> power;
  std::memcpy(&power, &bits, sizeof power);
  return (r * r * g + r) * power + power;
}

/// 1 / (1 + exp(-x)).
template <class S>
inline Vec<S> vector_sigmoid(Vec<S> x) {
  return S(1) / (S(1) + vector_exp<S>(-x));
}

/// tanh(x) = m / (m + 2) with m = exp(2x) - 1, which keeps its relative precision at small x.
template <class S>
inline Vec<S> vector_tanh(Vec<S> x) {
  x = x < S(-20) ? broadcast<S>(S(-20)) : x;
  x = x > S(20) ? broadcast<S>(S(20)) : x;
  Vec<S> rest;
  const Vec<S> power = detail::power_of_two<S>(detail::split_exponent<S>(x + x, rest));
  const Vec<S> m = power * rest + (power - S(1));
  return m / (m + S(2));
}

/// max(a, b), lane by lane; a NaN in b is passed over.
template <class S>
inline Vec<S> vector_max(Vec<S> a, Vec<S> b) {
  return b > a ? b : a;
}

/// Philox4x32-10 (core/random.hpp) for Lanes counters at once, all with the same high words and the same key.
/// `words[w][lane]` receives word w of the draw with counter (low[lane], middle[lane], high0, high1).
template <int Lanes>
inline void philox_lanes(const std::uint32_t* low, const std::uint32_t* middle, std::uint32_t high0, std::uint32_t high1,
                         std::array<std::uint32_t, 2> key, std::uint32_t (&words)[4][Lanes]) {
  for (int i = 0; i < Lanes; ++i) {
    words[0][i] = low[i];
    words[1][i] = middle[i];
    words[2][i] = high0;
    words[3][i] = high1;
  }
  for (int round = 0; round < 10; ++round) {
    // A plain loop over the lanes: the compilers turn the widening products into vector instructions.
    for (int i = 0; i < Lanes; ++i) {
      const std::uint64_t a = std::uint64_t{0xD2511F53u} * words[0][i];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * words[2][i];
      words[0][i] = static_cast<std::uint32_t>(b >> 32) ^ words[1][i] ^ key[0];
      words[1][i] = static_cast<std::uint32_t>(b);
      words[2][i] = static_cast<std::uint32_t>(a >> 32) ^ words[3][i] ^ key[1];
      words[3][i] = static_cast<std::uint32_t>(a);
    }
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
}

}  // namespace coyote::inline v0::cpu::inline COYOTE_ISA

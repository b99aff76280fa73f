// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <utility>

#include "coyote/core/types.hpp"
#include "coyote/operations/cpu/unit.hpp"

// Before a loop over registers: it must vanish, whatever the optimisation level, or the registers become memory.
#if defined(__clang__)
#define COYOTE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define COYOTE_UNROLL _Pragma("GCC unroll 32")
#endif

namespace coyote::inline v0::cpu::inline COYOTE_ISA {

/// One register of S (float or double, and 32- or 64-bit integers for masks): the compilers' vector extension, so that
/// arithmetic reads as arithmetic.
template <class S, int Lanes = COYOTE_SIMD_BYTES / sizeof(S)>
struct VectorOf {
  typedef S type __attribute__((vector_size(Lanes * sizeof(S))));
};
template <class S>
using Vec = typename VectorOf<S>::type;

/// Elements of S in a register.
template <class S>
inline constexpr Index lanes = COYOTE_SIMD_BYTES / static_cast<Index>(sizeof(S));

template <class S>
inline Vec<S> load(const S* from) {
  Vec<S> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class S>
inline void store(S* to, Vec<S> v) {
  std::memcpy(to, &v, sizeof v);
}
/// The first `count` elements; the others are zero.
template <class S>
inline Vec<S> load_part(const S* from, Index count) {
  Vec<S> v = {};
  std::memcpy(&v, from, static_cast<std::size_t>(count) * sizeof(S));
  return v;
}
template <class S>
inline void store_part(S* to, Vec<S> v, Index count) {
  std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof(S));
}
template <class S>
inline Vec<S> broadcast(S value) {
  return value - Vec<S>{};  // x - 0 is x for every x, so that no instruction remains; 0 + x is not
}

namespace detail {
/// Folds the upper half of a register onto the lower, down to one lane: op(lower, upper).
template <class S, int Lanes, class Op, int... I>
inline S fold(typename VectorOf<S, Lanes>::type v, Op op, std::integer_sequence<int, I...>) {
  if constexpr (Lanes == 2) {
    return op(v[0], v[1]);
  } else {
    const typename VectorOf<S, Lanes / 2>::type lower = __builtin_shufflevector(v, v, I...);
    const typename VectorOf<S, Lanes / 2>::type upper = __builtin_shufflevector(v, v, (I + Lanes / 2)...);
    return fold<S, Lanes / 2>(op(lower, upper), op, std::make_integer_sequence<int, Lanes / 4>{});
  }
}
template <int Distance, class S, int... I>
inline void swap_pair(Vec<S>& a, Vec<S>& b, std::integer_sequence<int, I...>) {
  constexpr int n = static_cast<int>(lanes<S>);
  const Vec<S> first = a, second = b;
  a = __builtin_shufflevector(first, second, ((I & Distance) != 0 ? n + I - Distance : I)...);
  b = __builtin_shufflevector(first, second, ((I & Distance) != 0 ? n + I : I + Distance)...);
}
}  // namespace detail

/// The sum of all lanes, as a tree.
template <class S>
inline S horizontal_sum(Vec<S> v) {
  constexpr int n = static_cast<int>(lanes<S>);
  return detail::fold<S, n>(
      v, [](auto a, auto b) { return a + b; }, std::make_integer_sequence<int, n / 2>{});
}
/// The largest lane (of unordered lanes, any).
template <class S>
inline S horizontal_max(Vec<S> v) {
  constexpr int n = static_cast<int>(lanes<S>);
  return detail::fold<S, n>(
      v, [](auto a, auto b) { return a > b ? a : b; }, std::make_integer_sequence<int, n / 2>{});
}

/// Transposes the square of `lanes` registers v: exchanges the off-diagonal halves of ever smaller squares.
template <int Distance, class S>
inline void swap_halves(Vec<S>* v) {
  constexpr int n = static_cast<int>(lanes<S>);
  COYOTE_UNROLL for (int i = 0; i < n; ++i) {
    if ((i & Distance) == 0) detail::swap_pair<Distance, S>(v[i], v[i + Distance], std::make_integer_sequence<int, n>{});
  }
  if constexpr (Distance > 1) swap_halves<Distance / 2, S>(v);
}

}  // namespace coyote::inline v0::cpu::inline COYOTE_ISA

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include "coyote/core/types.hpp"

// Vector kernels stand in a namespace named after the widest instruction set that their unit is compiled for, so that
// units with different -m flags never share a kernel. COYOTE_SIMD_BYTES is the register width.
#if defined(__AVX512F__)
#define COYOTE_SIMD_BYTES 64
#define COYOTE_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define COYOTE_SIMD_BYTES 32
#define COYOTE_ISA avx2
#else
#define COYOTE_SIMD_BYTES 16
#define COYOTE_ISA baseline
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
  return Vec<S>{} + value;
}

}  // namespace coyote::inline v0::cpu::inline COYOTE_ISA

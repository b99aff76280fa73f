// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/abi.hpp"

// How this unit is compiled. COYOTE_SIMD_BYTES is the width of a vector register; COYOTE_ISA names the widest instruction
// set, and the namespace in which vector kernels stand, so that units with different -m flags never share a kernel.
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

// What EIGEN_MAX_ALIGN_BYTES is or would be in this unit, by Eigen 3.4's rules and without including Eigen: the same
// number whether the unit includes Eigen before this header, after it or not at all.
#if defined(EIGEN_DONT_ALIGN)
#define COYOTE_EIGEN_ALIGNMENT 0
#elif defined(EIGEN_MAX_ALIGN_BYTES)
#define COYOTE_EIGEN_ALIGNMENT EIGEN_MAX_ALIGN_BYTES
#elif defined(EIGEN_DONT_VECTORIZE)
#define COYOTE_EIGEN_ALIGNMENT 0
#elif defined(__AVX512F__)
#define COYOTE_EIGEN_ALIGNMENT 64
#elif defined(__AVX__)
#define COYOTE_EIGEN_ALIGNMENT 32
#else
#define COYOTE_EIGEN_ALIGNMENT 16
#endif

namespace coyote::inline v0::detail {
namespace {
// Internal linkage on purpose: one per unit.
const UnitRegistration this_unit{UnitSettings{COYOTE_SIMD_BYTES, COYOTE_EIGEN_ALIGNMENT}};
}  // namespace
}  // namespace coyote::inline v0::detail

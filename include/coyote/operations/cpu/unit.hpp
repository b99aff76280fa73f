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

namespace coyote::inline v0::detail {
namespace {
// Internal linkage on purpose: one per unit.
const UnitRegistration this_unit{UnitSettings{COYOTE_SIMD_BYTES}};
}  // namespace
}  // namespace coyote::inline v0::detail

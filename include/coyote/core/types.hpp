// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "coyote/core/version.hpp"

// Marks functions that kernels call too; before such a template that calls what it is given, be it the host's or a kernel's,
// stands COYOTE_CALLS_BACK.
#ifdef __CUDACC__
#define COYOTE_HOST_DEVICE __host__ __device__
#define COYOTE_CALLS_BACK _Pragma("nv_exec_check_disable")
#else
#define COYOTE_HOST_DEVICE
#define COYOTE_CALLS_BACK
#endif

namespace coyote::inline v0 {

/// Extents, positions and row numbers.
using Index = std::ptrdiff_t;
/// A vocabulary entry.
using Token = std::int32_t;

/// A list of types, used for a combinator's parts.
template <class...>
struct Types {};

/// What an operation does with its output: replace it, add to it, or leave it out (gradients nobody wants).
enum class Write { overwrite, add, none };

/// Training keeps what backward needs and draws dropout; inference does neither.
enum class Mode { inference, training };

/// A seed for everything random; named, so that `Model(..., Seed{1})` says what the 1 is.
struct Seed {
  std::uint64_t value = 0;
};

/// Smallest multiple of `unit` that is >= value.
COYOTE_HOST_DEVICE constexpr Index round_up(Index value, Index unit) { return (value + unit - 1) / unit * unit; }
COYOTE_HOST_DEVICE constexpr Index ceil_div(Index value, Index unit) { return (value + unit - 1) / unit; }

}  // namespace coyote::inline v0

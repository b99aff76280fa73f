// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

// Bias policies of linear maps and convolutions: how many rows the bias has for sequences of at most `length` rows.

/// No bias.
struct NoBias {
  static constexpr Index rows(Index) { return 0; }
};
/// One number per channel: b[c].
struct ChannelBias {
  static constexpr Index rows(Index) { return 1; }
};
/// One number per position and channel: b[i, c]. What the theory's layers have; it bounds the length.
struct PositionBias {
  static constexpr Index rows(Index length) { return length; }
};

}  // namespace coyote::inline v0

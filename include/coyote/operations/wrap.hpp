// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace coyote::inline v0 {

/// What a long convolution does at the beginning of a sequence of n rows.
enum class Wrap {
  causal,  ///< y[i] = sum_{t=0..i} taps[t] x[i-t]: rows before the first are zero
  cyclic,  ///< y[i] = sum_{t=0..n-1} taps[t] x[(i-t) mod n]: the sequence is a ring
};

}  // namespace coyote::inline v0

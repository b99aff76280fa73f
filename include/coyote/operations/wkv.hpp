// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/core/scalar.hpp"
#include "coyote/operations/activation.hpp"

namespace coyote::inline v0 {

// The recurrence behind wkv, per channel, with w = exp(decay) >= 0 and b = bonus:
//
//     y_i = (N_i + e^(b + k_i) v_i) / (D_i + e^(b + k_i)),
//     N_(i+1) = e^(-w) N_i + e^(k_i) v_i,    D_(i+1) = e^(-w) D_i + e^(k_i),    N_0 = D_0 = 0.
//
// N and D are kept as numerator * e^highest and denominator * e^highest, so that nothing overflows: `highest` is the running
// maximum of the exponents that went into them.

/// `highest` of a sum without terms: low enough that exp of it is 0, high enough that differences stay finite.
inline constexpr double empty_exponent = -1e30;

/// How many rows of checkpoints wkv wants to write in training, each 3 * width numbers.
constexpr Index wkv_checkpoints(const Context<Reference>&, const Batch&) { return 0; }

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/gate.hpp"
#include "coyote/mixers/activations.hpp"
#include "coyote/mixers/linear.hpp"

namespace coyote::inline v0 {

/// y = act(u W1 + b1) W2 + b2, with Expand * width hidden channels: a map of each row by itself.
template <int Expand = 4, class Act = Gelu>
using Mlp = Chain<Widen<Expand>, Act, Narrow<Expand>>;

/// y = (act(u W1) * (u W2)) W3 without biases. Source: Shazeer, "GLU variants improve transformer" (arXiv 2002.05202), eq. 6.
template <int Expand = 4, class Act = Silu>
using GatedMlp = Chain<Gate<Chain<Widen<Expand, NoBias>, Act>, Widen<Expand, NoBias>>, Narrow<Expand, NoBias>>;

}  // namespace coyote::inline v0

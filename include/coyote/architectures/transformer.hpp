// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/block.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/mixers/mlp.hpp"

namespace coyote::inline v0 {

/// A mixer block followed by an MLP block: u <- u + mixer(norm(u)); u <- u + mlp(norm(u)).
template <class M, class Channels = Mlp<>, class Norm = LayerNorm>
using MixerMlp = Chain<Block<M, Norm>, Block<Channels, Norm>>;

/// A pre-norm transformer; the number of layers is an option (count).
template <class H, class Positions = Rotary<>, class Channels = Mlp<>, class Norm = LayerNorm>
using Transformer = Repeat<MixerMlp<Attention<H, Dense, Positions>, Channels, Norm>>;

}  // namespace coyote::inline v0

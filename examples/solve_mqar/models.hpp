// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The architectures of the default preset, for units of every backend: they include its headers first.
namespace solve_mqar {

using namespace coyote;

// [models]
using Local = Block<Coyote<ShortConv<3>>>;
using WithAttention = Chain<Local, Block<Attention<Heads<1>, Dense>>>;
using WithBigrams = Chain<Local, Block<Attention<Heads<1>, RepeatedBigrams<4>>>>;
using WithLongConv = Chain<Local, Block<Coyote<LongConv<ImplicitFilter>>>>;
// [models]
using TwoAttentions = Chain<Block<Attention<>>, Block<Attention<>>>;

}  // namespace solve_mqar

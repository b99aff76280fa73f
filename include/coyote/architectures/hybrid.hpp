// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/block.hpp"
#include "coyote/mixers/attention.hpp"

namespace coyote::inline v0 {

/// A Coyote block with a short convolution, which lets a row see its neighbours, and then a block of attention that finds
/// what the context says about it. Pattern is what attention may look at: Dense, or RepeatedBigrams<K> for cost linear in
/// the length. Source: Zoology (arXiv 2312.04927), section 5.
template <class Pattern, Index K = 3, class H = Heads<1>>
using Hybrid = Chain<Block<Coyote<ShortConv<K>>>, Block<Attention<H, Pattern>>>;

}  // namespace coyote::inline v0

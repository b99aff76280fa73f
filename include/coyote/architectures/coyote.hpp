// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/gate.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/mixers/short_conv.hpp"

namespace coyote::inline v0 {

/// Coyote (BaseConv): y = (u W + b1) * (K * u + b2), with C the convolution K * u + b2.
/// Source: Zoology (arXiv 2312.04927), Def. 4.1.
template <class C, class Projection = Linear>
using Coyote = Gate<Projection, C>;

}  // namespace coyote::inline v0

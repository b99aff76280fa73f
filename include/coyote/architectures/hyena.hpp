// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/gate.hpp"
#include "coyote/filters/implicit.hpp"
#include "coyote/filters/skip.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/mixers/short_conv.hpp"

namespace coyote::inline v0 {

namespace detail {

template <int Order, class F>
struct HyenaRecursion {
  static_assert(Order >= 1, "coyote: a Hyena has order 1 at least");
  using type = Gate<Linear, Chain<typename HyenaRecursion<Order - 1, F>::type, LongConv<F, Causal, NoBias>>>;
};
template <class F>
struct HyenaRecursion<0, F> {
  using type = Linear;
};

using HyenaProjection = Chain<Linear, ShortConv<3>>;

template <int Order, class F>
struct HyenaPublicRecursion {
  static_assert(Order >= 1, "coyote: a Hyena has order 1 at least");
  using type =
      Gate<HyenaProjection, Chain<typename HyenaPublicRecursion<Order - 1, F>::type, LongConv<WithSkip<F>, Causal, NoBias>>>;
};
template <class F>
struct HyenaPublicRecursion<1, F> {
  using type = Gate<HyenaProjection, HyenaProjection>;
};

}  // namespace detail

/// Hyena of the paper: z^1 = v, z^{n+1} = x^n * (h^n conv z^n) for n = 1 .. Order, y = z^{Order+1} W_o + b_o, with v and every
/// x^n linear in u. In and out [batch, length, D]. Degree Order + 1. Cost with explicit filters: (k+2)(D^2+D) + kLD parameters,
/// (k+2) L D^2 + k (D L(L+1)/2 + LD) multiplications; state k L D scalars. Source: Hyena (arXiv 2302.10866), definition 3.1.
template <int Order, class F = HyenaFilter>
using Hyena = Chain<typename detail::HyenaRecursion<Order, F>::type, Linear>;

/// Hyena as coded: it gates first and then convolves, z^1 = x^1 * v, z^{n+1} = x^{n+1} * (h^n conv z^n + D^n z^n) for n = 1 ..
/// Order - 1, y = z^Order W_o + b_o, so that order 2 has one long convolution; v and every x^n pass a short convolution of 3
/// taps after their projection. Order 1 is a gate alone. Degree Order + 1 like the paper's form, of which it is the one whose
/// first filter is a lone tap and whose others have a skip; beyond that form's cost it has Order + 1 short convolutions (4D
/// parameters each, state 2D) and Order - 1 skips (D each), and one long convolution less. The public code gives the last
/// projection weights of a smaller deviation, 0.02 / sqrt(2 * layers): an option of the last Linear.
template <int Order, class F = HyenaFilter>
using HyenaPublic = Chain<typename detail::HyenaPublicRecursion<Order, F>::type, Linear>;

}  // namespace coyote::inline v0

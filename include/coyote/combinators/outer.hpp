// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/combine.hpp"
#include "coyote/operations/head_products.hpp"

namespace coyote::inline v0 {

/// The outer product of two branches, head by head: a [.., H*E] and b [.., H*F] become y [.., H*E*F] with
/// y[(g*E + i)*F + j] = a[g*E + i] * b[g*F + j]. E = F = 1 is the elementwise product.
template <Index E, Index F = E>
struct OuterProduct {
  static_assert(E >= 1 && F >= 1, "coyote: an OuterProduct has heads of at least one channel");
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree(Degree a, Degree b) { return a + b; }
  static constexpr Index output_width(Index a, Index b) { return a % E == 0 && a / E * F == b ? a * F : 0; }
  static constexpr Cost cost(Dimensions dims, Index a, Index) { return {.multiplications = dims.length * a * F}; }
};

/// Outer<E, A, B>: y[g,i,j] = A(u)[g,i] * B(u)[g,j] for heads of E channels. Saves both branches' outputs. Cost: B*L*D*E
/// multiplications beyond its branches. Errors: branches of different widths; a width that E does not divide.
template <Index E, class A, class B>
using Outer = Combine<OuterProduct<E>, A, B>;

template <Index E, Index F, class Backend, class S>
class Junction<OuterProduct<E, F>, Backend, S> : public PlainJunction {
 public:
  using PlainJunction::PlainJunction;
  constexpr void forward(Context<Backend>& context, const Batch&, Rows<const S> a, Rows<const S> b, Rows<S> y, Saved&) const {
    outer_product<S, E, F>(context, a, b, y);
  }
  constexpr void backward(Context<Backend>& context, const Batch&, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da,
                          Rows<S> db, Saved&) const {
    outer_product_backward<S, E, F>(context, a, b, dy, da, db);
  }
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> a, Rows<const S> b, Rows<S> y) const {
    Saved saved;
    forward(context, {}, a, b, y, saved);
  }
};

}  // namespace coyote::inline v0

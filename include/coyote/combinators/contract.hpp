// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/combine.hpp"
#include "coyote/operations/head_products.hpp"

namespace coyote::inline v0 {

/// A vector times a matrix, head by head: a [.., H*E] and b [.., H*E*F] become y [.., H*F] with
/// y[g*F + j] = sum_i a[g*E + i] * b[(g*E + i)*F + j]. E = F = 1 is the elementwise product.
template <Index E, Index F = E>
struct Contraction {
  static_assert(E >= 1 && F >= 1, "coyote: a Contraction has heads of at least one channel");
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree(Degree a, Degree b) { return a + b; }
  static constexpr Index output_width(Index a, Index b) { return a % E == 0 && a * F == b ? a / E * F : 0; }
  static constexpr Cost cost(Dimensions dims, Index a, Index) {
    return {.multiplications = dims.length * a * F, .additions = dims.length * (a / E) * (E - 1) * F};
  }
};

/// Contract<E, A, B>: y[g,j] = sum_i A(u)[g,i] * B(u)[g,i,j] for heads of E channels. Saves both branches' outputs. Cost:
/// B*L*D*E multiplications and B*L*D*(E-1) additions beyond its branches. Errors: a right branch that is not E times as wide
/// as the left one; a width that E does not divide.
template <Index E, class A, class B>
using Contract = Combine<Contraction<E>, A, B>;

template <Index E, Index F, class Backend, class S>
class Junction<Contraction<E, F>, Backend, S> : public PlainJunction {
 public:
  using PlainJunction::PlainJunction;
  constexpr void forward(Context<Backend>& context, const Batch&, Rows<const S> a, Rows<const S> b, Rows<S> y, Saved&) const {
    contraction<S, E, F>(context, a, b, y);
  }
  constexpr void backward(Context<Backend>& context, const Batch&, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da,
                          Rows<S> db, Saved&) const {
    contraction_backward<S, E, F>(context, a, b, dy, da, db);
  }
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> a, Rows<const S> b, Rows<S> y) const {
    Saved saved;
    forward(context, {}, a, b, y, saved);
  }
};

}  // namespace coyote::inline v0

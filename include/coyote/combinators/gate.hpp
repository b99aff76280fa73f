// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/combine.hpp"

namespace coyote::inline v0 {

/// The elementwise product of two branches.
struct Product : ElementwiseJoin {
  static constexpr Degree degree(Degree a, Degree b) { return a + b; }
  static constexpr Cost cost(Dimensions dims, Index a, Index) { return {.multiplications = dims.length * a}; }
};

/// Gate<A, B>: y = A(u) * B(u), elementwise. Cost: B*L*D multiplications beyond its branches.
template <class A, class B>
using Gate = Combine<Product, A, B>;

template <class Backend, class S>
class Junction<Product, Backend, S> : public PlainJunction {
 public:
  using PlainJunction::PlainJunction;
  constexpr void forward(Context<Backend>& context, const Batch&, Rows<const S> a, Rows<const S> b, Rows<S> y, Saved&) const {
    multiply<S>(context, a, b, y, Write::overwrite);
  }
  constexpr void backward(Context<Backend>& context, const Batch&, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da,
                          Rows<S> db, Saved&) const {
    multiply<S>(context, dy, b, da, Write::overwrite);
    multiply<S>(context, dy, a, db, Write::overwrite);
  }
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> a, Rows<const S> b, Rows<S> y) const {
    multiply<S>(context, a, b, y, Write::overwrite);
  }
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/combine.hpp"

namespace coyote::inline v0 {

/// The elementwise sum of two branches.
struct Addition : ElementwiseJoin {
  static constexpr Degree degree(Degree a, Degree b) { return max(a, b); }
  static constexpr Cost cost(Dimensions dims, Index a, Index) { return {.additions = dims.length * a}; }
};

/// Sum<A, B>: y = A(u) + B(u). Cost: B*L*D additions beyond its branches.
template <class A, class B>
using Sum = Combine<Addition, A, B>;

template <class Backend, class S>
class Junction<Addition, Backend, S> : public PlainJunction {
 public:
  using PlainJunction::PlainJunction;
  constexpr void forward(Context<Backend>& context, const Batch&, Rows<const S> a, Rows<const S> b, Rows<S> y, Saved&) const {
    add<S>(context, a, b, y);
  }
  constexpr void backward(Context<Backend>& context, const Batch&, Rows<const S>, Rows<const S>, Rows<const S> dy, Rows<S> da,
                          Rows<S> db, Saved&) const {
    copy<S>(context, dy, da);
    copy<S>(context, dy, db);
  }
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> a, Rows<const S> b, Rows<S> y) const {
    add<S>(context, a, b, y);
  }
};

}  // namespace coyote::inline v0

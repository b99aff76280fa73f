// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/activation.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// y = f(x), elementwise
template <class S, class Function>
void activate(Context<Reference>&, Rows<const S> x, Rows<S> y) {
  for (Index i = 0; i < x.rows; ++i) {
    for (Index c = 0; c < x.width; ++c) y(i, c) = Function::template value<ScalarMath<S>>(x(i, c));
  }
}

/// dx (=|+=) dy * f'(x)
template <class S, class Function>
void activate_backward(Context<Reference>&, Rows<const S> x, Rows<const S> dy, Rows<S> dx, Write write) {
  if (write == Write::none) return;
  for (Index i = 0; i < x.rows; ++i) {
    for (Index c = 0; c < x.width; ++c) {
      write_to(dx(i, c), dy(i, c) * Function::template derivative<ScalarMath<S>>(x(i, c)), write);
    }
  }
}

}  // namespace coyote::inline v0

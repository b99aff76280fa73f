// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// y[i] = f[i] * x[i] for the rows picked (all when `picked` is absent), 0 for the others. y may be x. f, picked [rows, 1].
template <class S, RowContext C>
constexpr void scale_rows(C& context, Rows<const S> f, Rows<const unsigned char> picked, Rows<const S> x, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    if (picked.rows > 0 && picked(i, 0) == 0) {
      for (Index c = 0; c < y.width; ++c) y(i, c) = S{};
    } else {
      for (Index c = 0; c < y.width; ++c) y(i, c) = f(i, 0) * x(i, c);
    }
  });
}

/// Gradients of scale_rows with all rows picked: dx[i] = f[i] * dy[i], df[i] = <dy[i], x[i]>.
template <class S, RowContext C>
constexpr void scale_rows_backward(C& context, Rows<const S> f, Rows<const S> x, Rows<const S> dy, Rows<S> dx, Rows<S> df) {
  context.for_rows(dy.rows, 3 * dy.width, [&](Index i) {
    S sum{};
    for (Index c = 0; c < dy.width; ++c) {
      dx(i, c) = f(i, 0) * dy(i, c);
      sum += dy(i, c) * x(i, c);
    }
    df(i, 0) = sum;
  });
}

}  // namespace coyote::inline v0

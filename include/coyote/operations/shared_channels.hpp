// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// Groups of `share` neighbouring channels that are treated alike.

/// y[i, c] = x[i, c / share]
template <class P, RowContext C>
constexpr void repeat_channels(C& context, Index share, Rows<const P> x, Rows<P> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    const P* from = x.row(i);
    P* to = y.row(i);
    for (Index c = 0; c < x.width; ++c) {
      for (Index k = 0; k < share; ++k) to[c * share + k] = from[c];
    }
  });
}

/// y[i, c] = sum_k x[i, c * share + k]: the adjoint of repeat_channels.
template <class P, RowContext C>
constexpr void sum_channels(C& context, Index share, Rows<const P> x, Rows<P> y) {
  context.for_rows(y.rows, x.width, [&](Index i) {
    const P* from = x.row(i);
    for (Index c = 0; c < y.width; ++c) {
      P sum = from[c * share];
      for (Index k = 1; k < share; ++k) sum += from[c * share + k];
      y(i, c) = sum;
    }
  });
}

/// y[i * share + c % share, c / share] = x[i, c]: the channels of a group become rows side by side.
template <class S, RowContext C>
constexpr void split_channels(C& context, Index share, Rows<const S> x, Rows<S> y) {
  context.for_rows(x.rows, x.width, [&](Index i) {
    for (Index c = 0; c < x.width; ++c) y(i * share + c % share, c / share) = x(i, c);
  });
}

/// y[i, c] = x[i * share + c % share, c / share]: the inverse of split_channels.
template <class S, RowContext C>
constexpr void join_channels(C& context, Index share, Rows<const S> x, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) = x(i * share + c % share, c / share);
  });
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// What the net of an implicit filter does besides its linear maps.

/// y[t] = x[t] * coarse[t / n] * fine[t % n], per channel, n = fine.rows. y may be x.
template <class P, RowContext C>
void apply_window(C& context, Rows<const P> coarse, Rows<const P> fine, Rows<const P> x, Rows<P> y) {
  context.for_rows(y.rows, 2 * y.width, [&](Index t) {
    const P *slow = coarse.row(t / fine.rows), *fast = fine.row(t % fine.rows);
    for (Index c = 0; c < y.width; ++c) y(t, c) = x(t, c) * (slow[c] * fast[c]);
  });
}

/// after = Activation::value(x) with x = before, or frequency * before where the activation has frequencies, [1, width].
template <class P, class Activation, RowContext C>
void activate_net(C& context, Rows<const P> frequency, Rows<const P> before, Rows<P> after) {
  context.for_rows(before.rows, (Activation::has_frequency ? 16 : 1) * before.width, [&](Index t) {
    for (Index k = 0; k < before.width; ++k) {
      if constexpr (Activation::has_frequency) {
        after(t, k) = Activation::value(frequency(0, k) * before(t, k));
      } else {
        after(t, k) = Activation::value(before(t, k));
      }
    }
  });
}

/// dbefore from dafter, which is used up; dfrequency += its gradient.
template <class P, class Activation, RowContext C>
void activate_net_backward(C& context, Rows<const P> frequency, Rows<const P> before, Rows<P> dafter, Rows<P> dbefore,
                           Rows<P> dfrequency) {
  context.for_rows(before.rows, (Activation::has_frequency ? 16 : 1) * before.width, [&](Index t) {
    for (Index k = 0; k < before.width; ++k) {
      if constexpr (Activation::has_frequency) {
        const P f = frequency(0, k), d = dafter(t, k) * Activation::slope(f * before(t, k));
        dbefore(t, k) = d * f;
        dafter(t, k) = d * before(t, k);
      } else {
        dbefore(t, k) = dafter(t, k) * Activation::slope(before(t, k));
      }
    }
  });
  if constexpr (Activation::has_frequency) {
    context.template sum_rows<P>(before.rows, dfrequency, [&](Index t, P* sums) {
      for (Index k = 0; k < before.width; ++k) sums[k] += dafter(t, k);
    });
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/batch.hpp"
#include "coyote/core/scalar.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// The position of a batch's row inside its sequence.
constexpr Index position_of(const Batch& batch, Index row) {
  if (batch.offsets.empty()) return row % batch.length;
  return row - *(std::upper_bound(batch.offsets.begin(), batch.offsets.end(), row) - 1);
}

/// y[i] = mix * x[i] + rest * x[i - 1] with rest = 1 - mix, per channel; the row before a sequence's first is 0.
template <class S, RowContext C>
constexpr void token_shift(C& context, const Batch& batch, Rows<const S> x, Rows<const parameter_t<S>> mix,
                           Rows<const parameter_t<S>> rest, Rows<S> y) {
  context.for_rows(x.rows, 2 * x.width, [&](Index i) {
    const S* from = x.row(i);
    const parameter_t<S>*m = mix.row(0), *r = rest.row(0);
    S* to = y.row(i);
    if (position_of(batch, i) == 0) {
      for (Index c = 0; c < x.width; ++c) to[c] = static_cast<S>(m[c] * from[c] + r[c] * S{});
    } else {
      const S* before = x.row(i - 1);
      for (Index c = 0; c < x.width; ++c) to[c] = static_cast<S>(m[c] * from[c] + r[c] * before[c]);
    }
  });
}

/// dx[i] (=|+=) mix * dy[i] + rest * dy[i + 1]; dmix += sum_i dy[i] * (x[i] - x[i - 1])
template <class S, RowContext C>
constexpr void token_shift_backward(C& context, const Batch& batch, Rows<const S> x, Rows<const parameter_t<S>> mix,
                                    Rows<const parameter_t<S>> rest, Rows<const S> dy, Rows<S> dx, Write write,
                                    Rows<parameter_t<S>> dmix) {
  using P = parameter_t<S>;
  if (write != Write::none) {
    context.for_rows(x.rows, 3 * x.width, [&](Index i) {
      const bool last = i + 1 == x.rows || position_of(batch, i + 1) == 0;
      const S* gradient = dy.row(i);
      const P *m = mix.row(0), *r = rest.row(0);
      S* to = dx.row(i);
      if (last) {
        for (Index c = 0; c < x.width; ++c) write_to(to[c], static_cast<S>(m[c] * gradient[c]), write);
      } else {
        const S* next = dy.row(i + 1);
        for (Index c = 0; c < x.width; ++c) write_to(to[c], static_cast<S>(m[c] * gradient[c] + r[c] * next[c]), write);
      }
    });
  }
  if (dmix.rows > 0) {
    context.sum_rows(x.rows, dmix, [&](Index i, P* sums) {
      const S *from = x.row(i), *gradient = dy.row(i);
      if (position_of(batch, i) == 0) {
        for (Index c = 0; c < x.width; ++c) sums[c] += static_cast<P>(gradient[c] * from[c]);
      } else {
        const S* before = x.row(i - 1);
        for (Index c = 0; c < x.width; ++c) sums[c] += static_cast<P>(gradient[c] * (from[c] - before[c]));
      }
    });
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/batch.hpp"
#include "coyote/core/scalar.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// What decoding does with one row of every sequence. Kernels of a device read the position there (Step::device), so that one
// captured step serves every position.

/// to[s * capacity + position mod capacity] = x[s], for the `capacity` rows that `to` has for each of x's.
template <class S, RowContext C>
constexpr void store_rows(C& context, const Step& at, Rows<const S> x, Rows<parameter_t<S>> to) {
  const Index capacity = to.rows / x.rows, slot = at.position % capacity;
  context.for_rows(x.rows, x.width, [&](Index s) {
    for (Index c = 0; c < x.width; ++c) to(s * capacity + slot, c) = static_cast<parameter_t<S>>(x(s, c));
  });
}

/// y = sum_{t = 0 .. min(position, taps.rows - 1)} taps[t] * (the input t rows ago) + bias, and remembers u: a convolution, row
/// by row. history [sequences * memory, width] with memory >= taps.rows - 1 holds the row of position p of sequence s at s *
/// memory + p mod memory. bias: 0, 1 or one row per position. Times gate, plus skip, unless they are absent.
template <class S, RowContext C>
constexpr void convolution_step(C& context, const Step& at, Rows<const parameter_t<S>> taps, Rows<const parameter_t<S>> bias,
                                Rows<parameter_t<S>> history, Rows<const S> u, Rows<S> y, Rows<const S> gate = {},
                                Rows<const S> skip = {}) {
  using P = parameter_t<S>;
  const Index memory = history.rows / u.rows, reach = taps.rows - 1, used = at.position < reach ? at.position : reach;
  context.for_rows(u.rows, 2 * (used + 1) * u.width, [&](Index s) {
    const S* now = u.row(s);
    S* to = y.row(s);
    for (Index c = 0; c < u.width; ++c) to[c] = static_cast<S>(taps(0, c) * static_cast<P>(now[c]));
    for (Index t = 1; t <= used; ++t) {
      const P* then = history.row(s * memory + (at.position - t) % memory);
      for (Index c = 0; c < u.width; ++c) to[c] = static_cast<S>(static_cast<P>(to[c]) + taps(t, c) * then[c]);
    }
    if (bias.rows > 0) {
      const P* add = bias.row(bias.rows == 1 ? 0 : at.position);
      for (Index c = 0; c < u.width; ++c) to[c] = static_cast<S>(static_cast<P>(to[c]) + add[c]);
    }
    for (Index c = 0; gate.rows > 0 && c < u.width; ++c)
      to[c] = static_cast<S>(static_cast<P>(to[c]) * static_cast<P>(gate(s, c)));
    for (Index c = 0; skip.rows > 0 && c < u.width; ++c)
      to[c] = static_cast<S>(static_cast<P>(to[c]) + static_cast<P>(skip(s, c)));
    if (memory == 0) return;
    P* remembered = history.row(s * memory + at.position % memory);
    for (Index c = 0; c < u.width; ++c) remembered[c] = static_cast<P>(now[c]);
  });
}

/// y += bias, of which the step's row is the only one or the one of its position. No bias: nothing.
template <class S, RowContext C>
constexpr void bias_step(C& context, const Step& at, Rows<const parameter_t<S>> bias, Rows<S> y) {
  if (bias.rows == 0) return;
  const auto* add = bias.row(bias.rows == 1 ? 0 : at.position);
  context.for_rows(y.rows, y.width, [&](Index s) {
    for (Index c = 0; c < y.width; ++c) y(s, c) = static_cast<S>(static_cast<parameter_t<S>>(y(s, c)) + add[c]);
  });
}

/// y = mix * u + (1 - mix) * before, per channel.
template <class S, RowContext C>
constexpr void token_shift_step(C& context, Rows<const parameter_t<S>> mix, Rows<const parameter_t<S>> before, Rows<const S> u,
                                Rows<S> y) {
  using P = parameter_t<S>;
  context.for_rows(u.rows, 3 * u.width, [&](Index s) {
    for (Index c = 0; c < u.width; ++c) {
      const P m = mix(0, c);
      y(s, c) = static_cast<S>(m * static_cast<P>(u(s, c)) + (static_cast<P>(1) - m) * before(s, c));
    }
  });
}

/// y += factor * x, per channel.
template <class S, RowContext C>
constexpr void add_scaled(C& context, Rows<const parameter_t<S>> factor, Rows<const S> x, Rows<S> y) {
  using P = parameter_t<S>;
  context.for_rows(x.rows, 2 * x.width, [&](Index s) {
    for (Index c = 0; c < x.width; ++c) {
      y(s, c) = static_cast<S>(static_cast<P>(y(s, c)) + factor(0, c) * static_cast<P>(x(s, c)));
    }
  });
}

/// sums += u, y = sums.
template <class S, RowContext C>
constexpr void sum_step(C& context, Rows<const S> u, Rows<parameter_t<S>> sums, Rows<S> y) {
  context.for_rows(u.rows, 2 * u.width, [&](Index s) {
    for (Index c = 0; c < u.width; ++c) {
      sums(s, c) += static_cast<parameter_t<S>>(u(s, c));
      y(s, c) = static_cast<S>(sums(s, c));
    }
  });
}

}  // namespace coyote::inline v0

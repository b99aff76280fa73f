// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/context.hpp"
#include "coyote/core/scalar.hpp"

namespace coyote::inline v0 {

// Operations whose rows do not depend on each other, written once for the backends whose context has `for_rows`.

namespace detail {
/// Stands for any function of a row in the concept: nvcc takes no lambda there.
struct AnyRowFunction {
  constexpr void operator()(Index) const {}
};
}  // namespace detail

/// Contexts that run a host function for every row.
template <class C>
concept RowContext = requires(C& context) {
  context.for_rows(Index{}, Index{}, detail::AnyRowFunction{});
};

/// Stores `value` in `target` as a Write says.
template <class S>
constexpr void write_to(S& target, const S& value, Write write) {
  if (write == Write::overwrite) {
    target = value;
  } else if (write == Write::add) {
    target += value;
  }
}

/// f(0) + ... + f(n - 1), n >= 1, by n - 1 additions in sixteen running sums: a single one would wait for itself.
template <class F>
constexpr auto sum_of(Index n, F&& f) {
  constexpr Index lanes = 16;
  using P = decltype(f(Index{}));
  if (n < 2 * lanes) {
    P sum = f(0);
    for (Index i = 1; i < n; ++i) sum += f(i);
    return sum;
  }
  P sums[lanes];
  for (Index l = 0; l < lanes; ++l) sums[l] = f(l);
  Index i = lanes;
  for (; i + lanes <= n; i += lanes) {
    for (Index l = 0; l < lanes; ++l) sums[l] += f(i + l);
  }
  for (; i < n; ++i) sums[0] += f(i);
  for (Index half = lanes / 2; half > 0; half /= 2) {
    for (Index l = 0; l < half; ++l) sums[l] += sums[l + half];
  }
  return sums[0];
}

/// y = x
template <class S, RowContext C>
constexpr void copy(C& context, Rows<const S> x, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) = x(i, c);
  });
}

/// y = 0
template <class S, RowContext C>
constexpr void clear(C& context, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) = S{};
  });
}

/// y = value
template <class S, RowContext C>
constexpr void set_all(C& context, S value, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) = value;
  });
}

/// y (=|+=) x
template <class S, RowContext C>
constexpr void assign(C& context, Rows<const S> x, Rows<S> y, Write write) {
  if (write == Write::none) return;
  if (write == Write::overwrite) return copy<S>(context, x, y);
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) += x(i, c);
  });
}

/// y (=|+=) a * b, elementwise
template <class S, RowContext C>
constexpr void multiply(C& context, Rows<const S> a, Rows<const S> b, Rows<S> y, Write write) {
  if (write == Write::none) return;
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) write_to(y(i, c), a(i, c) * b(i, c), write);
  });
}

/// y = a + b
template <class S, RowContext C>
constexpr void add(C& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) = a(i, c) + b(i, c);
  });
}

/// y += a + b
template <class S, RowContext C>
constexpr void accumulate(C& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) += a(i, c) + b(i, c);
  });
}

/// y += number, elementwise
template <class S, RowContext C>
constexpr void add_number(C& context, parameter_t<S> number, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) += static_cast<S>(number);
  });
}

/// y = 1 - x
template <class S, RowContext C>
constexpr void complement(C& context, Rows<const S> x, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    for (Index c = 0; c < y.width; ++c) y(i, c) = static_cast<S>(1) - x(i, c);
  });
}

}  // namespace coyote::inline v0

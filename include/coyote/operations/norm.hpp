// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/scalar.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// Which rows' statistics a norm divides out.
enum class NormKind { layer, root_mean_square };

/// A norm's kind and parameters, for operations that apply it to their input themselves.
template <class P>
struct NormRule {
  NormKind kind = NormKind::layer;
  P epsilon = {};
  Rows<const P> scale = {}, shift = {};
};

/// Do decoding steps on such a backend take the rule of the norm in front of them, in place of normalised rows?
template <class Backend, class S>
inline constexpr bool steps_normalise = false;

/// y = (x - mean) / sqrt(variance + epsilon) * scale + shift over each row's channels (layer), or
/// y = x / sqrt(mean of squares + epsilon) * scale (root_mean_square). Statistics in P.
/// `statistics`, [rows, 2] or absent, receives the mean (or 0) and the reciprocal deviation of every row.
template <class S, RowContext C>
void normalise(C& context, NormKind kind, parameter_t<S> epsilon, Rows<const S> x, Rows<const parameter_t<S>> scale,
               Rows<const parameter_t<S>> shift, Rows<S> y, Rows<parameter_t<S>> statistics) {
  using P = parameter_t<S>;
  using std::sqrt;
  context.for_rows(x.rows, 4 * x.width, [&](Index i) {
    const auto n = static_cast<P>(static_cast<double>(x.width));
    const S* from = x.row(i);
    S* to = y.row(i);
    P mean{};
    if (kind == NormKind::layer) mean = sum_of(x.width, [&](Index c) { return static_cast<P>(from[c]); }) / n;
    const auto centred = [&](Index c) {
      return kind == NormKind::layer ? static_cast<P>(from[c]) - mean : static_cast<P>(from[c]);
    };
    const P squares = sum_of(x.width, [&](Index c) {
      const P d = centred(c);
      return d * d;
    });
    const P inverse = static_cast<P>(1.0) / sqrt(squares / n + epsilon);
    for (Index c = 0; c < x.width; ++c) {
      P value = centred(c) * inverse * scale(0, c);
      if (shift.rows > 0) value += shift(0, c);
      to[c] = static_cast<S>(value);
    }
    if (statistics.rows > 0) {
      statistics(i, 0) = mean;
      statistics(i, 1) = inverse;
    }
  });
}

/// Gradients of normalise: with n = (x - mean) * inverse and g = dy * scale,
/// dx (=|+=) inverse * (g - [layer: mean(g)] - n * mean(g * n)) (+ skip, unless absent); dscale += sum dy * n; dshift += sum dy.
template <class S, RowContext C>
void normalise_backward(C& context, NormKind kind, Rows<const S> x, Rows<const parameter_t<S>> scale,
                        Rows<const parameter_t<S>> statistics, Rows<const S> dy, Rows<S> dx, Write write,
                        Rows<parameter_t<S>> dscale, Rows<parameter_t<S>> dshift, Rows<const S> skip = {}) {
  using P = parameter_t<S>;
  const Index width = x.width;
  if (write != Write::none) {
    context.for_rows(x.rows, 6 * width, [&](Index i) {
      const P mean = statistics(i, 0), inverse = statistics(i, 1);
      const S* from = x.row(i);
      const S* gradient = dy.row(i);
      const auto scaled = [&](Index c) { return static_cast<P>(gradient[c]) * scale(0, c); };
      const auto normed = [&](Index c) { return (static_cast<P>(from[c]) - mean) * inverse; };
      const P sum_gn = sum_of(width, [&](Index c) { return scaled(c) * normed(c); });
      const auto n = static_cast<P>(static_cast<double>(width));
      const P mean_g = kind == NormKind::layer ? sum_of(width, scaled) / n : P{}, mean_gn = sum_gn / n;
      S* to = dx.row(i);
      for (Index c = 0; c < width; ++c) {
        const auto value = static_cast<S>(inverse * (scaled(c) - mean_g - normed(c) * mean_gn));
        write_to(to[c], skip.rows > 0 ? value + skip(i, c) : value, write);
      }
    });
  }
  if (dscale.rows > 0) {
    const auto frame = context.frame();
    auto sums = context.template make<P>(1, 2 * width);
    const Rows<P> total = sums;
    for (Index c = 0; c < 2 * width; ++c) total(0, c) = P{};
    context.sum_rows(x.rows, total, [&](Index i, P* partial) {
      const P mean = statistics(i, 0), inverse = statistics(i, 1);
      const S* from = x.row(i);
      const S* gradient = dy.row(i);
      for (Index c = 0; c < width; ++c) {
        partial[c] += static_cast<P>(gradient[c]) * (static_cast<P>(from[c]) - mean) * inverse;
        partial[width + c] += static_cast<P>(gradient[c]);
      }
    });
    for (Index c = 0; c < width; ++c) {
      dscale(0, c) += total(0, c);
      if (dshift.rows > 0) dshift(0, c) += total(0, width + c);
    }
  }
}

}  // namespace coyote::inline v0

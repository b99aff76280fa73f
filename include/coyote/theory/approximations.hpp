// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/primitives.hpp"

/// Functions that are no polynomials, as near as layers come: exp and 1/x with bounds, and 1/x exactly in a prime field. Each
/// works on all its columns at once, appends its layers to a stack and states how many.
namespace coyote::inline v0::theory::approximations {

using primitives::Columns;

/// y[c] = u[c]^(2^count): `count` layers, all gate layers.
template <Ring S>
constexpr Stack<S>& squarings(Stack<S>& stack, const Columns& columns, Index count) {
  for (Index step = 0; step < count; ++step) {
    Program<S> program;
    for (const Index c : columns) program.gate(c, Form<S>::column(c));
    stack.then(std::move(program));
  }
  return stack;
}

/// y[c] = (1 + u[c] / 2^r)^(2^r), r = `count`, which is near exp(u[c]): r + 1 layers, r of them gate layers; `share` is 1 / 2^r.
/// ln y differs from u by at most exponential_error. Errors: `share` is another number.
template <Ring S>
constexpr Stack<S>& exponential(Stack<S>& stack, const Columns& columns, Index count, std::type_identity_t<S> share) {
  S whole = share;
  for (Index step = 0; step < count; ++step) whole += whole;
  if (!(whole == S(1))) throw Error("approximations::exponential", words("1 / 2^", count), "another number");
  Program<S> program;
  for (const Index c : columns) program.lin(c, {{c, share}}, S(1));
  return squarings(stack.then(std::move(program)), columns, count);
}

/// The most that ln((1 + x / 2^r)^(2^r)) differs from x for |x| <= range: range^2 / 2^r, because |ln(1 + z) - z| <= z^2 for |z|
/// <= 1/2. Errors: a range above 2^(r-1).
inline double exponential_error(double range, Index count) {
  const double whole = std::ldexp(1.0, static_cast<int>(count));
  if (!(range >= 0 && range <= whole / 2)) {
    throw Error("approximations::exponential_error", words("a range of 0 to 2^", count - 1), words(range));
  }
  return range * range / whole;
}

/// y[to] = (1 - e^(2^steps)) / u[from] with e = 1 - u[from], exactly, which is near 1 / u for 0 < u < 2: the product of
/// 1 + e^(2^j), j < steps. steps + 1 layers, `steps` of them gate layers; u[from] becomes e^(2^steps), the relative error.
/// Errors: as many columns of results as of arguments.
template <Ring S>
constexpr Stack<S>& reciprocal(Stack<S>& stack, const Columns& from, const Columns& to, Index steps) {
  if (from.size() != to.size()) throw Error("approximations::reciprocal", words(from.size(), " results"), words(to.size()));
  Program<S> start;
  for (Index k = 0; k < from.size(); ++k) start.lin(from[k], {{from[k], -S(1)}}, S(1)).lin(to[k], {}, S(1));
  stack.then(std::move(start));
  for (Index step = 0; step < steps; ++step) {
    Program<S> program;
    for (Index k = 0; k < from.size(); ++k) {
      program.gate(to[k], Form<S>::column(from[k]), S(1)).gate(from[k], Form<S>::column(from[k]));
    }
    stack.then(std::move(program));
  }
  return stack;
}

/// For arguments between lowest and highest, multiplied by `scale` = 2 / (lowest + highest) first: e is at most `distance` away
/// from 0, and the relative error of 1 / u at most distance^(2^steps).
struct ReciprocalRange {
  double scale = 1, distance = 0;

  /// Errors: not 0 < lowest <= highest.
  static ReciprocalRange of(double lowest, double highest) {
    if (!(0 < lowest && lowest <= highest)) {
      throw Error("approximations::ReciprocalRange", "0 < lowest <= highest", words(lowest, ", ", highest));
    }
    return {2 / (lowest + highest), (highest - lowest) / (highest + lowest)};
  }
  double error(Index steps) const { return std::pow(distance, std::ldexp(1.0, static_cast<int>(steps))); }
  /// The fewest steps with an error of at most `wanted`. Errors: not 0 < wanted.
  Index steps(double wanted) const {
    if (!(wanted > 0)) throw Error("approximations::ReciprocalRange", "an error above 0", words(wanted));
    Index count = 0;
    while (error(count) > wanted) ++count;
    return count;
  }
};

/// y[to] = 1 / u[from] in a prime field, exactly, and 0 for 0: u^(P-2) by squaring and multiplying in the same layers.
/// 1 + bits of P-2 layers: 31 for the default field. u[from] is used up. Errors: as many results as arguments.
template <std::uint32_t P>
constexpr Stack<PrimeField<P>>& inverse(Stack<PrimeField<P>>& stack, const Columns& from, const Columns& to) {
  using S = PrimeField<P>;
  if (from.size() != to.size()) throw Error("approximations::inverse", words(from.size(), " results"), words(to.size()));
  Program<S> start;
  for (const Index c : to) start.lin(c, {}, S(1));
  stack.then(std::move(start));
  for (std::uint32_t exponent = P - 2; exponent > 0; exponent >>= 1) {
    Program<S> program;
    for (Index k = 0; k < from.size(); ++k) {
      if (exponent & 1) program.gate(to[k], Form<S>::column(from[k]));
      if (exponent > 1) program.gate(from[k], Form<S>::column(from[k]));
    }
    stack.then(std::move(program));
  }
  return stack;
}

}  // namespace coyote::inline v0::theory::approximations

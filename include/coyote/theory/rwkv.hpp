// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include "coyote/architectures/rwkv.hpp"
#include "coyote/theory/approximations.hpp"
#include "coyote/theory/simulate.hpp"

namespace coyote::inline v0::theory {

/// The weights of RWKV-4's time mix, with the taps of its decay taken: mix [1, d] is what the current row counts, the row before
/// it 1 - mix; maps are [d, d]; bonus = e^b and decay = e^(-w), [1, d].
template <Ring S>
struct RwkvWeights {
  Matrix<S> mix_k, mix_v, mix_r;
  Matrix<S> k, v, r, out;
  Matrix<S> bonus, decay;
};

namespace detail {
template <Ring S>
constexpr Index check_rwkv(const char* where, const RwkvWeights<S>& weights, Index length) {
  const Index d = weights.out.rows();
  if (length < 1) throw Error(where, "at least one row", words(length));
  for (const Matrix<S>* map : {&weights.k, &weights.v, &weights.r, &weights.out})
    require_shape(where, "a map", map->view(), d, d);
  for (const Matrix<S>* row : {&weights.mix_k, &weights.mix_v, &weights.mix_r, &weights.bonus, &weights.decay}) {
    require_shape(where, "numbers per channel", row->view(), 1, d);
  }
  return d;
}
/// (mix u_i + (1 - mix) u_{i-1}) map, column c, over the row and a shifted copy of it in columns d and on; times `factor`.
template <Ring S>
constexpr Form<S> shifted_form(const Matrix<S>& mix, const Matrix<S>& map, Index c, S factor = S(1)) {
  const Index d = map.rows();
  Form<S> form;
  for (Index a = 0; a < d; ++a) {
    const S now = mix(0, a) * map(a, c) * factor, before = (S(1) - mix(0, a)) * map(a, c) * factor;
    if (!(now == S{})) form.add(a, now);
    if (!(before == S{})) form.add(d + a, before);
  }
  return form;
}
/// bonus at lag 0, decay^(t-1) at lag t, all times `factor`.
template <Ring S>
constexpr Impulses<S> decay_taps(const RwkvWeights<S>& weights, Index c, Index length, S factor = S(1)) {
  Impulses<S> taps;
  taps.add(0, weights.bonus(0, c) * factor);
  S power = factor;
  for (Index t = 1; t < length; ++t, power *= weights.decay(0, c)) taps.add(t, power);
  return taps;
}
}  // namespace detail

/// The part of RWKV-4's time mix that is a polynomial, exactly: with k, v, r the mixed and mapped rows and c_0 = bonus,
/// c_t = decay^(t-1),
///
///     num_i = sum_{j<=i} c_{i-j} k_j v_j,   den_i = sum_{j<=i} c_{i-j} k_j,   y = (r * num) W_o.
///
/// k stands where the mixer has e^k, r where it has sigmoid(r); y is not divided. 6 layers, 2 of them gate layers, width 4d with
/// den in columns 3d .. 4d - 1; 3d without it. Errors: shapes that do not fit.
template <Ring S>
constexpr Simulation<S> simulate_rwkv_core(const RwkvWeights<S>& weights, Index length, bool with_denominator = true) {
  const Index d = detail::check_rwkv("theory::simulate_rwkv_core", weights, length);
  Simulation<S> result{Stack<S>(length, (with_denominator ? 4 : 3) * d), 0, d};
  Program<S> copies, shifts, keys, values, sums, output;
  for (Index c = 0; c < d; ++c) {
    const Index num = 2 * d + c, den = 3 * d + c;
    copies.lin(d + c, Form<S>::column(c));
    if (length > 1) {
      shifts.conv(d + c, Impulses<S>::at(1));
    } else {
      shifts.lin(d + c, {});
    }
    keys.lin(num, detail::shifted_form(weights.mix_k, weights.k, c));
    values.gate(num, detail::shifted_form(weights.mix_v, weights.v, c));
    sums.gate(num, detail::shifted_form(weights.mix_r, weights.r, c), {}, detail::decay_taps(weights, c, length));
    if (with_denominator) {
      keys.lin(den, detail::shifted_form(weights.mix_k, weights.k, c));
      sums.conv(den, detail::decay_taps(weights, c, length));
    }
    Form<S> form;
    for (Index a = 0; a < d; ++a) {
      if (!(weights.out(a, c) == S{})) form.add(2 * d + a, weights.out(a, c));
    }
    output.lin(c, std::move(form));
  }
  result.stack.then(std::move(copies)).then(std::move(shifts)).then(std::move(keys));
  result.stack.then(std::move(values)).then(std::move(sums)).then(std::move(output));
  return result;
}

/// What the approximation of an RWKV is made for: |k| <= keys and |r| <= receptances in every row and channel (rwkv_range
/// measures them); e^x as 2^squarings factors; 1/x in `steps`, 0 for as many as make its error less than the exponentials'.
struct RwkvApproximation {
  double keys = 4, receptances = 4;
  Index squarings = 20, steps = 0;
};

/// A stack that is near an RWKV-4 time mix: |y - the mixer's| <= error * sum_a |W_o[a, c]| max_j |v_j[a]| in channel c, in exact
/// arithmetic. `rounding` estimates, to first order, what floating point adds to `error`.
template <Ring S>
struct RwkvSimulation {
  Simulation<S> simulation;
  Index steps = 0;
  double error = 0, rounding = 0;

  constexpr Matrix<S> run(Rows<const S> u) const { return simulation.run(u); }
};

/// RWKV-4's time mix with exp and 1/x approximated (approximations::exponential, approximations::reciprocal):
///
///     kappa ~ e^k, T ~ e^(-r) by r squarings;  N = c conv (kappa v), D = c conv kappa;  y = (N (1/D) (1/(1 + T))) W_o
///
/// with every sum scaled into (0, 2) for its reciprocal. squarings + steps + 9 layers, squarings + steps + 3 of them gate
/// layers, width 5d. The error: weights e^k off by factors of at most e^(+-x), x = keys^2 / 2^squarings, move a mean of values
/// of size V by at most (e^(2x) - 1) V; 1/D adds its relative error; sigmoid(r) is off by a factor of at most
/// e^(receptances^2 / 2^squarings), and by its reciprocal's error. Errors: shapes that do not fit; ranges above 2^(squarings-1).
template <Real S>
RwkvSimulation<S> simulate_rwkv(const RwkvWeights<S>& weights, Index length, const RwkvApproximation& wanted) {
  constexpr const char* where = "theory::simulate_rwkv";
  const Index d = detail::check_rwkv(where, weights, length);
  const Index kappa = 2 * d, gate = 3 * d, den = 4 * d;  // the input and its shifted copy before them
  const double share = std::ldexp(1.0, -static_cast<int>(wanted.squarings));
  const double off_k = approximations::exponential_error(wanted.keys, wanted.squarings),
               off_r = approximations::exponential_error(wanted.receptances, wanted.squarings);

  // Where the sums D and 1 + T lie, the exponentials' errors included.
  const double r_top = wanted.receptances + off_r, k_top = wanted.keys + off_k;
  const auto sigmoid = approximations::ReciprocalRange::of(1 + std::exp(-r_top), 1 + std::exp(r_top));
  List<approximations::ReciprocalRange> quotients;
  approximations::ReciprocalRange worst = sigmoid;
  double condition = 1 + std::exp(r_top);
  for (Index c = 0; c < d; ++c) {
    const double bonus = static_cast<double>(weights.bonus(0, c)), decay = static_cast<double>(weights.decay(0, c));
    double highest = bonus, power = 1;
    for (Index t = 1; t < length; ++t, power *= decay) highest += power;
    const auto range = approximations::ReciprocalRange::of(bonus * std::exp(-k_top), highest * std::exp(k_top));
    if (range.distance > worst.distance) worst.distance = range.distance;
    condition = std::max(condition, highest / bonus * std::exp(2 * k_top));
    quotients.emplace(range);
  }
  RwkvSimulation<S> result{{Stack<S>(length, 5 * d), 0, d}};
  result.steps = wanted.steps > 0 ? wanted.steps : worst.steps(share / 8);
  double division = 0;
  for (const auto& range : quotients) division = std::max(division, range.error(result.steps));
  result.error = std::expm1(2 * off_k) + std::expm1(off_r) + division + sigmoid.error(result.steps);
  const double unit = static_cast<double>(std::numeric_limits<S>::epsilon()) / 2;
  result.rounding = unit * (9 / share + static_cast<double>(length + 8) * condition);

  Stack<S>& stack = result.simulation.stack;
  Program<S> copies, shifts, exponents, values, sums, divide, sigma, output;
  const auto exponentials = primitives::Columns::range(kappa, 2 * d), totals = primitives::Columns::range(gate, 2 * d),
             inverses = primitives::Columns::range(0, 2 * d);  // over the input, which nothing reads any more
  for (Index c = 0; c < d; ++c) {
    const auto scale = static_cast<S>(quotients[c].scale), sigmoid_scale = static_cast<S>(sigmoid.scale);
    copies.lin(d + c, Form<S>::column(c));
    if (length > 1) {
      shifts.conv(d + c, Impulses<S>::at(1));
    } else {
      shifts.lin(d + c, {});
    }
    exponents.lin(kappa + c, detail::shifted_form(weights.mix_k, weights.k, c, static_cast<S>(share)), S(1));
    exponents.lin(gate + c, detail::shifted_form(weights.mix_r, weights.r, c, static_cast<S>(-share)), S(1));
    // Now the numerator's terms, the denominator's, and the sigmoid's, which has no sum over rows.
    values.gate(kappa + c, detail::shifted_form(weights.mix_v, weights.v, c));
    values.lin(den + c, Form<S>::column(kappa + c));
    values.lin(gate + c, {{gate + c, sigmoid_scale}}, sigmoid_scale);
    // N and D by the same factor, so that their quotient keeps its value.
    sums.conv(kappa + c, detail::decay_taps(weights, c, length, scale));
    sums.conv(den + c, detail::decay_taps(weights, c, length, scale));
    divide.gate(kappa + c, Form<S>::column(d + c));
    sigma.gate(kappa + c, {{c, sigmoid_scale}});
    Form<S> form;
    for (Index a = 0; a < d; ++a) {
      if (!(weights.out(a, c) == S{})) form.add(kappa + a, weights.out(a, c));
    }
    output.lin(c, std::move(form));
  }
  stack.then(std::move(copies)).then(std::move(shifts)).then(std::move(exponents));
  approximations::squarings(stack, exponentials, wanted.squarings);
  stack.then(std::move(values)).then(std::move(sums));
  approximations::reciprocal(stack, totals, inverses, result.steps);
  stack.then(std::move(divide)).then(std::move(sigma)).then(std::move(output));
  return result;
}

/// The weights of a model, with its taps: bonus = exp(bonus), decay = exp(-exp(decay)).
template <class Backend, Real S>
RwkvWeights<S> rwkv_weights(Model<Rwkv, Backend, S>& model, const Path& path = {}) {
  using std::exp;
  const detail::Weights<S> from(model);
  const Path mix = path / Index{0} / "mix", gate = path / Index{1}, wkv = gate / "right";
  RwkvWeights<S> weights;
  weights.mix_k = from.matrix(mix / Index{0});
  weights.mix_v = from.matrix(mix / Index{1});
  weights.mix_r = from.matrix(mix / Index{2});
  weights.k = from.matrix(wkv / "left" / Index{1} / "weight");
  weights.v = from.matrix(wkv / "right" / Index{1} / "weight");
  weights.r = from.matrix(gate / "left" / Index{1} / "weight");
  weights.out = from.matrix(path / Index{2} / "weight");
  weights.bonus = from.matrix(wkv / "bonus");
  weights.decay = from.matrix(wkv / "decay");
  for (S& x : weights.bonus) x = exp(x);
  for (S& x : weights.decay) x = exp(-exp(x));
  return weights;
}

/// The ranges of keys and receptances that an input has, for the approximation to be made for.
template <Real S>
RwkvApproximation rwkv_range(const RwkvWeights<S>& weights, std::type_identity_t<Rows<const S>> u) {
  const Index d = detail::check_rwkv("theory::rwkv_range", weights, u.rows);
  require_shape("theory::rwkv_range", "an input", u, u.rows, d);
  RwkvApproximation range{.keys = 0, .receptances = 0};
  for (Index i = 0; i < u.rows; ++i) {
    for (Index c = 0; c < d; ++c) {
      double k = 0, r = 0;
      for (Index a = 0; a < d; ++a) {
        const double now = static_cast<double>(u(i, a)), before = i > 0 ? static_cast<double>(u(i - 1, a)) : 0.0;
        const auto mixed = [&](const Matrix<S>& mix) {
          return static_cast<double>(mix(0, a)) * now + (1 - static_cast<double>(mix(0, a))) * before;
        };
        k += mixed(weights.mix_k) * static_cast<double>(weights.k(a, c));
        r += mixed(weights.mix_r) * static_cast<double>(weights.r(a, c));
      }
      range.keys = std::max(range.keys, std::abs(k));
      range.receptances = std::max(range.receptances, std::abs(r));
    }
  }
  return range;
}

/// The Coyote stack near an actual RWKV-4 time mix on sequences of `length` rows, and how near (simulate_rwkv). `path` is the one
/// that the model was made with. Errors: a length that the model does not have; another path; ranges above 2^(squarings-1).
template <class Backend, Real S>
RwkvSimulation<S> simulate(Model<Rwkv, Backend, S>& model, Index length, const RwkvApproximation& wanted, const Path& path = {}) {
  const Index longest = model.dimensions().length;
  if (length < 1 || length > longest) throw Error("theory::simulate", words("1 to ", longest, " rows"), words(length));
  return simulate_rwkv(rwkv_weights(model, path), length, wanted);
}

}  // namespace coyote::inline v0::theory

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/mixer.hpp"

namespace coyote::test {

/// What a computation has done so far.
struct Tally {
  Index multiplications = 0, additions = 0, functions = 0;
};
inline Tally tally;

/// A double that counts: multiplications; additions and subtractions; divisions, roots, exponentials and the like.
struct Counting {
  double value = 0;

  Counting() = default;
  explicit Counting(double x) : value(x) {}
  explicit operator double() const { return value; }

  friend bool operator==(Counting a, Counting b) { return a.value == b.value; }
  friend bool operator<(Counting a, Counting b) { return a.value < b.value; }
  friend bool operator>(Counting a, Counting b) { return a.value > b.value; }
  friend Counting operator+(Counting a, Counting b) { return ++tally.additions, Counting(a.value + b.value); }
  friend Counting operator-(Counting a, Counting b) { return ++tally.additions, Counting(a.value - b.value); }
  friend Counting operator*(Counting a, Counting b) { return ++tally.multiplications, Counting(a.value * b.value); }
  friend Counting operator/(Counting a, Counting b) { return ++tally.functions, Counting(a.value / b.value); }
  Counting operator-() const { return Counting(-value); }
  Counting& operator+=(Counting other) { return *this = *this + other; }
  Counting& operator-=(Counting other) { return *this = *this - other; }
  Counting& operator*=(Counting other) { return *this = *this * other; }

  friend Counting sqrt(Counting x) { return ++tally.functions, Counting(std::sqrt(x.value)); }
  friend Counting exp(Counting x) { return ++tally.functions, Counting(std::exp(x.value)); }
  friend Counting log(Counting x) { return ++tally.functions, Counting(std::log(x.value)); }
  friend Counting sin(Counting x) { return ++tally.functions, Counting(std::sin(x.value)); }
  friend Counting cos(Counting x) { return ++tally.functions, Counting(std::cos(x.value)); }
  friend Counting tanh(Counting x) { return ++tally.functions, Counting(std::tanh(x.value)); }

  // The library counts these as one function each.
  friend Counting softmax_exponential(Counting score, Counting highest, Counting scale) {
    return ++tally.functions, Counting(std::exp(scale.value * (score.value - highest.value)));
  }
  friend Counting shifted_exponential(Counting x, Counting shift) {
    return ++tally.functions, Counting(std::exp(x.value - shift.value));
  }
  friend Counting logistic(Counting x) { return ++tally.functions, Counting(1 / (1 + std::exp(-x.value))); }
};

}  // namespace coyote::test

namespace coyote::inline v0 {
template <>
inline constexpr bool is_real<test::Counting> = true;
}  // namespace coyote::inline v0

namespace coyote::test {

/// The cost of one sequence as counted: a forward pass in inference on Reference, parameters of the layer, its decoding state.
/// @param tokens  one per row
template <class M>
Cost counted(Index width, std::span<const Token> tokens, const typename M::Options& options = {}) {
  const auto length = static_cast<Index>(tokens.size());
  Layer<M, Reference, Counting> layer({width, length}, options, Path("counted"));
  ParameterStore<Counting> store;
  store.bind(layer);
  initialise(layer, Seed{1});
  Matrix<Counting> u(length, width), y(length, layer.output_width());
  for (Index i = 0; i < u.size(); ++i) u.data()[i] = Counting(std::sin(static_cast<double>(i + 1)));
  Context<Reference> context;
  typename Layer<M, Reference, Counting>::Saved saved;
  tally = {};
  layer.forward(context, {.sequences = 1, .length = length, .tokens = tokens}, u, y, saved);
  Cost cost{.parameters = count_parameters(layer),
            .multiplications = tally.multiplications,
            .additions = tally.additions,
            .functions = tally.functions};
  if constexpr (M::is_causal) {
    const StateSize size = layer.make_state({.sequences = 1, .capacity = length}).size();
    cost.state_scalars = size.scalars;
    cost.state_integers = size.integers;
  }
  return cost;
}

}  // namespace coyote::test

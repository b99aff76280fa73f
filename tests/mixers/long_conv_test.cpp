// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/long_conv.hpp"

#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/counted.hpp"
#include "support/taps.hpp"
#include "support/weights.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// sum_{t <= i} taps[t] u[i-t] + bias, or over the whole ring of n rows.
template <class S>
constexpr Matrix<S> equation(const Weights<S>& weights, bool cyclic, bool has_bias, const Matrix<S>& u) {
  const Matrix<S>& taps = weights("filter.taps");
  const Index n = u.rows();
  Matrix<S> y(n, u.width());
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < u.width(); ++c) {
      for (Index t = 0; t < n; ++t) {
        if (cyclic || t <= i) y(i, c) += taps(t, c) * u((i - t + n) % n, c);
      }
      if (has_bias) {
        const Matrix<S>& bias = weights("bias");
        y(i, c) += bias(bias.rows() == 1 ? 0 : i, c);
      }
    }
  }
  return y;
}

template <class Ends, class Bias>
constexpr bool exact(Index d, Index length, Index n) {
  using M = LongConv<FreeFilter, Ends, Bias>;
  constexpr bool cyclic = std::same_as<Ends, Cyclic>, biased = !std::same_as<Bias, NoBias>;
  auto model = Model<M, Reference, long>::blank({d, length});
  const auto weights = Weights<long>::integers(model);
  Matrix<long> u(n, d), y(n, d), other(n, d);
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < d; ++c) other(i, c) = u(i, c) = small_integer(i, c, 0);
  }
  other(0, 0) += 1;
  Context<Reference> context;
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  bool equal = same(y, equation(weights, cyclic, biased, u)) && !same(y, equation(weights, cyclic, biased, other));
  if constexpr (!cyclic) {
    auto state = model.make_state({.sequences = 1, .capacity = n});
    Matrix<long> stepped(n, d);
    for (Index i = 0; i < n; ++i) {
      model.step(context, state, {.position = i}, std::as_const(u).view().slice(i, 1), stepped.view().slice(i, 1));
    }
    equal = equal && same(stepped, y);
  }
  return equal;
}
static_assert(exact<Causal, ChannelBias>(2, 4, 3) && exact<Cyclic, NoBias>(2, 4, 4) && exact<Causal, PositionBias>(1, 3, 2));

template <class M, class S>
void agrees_with_reference(Index length) {
  const Index d = 5;
  Model<M, Cpu, S> fast({d, length}, Seed{1});
  Model<M, Reference, double> plain({d, length}, Seed{1});
  const Matrix<double> u = random_matrix<double>(length, d, 3);
  Matrix<S> rounded(length, d), y(length, d);
  for (Index i = 0; i < u.size(); ++i) rounded.data()[i] = static_cast<S>(u.data()[i]);
  Matrix<double> expected(length, d);
  Context<Cpu> context(2);
  Context<Reference> reference;
  fast.forward(context, Batch{.sequences = 1, .length = length}, rounded, y);
  plain.forward(reference, Batch{.sequences = 1, .length = length}, u, expected);
  CHECK(relative_error(y, expected) <= Tolerance<S>::forward);
  check_controls(expected, Tolerance<S>::forward);
}

}  // namespace

TEST_CASE("long convolutions are their equation, exactly: any length, every bias, causal and cyclic") {
  for (const Index n : {1, 2, 5, 8}) {
    CHECK(exact<Causal, NoBias>(3, 8, n));
    CHECK(exact<Causal, ChannelBias>(3, 8, n));
    CHECK(exact<Causal, PositionBias>(3, 8, n));
    CHECK(exact<Cyclic, NoBias>(3, 8, n));
    CHECK(exact<Cyclic, ChannelBias>(3, 8, n));
  }
}

TEST_CASE_TEMPLATE("Cpu agrees with the loops", S, float, double) {
  for (const Index length : {1, 2, 31, 64, 127, 600}) {
    agrees_with_reference<LongConv<>, S>(length);
    agrees_with_reference<LongConv<FreeFilter, Cyclic>, S>(length);
  }
}

TEST_CASE("long convolutions do what a mixer owes") {
  conforms<LongConv<>, Reference, double>({.width = 3});
  conforms<LongConv<>, Cpu, float>({.width = 17, .lengths = {33, 1, 17, 64}});
  conforms<LongConv<FreeFilter, Causal, PositionBias>, Cpu, double>({.width = 3});
  conforms<LongConv<FreeFilter, Cyclic>, Cpu, double>({.width = 3});
}

TEST_CASE("sequences and states longer than the layer are refused") {
  Model<LongConv<>, Cpu, float> model({3, 4}, Seed{1});
  Context<Cpu> context(1);
  Matrix<float> u(5, 3), y(5, 3);
  CHECK_THROWS_WITH_AS((Model<LongConv<>, Cpu, float>({3, 4}, Seed{1}, {}, Path("mix"))
                            .forward(context, Batch{.sequences = 1, .length = 5}, u, y)),
                       "mix: required sequences of at most 4 rows, came 5", Error);
  CHECK_THROWS_AS(model.make_state({.sequences = 1, .capacity = 5}), Error);
  auto state = model.make_state({.sequences = 1, .capacity = 2});
  Matrix<float> row(1, 3), out(1, 3);
  model.step(context, state, {.position = 1}, row, out);
  CHECK_THROWS_AS(model.step(context, state, {.position = 2}, row, out), Error);
}

TEST_CASE("facts and cost: the theory's table, and what is counted") {
  static_assert(degree<LongConv<>> == 1 && is_causal<LongConv<>> && !is_causal<LongConv<FreeFilter, Cyclic>>);
  static_assert(!state_is_bounded<LongConv<>> && !is_input_dependent<LongConv<>>);
  constexpr Index n = 9, d = 4, t = n * (n + 1) / 2;
  using M = LongConv<FreeFilter, Causal, NoBias>;
  constexpr Cost expected{.parameters = n * d, .multiplications = d * t, .additions = d * (t - n), .state_scalars = n * d};
  static_assert(cost<M>(d, n) == expected);
  static_assert(cost<LongConv<>>(d, n) == expected + Cost{.parameters = d, .additions = n * d});
  Model<M, Reference, Counted> model({d, n}, Seed{1});
  Context<Reference> context;
  Matrix<Counted> u(n, d), y(n, d);
  Counted::done = {};
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  CHECK(Counted::done.multiplications == expected.multiplications);
  CHECK(Counted::done.additions == expected.additions);
}

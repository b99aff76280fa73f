// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/architectures/linear_attention.hpp"

#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/counted.hpp"
#include "support/taps.hpp"
#include "support/weights.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// o_i = sum_{j<=i} gain_g decay_g^(i-j) <q_i, k_j> v_j per head, all pairs of rows; y = o W_o + b_o.
template <class S>
constexpr Matrix<S> equation(const Weights<S>& weights, const Matrix<S>& gain, const Matrix<S>& decay, Index e,
                             const Matrix<S>& u) {
  const Index n = u.rows(), d = u.width();
  const Matrix<S> q = weights.linear("0.left", u), k = weights.linear("0.right.0.left", u),
                  v = weights.linear("0.right.0.right", u);
  Matrix<S> o(n, d);
  for (Index g = 0; g < d / e; ++g) {
    for (Index i = 0; i < n; ++i) {
      S age = gain(0, g);
      for (Index j = i; j >= 0; --j) {
        S score = S();
        for (Index a = g * e; a < (g + 1) * e; ++a) score += q(i, a) * k(j, a);
        for (Index b = g * e; b < (g + 1) * e; ++b) o(i, b) += age * score * v(j, b);
        age = age * decay(0, g);
      }
    }
  }
  return weights.linear("1", o);
}

template <class S>
constexpr Matrix<S> ones(Index heads) {
  Matrix<S> row(1, heads);
  for (S& x : row) x = static_cast<S>(1);
  return row;
}

template <class M, class S>
constexpr Matrix<S> expected(const Weights<S>& weights, Index e, const Matrix<S>& u) {
  if constexpr (std::same_as<M, Retention<1>> || std::same_as<M, Retention<2>> || std::same_as<M, Retention<3>>) {
    return equation(weights, weights("0.right.1.filter.gain"), weights("0.right.1.filter.decay"), e, u);
  } else {
    const Matrix<S> one = ones<S>(u.width() / e);
    return equation(weights, one, one, e, u);
  }
}

/// Forward and step agree with the equation, in integers; that of another decay is another one.
template <class M>
constexpr bool exact(Index e, Index d, Index n) {
  auto model = Model<M, Reference, long>::blank({d, n});
  const auto weights = Weights<long>::integers(model);
  Matrix<long> u(n, d), y(n, d), stepped(n, d);
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < d; ++c) u(i, c) = small_integer(i, c, 0);
  }
  Context<Reference> context;
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  auto state = model.make_state({.sequences = 1, .capacity = n});
  for (Index i = 0; i < n; ++i) {
    model.step(context, state, {.position = i}, std::as_const(u).view().slice(i, 1), stepped.view().slice(i, 1));
  }
  Matrix<long> other = ones<long>(d / e);
  for (long& x : other) x = 5;
  const Matrix<long> right = expected<M>(weights, e, u);
  return same(y, right) && same(stepped, right) && !same(y, equation(weights, other, other, e, u)) &&
         state.size().scalars == d * e;
}
static_assert(exact<LinearAttention<2>>(2, 4, 3) && exact<Retention<2>>(2, 2, 4));

}  // namespace

TEST_CASE("linear attention and retention are their equation over all pairs, exactly") {
  CHECK(exact<LinearAttention<1>>(1, 3, 7));
  CHECK(exact<LinearAttention<2>>(2, 6, 8));
  CHECK(exact<LinearAttention<3>>(3, 3, 9));
  CHECK(exact<Retention<1>>(1, 3, 7));
  CHECK(exact<Retention<2>>(2, 6, 8));
  CHECK(exact<Retention<3>>(3, 6, 1));
}

TEST_CASE_TEMPLATE("and with real weights on both backends", Backend, Reference, Cpu) {
  const Index n = 97, d = 6;
  Model<Retention<2>, Backend, double> model({d, n}, Seed{1});
  const Weights<double> weights(model);
  const Matrix<double> u = random_matrix<double>(n, d, 5, 10);
  Matrix<double> y(n, d);
  Context<Backend> context = make_context<Backend>();
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  const Matrix<double> right = expected<Retention<2>>(weights, 2, u);
  CHECK(relative_error(y, right) <= 1e-11);
  check_controls(right, 1e-11);
}

TEST_CASE("both do what a mixer owes") {
  conforms<LinearAttention<2>, Cpu, double>({.width = 4, .lengths = {4, 1, 5}});
  conforms<LinearAttention<1>, Cpu, float>({.width = 3});
  conforms<Retention<2>, Cpu, double>({.width = 4, .lengths = {4, 1, 5}});
  CHECK_THROWS_AS((Model<LinearAttention<2>, Cpu, float>({5, 4})), Error);
}

TEST_CASE("a filter of ones is a running sum") {
  TapsBench<SumFilter, Cpu, float> bench(3, 5);
  for (const float tap : bench.taps(5)) CHECK(tap == 1);
  conforms<LongConv<SumFilter>, Cpu, double>({.width = 2});
}

TEST_CASE("facts, and the cost that decoding counts") {
  static_assert(degree<LinearAttention<4>> == 3 && degree<Retention<1>> == 3);
  static_assert(is_causal<LinearAttention<4>> && !is_input_dependent<LinearAttention<4>> && state_is_bounded<Retention<2>>);
  constexpr Index n = 9, d = 6, e = 2, lin = n * d * d;
  constexpr Cost sums{.parameters = 4 * d * d + 4 * d,
                      .multiplications = 4 * lin + 2 * n * d * e,
                      .additions = 4 * lin + n * d * (2 * e - 1),
                      .state_scalars = d * e};
  static_assert(cost<LinearAttention<e>>(d, n) == sums);
  static_assert(cost<Retention<e>>(d, n).parameters == sums.parameters + 2 * d / e);
  static_assert(cost<Retention<e>>(d, n).multiplications == sums.multiplications + 2 * n * d * e);
  static_assert(cost<Retention<e>>(d, n).state_scalars == d * e);

  Model<LinearAttention<e>, Reference, Counted> model({d, n}, Seed{1});
  auto state = model.make_state({.sequences = 1, .capacity = n});
  Context<Reference> context;
  Matrix<Counted> u(1, d), y(1, d);
  Counted::done = {};
  for (Index i = 0; i < n; ++i) model.step(context, state, {.position = i}, u, y);
  CHECK(Counted::done.multiplications == sums.multiplications);
  CHECK(Counted::done.additions == sums.additions);
  CHECK(state.size().scalars == sums.state_scalars);
}

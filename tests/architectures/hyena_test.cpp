// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/architectures/hyena.hpp"

#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/counted.hpp"
#include "support/taps.hpp"
#include "support/weights.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

template <class S>
constexpr Matrix<S> times(Matrix<S> a, const Matrix<S>& b) {
  for (Index i = 0; i < a.size(); ++i) a.data()[i] = a.data()[i] * b.data()[i];
  return a;
}

/// z^1 = v, z^{n+1} = x^n * (h^n conv z^n), y = z^{k+1} W_o + b_o; the outermost x and h are named 0.left and 0.right.1.
template <class S>
constexpr Matrix<S> paper(const Weights<S>& weights, int order, const Matrix<S>& u) {
  Path places[8];
  places[0] = Path("0");
  for (int n = 1; n <= order; ++n) places[n] = places[n - 1] / "right" / Index{0};
  Matrix<S> z = weights.linear(places[order], u);
  for (int n = 1; n <= order; ++n) {
    const Path& here = places[order - n];
    z = times(weights.linear(here / "left", u), convolved(weights(here / "right" / Index{1} / "filter.taps"), z));
  }
  return weights.linear("1", z);
}

/// A projection, then three taps per channel with a bias.
template <class S>
constexpr Matrix<S> projection(const Weights<S>& weights, const Path& place, const Matrix<S>& u) {
  Matrix<S> y = convolved(weights(place / Index{1} / "taps"), weights.linear(place / Index{0}, u));
  const Matrix<S>& bias = weights(place / Index{1} / "bias");
  for (Index i = 0; i < y.rows(); ++i) {
    for (Index c = 0; c < y.width(); ++c) y(i, c) += bias(0, c);
  }
  return y;
}

/// z^1 = x^1 * v, z^{n+1} = x^{n+1} * (h^n conv z^n + D^n z^n), y = z^k W_o + b_o
template <class S>
constexpr Matrix<S> coded(const Weights<S>& weights, int order, const Matrix<S>& u) {
  Path places[8];
  places[0] = Path("0");
  for (int n = 1; n < order; ++n) places[n] = places[n - 1] / "right" / Index{0};
  const Path& innermost = places[order - 1];
  Matrix<S> z = times(projection(weights, innermost / "left", u), projection(weights, innermost / "right", u));
  for (int n = 1; n < order; ++n) {
    const Path &here = places[order - 1 - n], filter = here / "right" / Index{1} / "filter";
    Matrix<S> mixed = convolved(weights(filter / "taps"), z);
    const Matrix<S>& skip = weights(filter / "skip");
    for (Index i = 0; i < mixed.rows(); ++i) {
      for (Index c = 0; c < mixed.width(); ++c) mixed(i, c) += skip(0, c) * z(i, c);
    }
    z = times(projection(weights, here / "left", u), mixed);
  }
  return weights.linear("1", z);
}

/// Forward and step agree with the equation, in integers; the other form's equation is another one.
template <class M, class Equation>
constexpr bool exact(Equation equation, Index d, Index n) {
  auto model = Model<M, Reference, long>::blank({d, n});
  const auto weights = Weights<long>::integers(model);
  Matrix<long> u(n, d), y(n, d), stepped(n, d), other(n, d);
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < d; ++c) other(i, c) = u(i, c) = small_integer(i, c, 0);
  }
  other(0, 0) += 1;
  Context<Reference> context;
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  auto state = model.make_state({.sequences = 1, .capacity = n});
  for (Index i = 0; i < n; ++i) {
    model.step(context, state, {.position = i}, std::as_const(u).view().slice(i, 1), stepped.view().slice(i, 1));
  }
  const Matrix<long> expected = equation(weights, u);
  return same(y, expected) && same(stepped, expected) && !same(y, equation(weights, other));
}
template <int Order>
constexpr bool paper_exact(Index d, Index n) {
  return exact<Hyena<Order, FreeFilter>>([](const auto& weights, const auto& u) { return paper(weights, Order, u); }, d, n);
}
template <int Order>
constexpr bool coded_exact(Index d, Index n) {
  return exact<HyenaPublic<Order, FreeFilter>>([](const auto& weights, const auto& u) { return coded(weights, Order, u); }, d, n);
}
static_assert(paper_exact<1>(1, 3) && paper_exact<2>(2, 3) && coded_exact<2>(2, 3));

}  // namespace

TEST_CASE("both forms are their equations, exactly") {
  CHECK(paper_exact<1>(3, 8));
  CHECK(paper_exact<2>(4, 9));
  CHECK(paper_exact<3>(2, 5));
  CHECK(paper_exact<2>(3, 1));
  CHECK(coded_exact<1>(3, 8));
  CHECK(coded_exact<2>(4, 9));
  CHECK(coded_exact<3>(2, 5));
  CHECK(coded_exact<2>(3, 1));
}

TEST_CASE("with a first filter of one tap, skips and no short convolution the paper's form is the coded one") {
  // The theory's remark: x^0 * (h * (x^1 v)) is the paper's order 2 with h^1 = 1 at lag 0 and the skip on tap 0 of h^2.
  const Index d = 3, n = 7;
  Model<HyenaPublic<2, FreeFilter>, Reference, double> code({d, n}, Seed{1});
  Model<Hyena<2, FreeFilter>, Reference, double> paper_form({d, n}, Seed{2});
  auto plain = [](const Path& path, auto& p) {
    const bool taps = path.view().ends_with("1.taps"), bias = path.view().ends_with("1.bias");
    for (Index c = 0; c < p.columns && path.view() != "1.bias"; ++c) {
      if (taps) p.value(0, c) = 1, p.value(1, c) = p.value(2, c) = 0;
      if (bias) p.value(0, c) = 0;
    }
  };
  code.visit(plain);
  const Weights<double> from(code);
  const auto copy_to = [&](std::string_view to, std::string_view name) {
    const Rows<double> value = value_of<double>(paper_form, to);
    for (Index i = 0; i < value.rows; ++i) {
      for (Index c = 0; c < value.width; ++c) value(i, c) = from(name)(i, c);
    }
  };
  copy_to("0.left.weight", "0.left.0.weight");
  copy_to("0.right.0.left.weight", "0.right.0.left.0.weight");
  copy_to("0.right.0.right.0.weight", "0.right.0.right.0.weight");
  copy_to("0.right.1.filter.taps", "0.right.1.filter.taps");
  copy_to("1.weight", "1.weight");
  for (Index c = 0; c < d; ++c) {
    value_of<double>(paper_form, "0.right.1.filter.taps")(0, c) += from("0.right.1.filter.skip")(0, c);
    for (Index t = 0; t < n; ++t) value_of<double>(paper_form, "0.right.0.right.1.filter.taps")(t, c) = t == 0 ? 1 : 0;
  }
  const Matrix<double> u = random_matrix<double>(n, d, 4, 20);
  Matrix<double> a(n, d), b(n, d);
  Context<Reference> context;
  code.forward(context, Batch{.sequences = 1, .length = n}, u, a);
  paper_form.forward(context, Batch{.sequences = 1, .length = n}, u, b);
  CHECK(relative_error(a, b) <= 1e-12);
  check_controls(b, 1e-12);
}

TEST_CASE("both forms do what a mixer owes") {
  using Filter = ImplicitFilterWith<Sine, DecayWindow, FixedPositions, NoBias>;
  conforms<Hyena<2, FreeFilter>, Cpu, double>({.width = 3, .lengths = {4, 1, 5}});
  conforms<HyenaPublic<2, FreeFilter>, Cpu, double>({.width = 3, .lengths = {4, 1, 5}});
  conforms<HyenaPublic<2, Filter>, Cpu, float>({.width = 5});
}

TEST_CASE("facts and cost: the paper's form by the theory's table, the coded one by what it adds") {
  static_assert(degree<Hyena<1>> == 2 && degree<Hyena<2>> == 3 && degree<Hyena<4>> == 5);
  static_assert(degree<HyenaPublic<1>> == 2 && degree<HyenaPublic<2>> == 3);
  static_assert(is_causal<HyenaPublic<2>> && !is_input_dependent<HyenaPublic<2>> && !state_is_bounded<Hyena<2>>);
  constexpr Index n = 9, d = 6, k = 2, lin = n * d * d, t = n * (n + 1) / 2, taps = 3;
  constexpr Cost expected{.parameters = (k + 2) * (d * d + d) + k * n * d,
                          .multiplications = (k + 2) * lin + k * (d * t + n * d),
                          .additions = (k + 2) * lin + k * d * (t - n),
                          .state_scalars = k * n * d};
  static_assert(cost<Hyena<k, FreeFilter>>(d, n) == expected);
  // As coded: one long convolution less, k + 1 short convolutions with bias, k - 1 skips.
  constexpr Index small = d * (taps * n - taps * (taps - 1) / 2);
  static_assert(cost<HyenaPublic<k, FreeFilter>>(d, n) ==
                Cost{.parameters = (k + 2) * (d * d + d) + (k - 1) * (n * d + d) + (k + 1) * (taps + 1) * d,
                     .multiplications = (k + 2) * lin + k * n * d + (k - 1) * (d * t + n * d) + (k + 1) * small,
                     .additions = (k + 2) * lin + (k - 1) * (d * (t - n) + n * d) + (k + 1) * small,
                     .state_scalars = (k - 1) * n * d + (taps - 1) * (k + 1) * d});

  Model<Hyena<k, FreeFilter>, Reference, Counted> model({d, n}, Seed{1});
  Context<Reference> context;
  Matrix<Counted> u(n, d), y(n, d);
  Counted::done = {};
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  CHECK(Counted::done.multiplications == expected.multiplications);
  CHECK(Counted::done.additions == expected.additions);
}

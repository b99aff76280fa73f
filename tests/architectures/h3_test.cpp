// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/architectures/h3.hpp"

#include <complex>

#include "coyote/filters/decay.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/decoding.hpp"
#include "support/taps.hpp"
#include "support/weights.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// H3 as published, given the taps of its filters without skips: `shift` [L, d], one column per channel, and `diagonal`
/// [L, H], one per head.
template <class S>
constexpr Matrix<S> equation(const Weights<S>& weights, const Matrix<S>& shift, const Matrix<S>& diagonal, Index e,
                             const Matrix<S>& u) {
  const Index n = u.rows(), d = u.width(), heads = d / e;
  const Matrix<S> q = weights.linear("0.left", u), k = weights.linear("0.right.0.left.0", u),
                  v = weights.linear("0.right.0.right", u);
  const Matrix<S>&dk = weights("0.right.0.left.1.filter.skip"), &dg = weights("0.right.1.filter.skip");
  Matrix<S> kbar = convolved(shift, k), o(n, d);
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < d; ++c) kbar(i, c) += dk(0, c) * k(i, c);
  }
  for (Index g = 0; g < heads; ++g) {
    for (Index a = 0; a < e; ++a) {
      for (Index b = 0; b < e; ++b) {
        for (Index i = 0; i < n; ++i) {
          S z = dg(0, g) * (kbar(i, g * e + a) * v(i, g * e + b));
          for (Index t = 0; t <= i && t < diagonal.rows(); ++t) {
            z += diagonal(t, g) * (kbar(i - t, g * e + a) * v(i - t, g * e + b));
          }
          o(i, g * e + b) += q(i, g * e + a) * z;
        }
      }
    }
  }
  return weights.linear("1", o);
}

/// sum_s c_s a_s^t b_s
template <class S>
constexpr Matrix<S> diagonal_taps(const Weights<S>& weights, Index n) {
  const Matrix<S>&a = weights("0.right.1.filter.decay"), &b = weights("0.right.1.filter.input"),
        &c = weights("0.right.1.filter.output");
  Matrix<S> taps(n, a.width());
  for (Index g = 0; g < a.width(); ++g) {
    for (Index s = 0; s < a.rows(); ++s) {
      S power = c(s, g) * b(s, g);
      for (Index t = 0; t < n; ++t) {
        taps(t, g) += power;
        power = power * a(s, g);
      }
    }
  }
  return taps;
}

template <Index E>
using Recurrent = H3<FirFilter, DiagonalFilter, E>;

template <Index E>
constexpr typename Recurrent<E>::Options recurrent(Index taps, Index modes) {
  typename Recurrent<E>::Options options;
  h3_shift(options).count = taps;
  h3_diagonal(options).modes = modes;
  return options;
}

/// Forward and step agree with the equation, in integers; a wrong weight does not.
template <Index E>
constexpr bool exact(Index d, Index n, Index taps, Index modes) {
  auto model = Model<Recurrent<E>, Reference, long>::blank({d, n}, recurrent<E>(taps, modes));
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
  const Matrix<long>& shift = weights("0.right.0.left.1.filter.taps");
  Matrix<long> wrong = shift;
  wrong(0, 0) += 1;
  const Matrix<long> diagonal = diagonal_taps(weights, n);
  const Matrix<long> expected = equation(weights, shift, diagonal, E, u);
  return same(y, expected) && same(stepped, expected) && !same(y, equation(weights, wrong, diagonal, E, u)) &&
         state.size().scalars == (taps - 1) * d + d * E * modes;
}
static_assert(exact<2>(2, 4, 2, 2) && exact<1>(2, 3, 1, 1));

}  // namespace

TEST_CASE("H3 with real modes is its equation, exactly") {
  CHECK(exact<2>(4, 9, 3, 2));
  CHECK(exact<1>(3, 8, 4, 2));
  CHECK(exact<4>(8, 5, 9, 1));
  CHECK(exact<2>(6, 1, 2, 2));
}

TEST_CASE_TEMPLATE("the public H3 is its equation, with two filters' published taps", Backend, Reference, Cpu) {
  using Number = std::complex<double>;
  for (const Index n : {1, 2, 8, 13}) {
    const Index d = 6, heads = 3;
    Bench<H3Public, Backend, double> bench({d, n}, {});
    const Weights<double> weights(bench.layer);
    const Matrix<double>&b = weights("test.0.right.0.left.1.filter.input"), &c = weights("test.0.right.0.left.1.filter.output");
    CHECK(b.rows() == n);
    Matrix<double> shift(n, d), diagonal(n, heads);
    for (Index t = 0; t < n; ++t) {
      for (Index k = 0; k < d; ++k) {
        for (Index m = 0; m + t < n; ++m) shift(t, k) += b(m, k) * c(m + t, k);
      }
    }
    const std::string filter = "test.0.right.1.filter.";
    const Matrix<double>&decay = weights(filter + "log_decay"), &frequency = weights(filter + "frequency"),
          &in = weights(filter + "input"), &out = weights(filter + "output"), &step = weights(filter + "log_step");
    CHECK(decay.rows() == std::max<Index>(1, n / 2));
    CHECK(step.width() == heads);
    for (Index g = 0; g < heads; ++g) {
      const double dt = std::exp(step(0, g));
      for (Index m = 0; m < decay.rows(); ++m) {
        const Number a(-std::exp(decay(m, g)), frequency(m, g));
        const Number weight = Number(in(2 * m, g), in(2 * m + 1, g)) * Number(out(2 * m, g), out(2 * m + 1, g));
        for (Index t = 0; t < n; ++t) {
          diagonal(t, g) += 2 * (weight * dt / (1.0 - dt * a / 2.0) *
                                 std::pow((1.0 + dt * a / 2.0) / (1.0 - dt * a / 2.0), static_cast<double>(t)))
                                    .real();
        }
      }
    }
    // The same weights without the bench's prefix.
    Model<H3Public, Backend, double> model({d, n}, Seed{1});
    auto take = [&](const Path& path, auto& p) {
      const Matrix<double>& from = weights("test." + std::string(path.view()));
      for (Index i = 0; i < p.rows; ++i) {
        for (Index k = 0; k < p.columns; ++k) p.value(i, k) = from(i, k);
      }
    };
    model.visit(take);
    const Matrix<double> u = random_matrix<double>(n, d, 5);
    Matrix<double> y(n, d);
    Context<Backend> context = make_context<Backend>();
    model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
    const Matrix<double> expected = equation(Weights<double>(model), shift, diagonal, 2, u);
    CHECK(relative_error(y, expected) <= 1e-11);
    check_controls(expected, 1e-11);
    diagonal(0, 0) += 0.01;
    CHECK_FALSE(relative_error(y, equation(Weights<double>(model), shift, diagonal, 2, u)) <= 1e-11);
  }
}

TEST_CASE("H3 does what a mixer owes") {
  conforms<H3Public, Cpu, double>({.width = 4, .lengths = {4, 1, 5}});
  conforms<Recurrent<1>, Cpu, float>({.width = 5});
  CHECK_THROWS_AS((Model<Recurrent<2>, Cpu, float>({5, 4})), Error);
}

TEST_CASE("facts and cost: those of the recurrent H3, and what decoding counts") {
  static_assert(degree<Recurrent<2>> == 3 && degree<H3Public> == 3);
  static_assert(is_causal<H3Public> && !is_input_dependent<H3Public>);
  static_assert(state_is_bounded<Recurrent<2>> && !state_is_bounded<H3Public>);
  constexpr Index n = 9, d = 6, e = 2, h = d / e, m = 3, modes = 2;
  constexpr Index lin = n * d * d, taps = m * n - m * (m - 1) / 2;
  constexpr Cost expected{.parameters = 4 * d * d + 4 * d + m * d + d + 3 * modes * h + h,
                          .multiplications = 4 * lin + d * taps + n * d + n * d * e * (3 + 3 * modes),
                          .additions = 4 * lin + d * (taps - n) + n * d + 2 * n * d * e * modes + n * d * (e - 1),
                          .state_scalars = (m - 1) * d + d * e * modes};
  static_assert(cost<Recurrent<e>>(d, n, -1, recurrent<e>(m, modes)) == expected);
  // The public form trains the shift's input vector too and has complex modes, half the length, that count twice.
  static_assert(cost<H3Public>(d, n).parameters == 4 * d * d + 4 * d + 2 * n * d + d + (6 * (n / 2) + 1) * h + h);
  static_assert(cost<H3Public>(d, n).state_scalars == (n - 1) * d + d * e * 2 * (n / 2));

  const Cost counted = count_decoding<Recurrent<e>>(d, n, recurrent<e>(m, modes));
  CHECK(counted.multiplications == expected.multiplications);
  CHECK(counted.additions == expected.additions);
  CHECK(counted.state_scalars == expected.state_scalars);
}

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/attention.hpp"

#include <limits>

#include "coyote/operations/cpu/attention.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

template <class Pattern, Index H = 1, class Positions = NoPositions>
using Attend = Attention<Heads<H>, Pattern, Positions>;

/// The keys of a row, told a second time and the slow way.
std::vector<Index> keys(Dense, std::span<const Token>, Index i) {
  std::vector<Index> result;
  for (Index j = 0; j <= i; ++j) result.push_back(j);
  return result;
}
template <Index W>
std::vector<Index> keys(Window<W>, std::span<const Token>, Index i) {
  std::vector<Index> result;
  for (Index j = std::max<Index>(0, i - W + 1); j <= i; ++j) result.push_back(j);
  return result;
}
template <Index K>
std::vector<Index> keys(RepeatedBigrams<K>, std::span<const Token> tokens, Index i) {
  std::vector<Index> result;
  for (Index j = i; j >= 1; --j) {
    const bool full = K > 0 && static_cast<Index>(result.size()) == K;
    if (!full && tokens[static_cast<std::size_t>(j - 1)] == tokens[static_cast<std::size_t>(i)]) result.push_back(j);
  }
  return result;
}

/// The mixer's equation as plain loops: projections, rotation by complex numbers, softmax without tricks, projection.
template <class Pattern, Index H, Index Base, class Model>
Matrix<double> equation(Model& layer, const Batch& batch, const Matrix<double>& u) {
  using S = double;
  const Index d = u.width(), width = d / H;
  std::vector<Matrix<double>> weights, biases;
  const char* names[] = {"query", "key", "value", "out"};
  const auto parameters = parameters_of<S>(layer);
  for (const char* name : names) {
    weights.emplace_back(d, d);
    biases.emplace_back(1, d);
    int found = 0;
    for (const auto& p : parameters) {
      const bool weight = p.name == words("test.", name, ".weight"), bias = p.name == words("test.", name, ".bias");
      found += weight || bias ? 1 : 0;
      for (Index i = 0; i < d; ++i) {
        if (bias) biases.back()(0, i) = p.value(0, i);
        for (Index c = 0; weight && c < d; ++c) weights.back()(i, c) = p.value(i, c);
      }
    }
    REQUIRE(found == 2);
  }
  const auto project = [&](std::size_t which, const Matrix<double>& x) {
    Matrix<double> y(x.rows(), d);
    for (Index i = 0; i < x.rows(); ++i) {
      for (Index c = 0; c < d; ++c) {
        y(i, c) = biases[which](0, c);
        for (Index a = 0; a < d; ++a) y(i, c) += x(i, a) * weights[which](a, c);
      }
    }
    return y;
  };
  Matrix<double> q = project(0, u), k = project(1, u), v = project(2, u), mixed(u.rows(), d);
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s);
    for (Index i = 0; Base > 0 && i < batch.size(s); ++i) {
      for (Index h = 0; h < H; ++h) {
        for (Index c = 0; c < width / 2; ++c) {
          const double angle = static_cast<double>(i) /
                               std::pow(static_cast<double>(Base), 2.0 * static_cast<double>(c) / static_cast<double>(width));
          for (Matrix<double>* m : {&q, &k}) {
            double &a = (*m)(first + i, h * width + 2 * c), &b = (*m)(first + i, h * width + 2 * c + 1);
            const double x = a * std::cos(angle) - b * std::sin(angle), y = a * std::sin(angle) + b * std::cos(angle);
            a = x;
            b = y;
          }
        }
      }
    }
    for (Index h = 0; h < H; ++h) {
      for (Index i = 0; i < batch.size(s); ++i) {
        double total = 0;
        for (const Index j : keys(Pattern{}, batch.tokens_of(s), i)) {
          double score = 0;
          for (Index c = h * width; c < (h + 1) * width; ++c) score += q(first + i, c) * k(first + j, c);
          const double e = std::exp(score / std::sqrt(static_cast<double>(width)));
          total += e;
          for (Index c = h * width; c < (h + 1) * width; ++c) mixed(first + i, c) += e * v(first + j, c);
        }
        for (Index c = h * width; total > 0 && c < (h + 1) * width; ++c) mixed(first + i, c) /= total;
      }
    }
  }
  return project(3, mixed);
}

template <class Pattern, Index H, Index Base, class Backend>
void equals_equation(Index width) {
  using M = Attend<Pattern, H, std::conditional_t<Base == 0, NoPositions, Rotary<Base>>>;
  const Packed packed({9, 1, 2, 23, 40}, 4);
  const Batch batch = packed.view();
  Bench<M, Backend, double> bench({width, batch.length}, {});
  const Matrix<double> u = random_matrix<double>(batch.rows(), width, 1);
  const Matrix<double> expected = equation<Pattern, H, Base>(bench.layer, batch, u);
  Matrix<double> y = bench.run(batch, u, u.view(), 1, Mode::inference).y;
  CHECK(relative_error(y, expected) <= 1e-13);
  for (double& x : y) x *= 1 + 1e-11;
  CHECK_FALSE(relative_error(y, expected) <= 1e-13);
}

TEST_CASE("attention equals its equation") {
  equals_equation<Dense, 1, 0, Reference>(5);
  equals_equation<Dense, 3, 100, Reference>(9);  // an odd last channel of a head is not rotated
  equals_equation<Dense, 3, 100, Cpu>(9);
  equals_equation<Window<4>, 2, 0, Cpu>(6);
  equals_equation<RepeatedBigrams<2>, 2, 10, Reference>(8);
  equals_equation<RepeatedBigrams<2>, 2, 10, Cpu>(8);
  equals_equation<RepeatedBigrams<>, 1, 0, Cpu>(3);
}

template <class M, class Backend>
Results<double> run(const Matrix<double>& u, double scale = 1) {
  const Packed packed({u.rows()}, 2);
  Bench<M, Backend, double> bench({u.width(), u.rows()}, {});
  for (double& x : bench.store.values()) x *= scale;
  return bench.run(packed.view(), u, u.view());
}

template <class M, class Backend>
void survives() {
  const Matrix<double> u = random_matrix<double>(30, 4, 1);
  // Scores of the order of 1e8: softmax becomes arg max, and nothing overflows.
  const Results<double> sharp = run<M, Backend>(u, 1e4);
  for (const double x : sharp.y) CHECK(std::isfinite(x));
  for (const double x : sharp.du) CHECK(std::isfinite(x));
  // NaN at row 12 reaches that row (as a key, if the pattern has it among its own) and never an earlier one.
  Matrix<double> bad = u;
  bad(12, 1) = std::numeric_limits<double>::quiet_NaN();
  const Results<double> good = run<M, Backend>(u), r = run<M, Backend>(bad);
  bool reached = false;
  for (Index i = 0; i < 30; ++i) {
    for (Index c = 0; c < 4; ++c) {
      if (i < 12) CHECK(std::abs(r.y(i, c) - good.y(i, c)) <= 1e-13);
      reached = reached || std::isnan(r.y(i, c));
    }
  }
  CHECK(reached);
  // A window forgets it.
  if constexpr (M::state_is_bounded) CHECK(std::abs(r.y(29, 0) - good.y(29, 0)) <= 1e-13);
}

TEST_CASE("huge scores stay finite, and NaN is neither hidden nor carried back in time") {
  survives<Attend<Dense>, Reference>();
  survives<Attend<Dense, 2>, Cpu>();
  survives<Attend<Window<3>, 2>, Cpu>();
  survives<Attend<RepeatedBigrams<3>>, Cpu>();
  survives<Attend<RepeatedTokens>, Reference>();
}

TEST_CASE("dropout on probabilities: named draws, gradients of the same mask, none in inference") {
  using M = Attend<Dense, 2>;
  const Packed packed({12, 5}, 3);
  const Batch batch = packed.view();
  const Matrix<double> u = random_matrix<double>(17, 6, 1), w = random_matrix<double>(17, 6, 2);
  Bench<M, Reference, double> plain({6, 12}, {.dropout = 0.4});
  Bench<M, Cpu, double> fast({6, 12}, {.dropout = 0.4});
  Bench<M, Cpu, double> without({6, 12}, {});
  const Results<double> expected = plain.run(batch, u, w.view()), r = fast.run(batch, u, w.view(), 2);
  CHECK(relative_error(r.y, expected.y) <= 1e-12);
  CHECK(relative_error(r.du, expected.du) <= 1e-12);
  CHECK(relative_error(r.gradients, expected.gradients) <= 1e-12);
  CHECK_FALSE(relative_error(without.run(batch, u, w.view()).y, expected.y) <= 0.01);
  CHECK(relative_error(fast.run(batch, u, w.view(), 1, Mode::inference).y, without.run(batch, u, w.view()).y) <= 1e-12);
  // The gradient is that of the drawn mask: finite differences of the training forward.
  const double h = 1e-5;
  Matrix<double> moved = u, numeric(17, 6);
  for (Index i = 0; i < u.size(); ++i) {
    double f[2] = {0, 0};
    for (int side = 0; side < 2; ++side) {
      moved.data()[i] = u.data()[i] + (side == 0 ? h : -h);
      const Results<double> at = fast.run(batch, moved, w.view());
      for (Index n = 0; n < w.size(); ++n) f[side] += at.y.data()[n] * w.data()[n];
    }
    moved.data()[i] = u.data()[i];
    numeric.data()[i] = (f[0] - f[1]) / (2 * h);
  }
  CHECK(relative_error(r.du, numeric) <= 2e-6);
}

TEST_CASE("what does not fit is refused by name") {
  CHECK_THROWS_WITH_AS((Layer<Attend<Dense, 3>, Cpu, float>({4, 4}, {}, "a")),
                       "a: required a width that its 3 heads divide, came 4", Error);
  CHECK_THROWS_WITH_AS((Layer<Attend<Dense>, Cpu, float>({4, 4}, {.dropout = 1}, "a")),
                       "a: required a dropout rate in [0, 1), came 1.000000", Error);
  Bench<Attend<RepeatedBigrams<>>, Cpu, double> bench({4, 8}, {});
  Context<Cpu> context(1);
  const Matrix<double> u = random_matrix<double>(3, 4, 1);
  Matrix<double> y(3, 4);
  Layer<Attend<RepeatedBigrams<>>, Cpu, double>::Saved saved;
  CHECK_THROWS_WITH_AS(bench.forward(context, {.sequences = 1, .length = 3}, u, y, saved),
                       "test: required a batch with tokens, because its pattern looks at them, came none", Error);
  auto state = bench.layer.make_state({.sequences = 3, .capacity = 1});
  CHECK_THROWS_AS(bench.step(context, state, Step{0, {}}, u, y), Error);
  const Token tokens[] = {1, 2, 3};
  bench.step(context, state, Step{0, tokens}, u, y);
  CHECK_THROWS_WITH_AS(bench.step(context, state, Step{1, tokens}, u, y), "test: required sequences of at most 1 rows, came 2",
                       Error);
}

}  // namespace

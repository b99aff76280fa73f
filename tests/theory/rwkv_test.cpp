// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/theory/rwkv.hpp"

#include "coyote/operations/cpu/operations.hpp"
#include "coyote/theory/rational.hpp"
#include "support/conformance.hpp"

using namespace coyote;
using namespace coyote::theory;
using namespace coyote::test;

namespace {

using primitives::Columns;

template <Ring S>
Matrix<S> draw(Index rows, Index width, std::uint64_t name) {
  Matrix<S> x(rows, width);
  const Stream draws(Seed{7}, Purpose::test, name);
  for (Index n = 0; n < x.size(); ++n) x.data()[n] = S(static_cast<long long>(draws.below(static_cast<std::uint64_t>(n), 7)) - 3);
  return x;
}
template <Ring S>
RwkvWeights<S> draw_weights(Index d) {
  std::uint64_t name = 1;
  const auto row = [&] { return draw<S>(1, d, name++); };
  const auto map = [&] { return draw<S>(d, d, name++); };
  return {row(), row(), row(), map(), map(), map(), map(), row(), row()};
}

/// The row mixed with the one before, mapped.
template <Ring S>
Matrix<S> shifted(const Matrix<S>& mix, const Matrix<S>& map, const Matrix<S>& u) {
  Matrix<S> y(u.rows(), map.width());
  for (Index i = 0; i < u.rows(); ++i) {
    for (Index c = 0; c < y.width(); ++c) {
      for (Index a = 0; a < u.width(); ++a) {
        const S before = i > 0 ? u(i - 1, a) : S{};
        y(i, c) += (mix(0, a) * u(i, a) + (S(1) - mix(0, a)) * before) * map(a, c);
      }
    }
  }
  return y;
}
template <Ring S>
Matrix<S> mapped(const Matrix<S>& x, const Matrix<S>& map) {
  Matrix<S> one(1, map.rows());
  for (S& m : one) m = S(1);
  return shifted(one, map, x);
}

/// r * num, num and den by the recurrence num <- decay num + k v, with the current row's term counted by the bonus.
template <Ring S>
struct Core {
  Matrix<S> gated, num, den;
};
template <Ring S>
Core<S> core(const RwkvWeights<S>& w, const Matrix<S>& u) {
  const Index n = u.rows(), d = u.width();
  const Matrix<S> k = shifted(w.mix_k, w.k, u), v = shifted(w.mix_v, w.v, u), r = shifted(w.mix_r, w.r, u);
  Core<S> result{Matrix<S>(n, d), Matrix<S>(n, d), Matrix<S>(n, d)};
  for (Index c = 0; c < d; ++c) {
    S num{}, den{};
    for (Index i = 0; i < n; ++i) {
      result.num(i, c) = num + w.bonus(0, c) * (k(i, c) * v(i, c));
      result.den(i, c) = den + w.bonus(0, c) * k(i, c);
      result.gated(i, c) = r(i, c) * result.num(i, c);
      num = w.decay(0, c) * num + k(i, c) * v(i, c);
      den = w.decay(0, c) * den + k(i, c);
    }
  }
  return result;
}

template <Ring S>
bool equal(const Matrix<S>& a, const Matrix<S>& b, Index first = 0) {
  for (Index i = 0; i < a.rows(); ++i) {
    for (Index c = 0; c < a.width(); ++c) {
      if (!(a(i, c) == b(i, first + c))) return false;
    }
  }
  return true;
}

/// The time mix of a real model in double, from its parameters by name: exponentials and quotient as the paper writes them.
struct Exact {
  Matrix<double> y, scale;  // scale: sum_a |W_o[a, c]| max_j |v_j[a]|, [1, d]
};
template <class S>
Exact exact(Model<Rwkv, Reference, S>& model, const Matrix<S>& u) {
  std::vector<std::pair<std::string, Matrix<double>>> all;
  auto keep = [&](const Path& path, auto& p) {
    Matrix<double> m(p.rows, p.columns);
    for (Index r = 0; r < p.rows; ++r) {
      for (Index c = 0; c < p.columns; ++c) m(r, c) = static_cast<double>(p.value(r, c));
    }
    all.emplace_back(std::string(path.view()), std::move(m));
  };
  model.visit(keep);
  const auto get = [&](std::string_view name) -> const Matrix<double>& {
    for (const auto& [path, m] : all) {
      if (path == name) return m;
    }
    throw Error("exact", "a parameter", std::string(name));
  };
  const Index n = u.rows(), d = u.width();
  Matrix<double> x(n, d);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<double>(u.data()[i]);
  const Matrix<double> k = shifted(get("0.mix.0"), get("1.right.left.1.weight"), x),
                       v = shifted(get("0.mix.1"), get("1.right.right.1.weight"), x),
                       r = shifted(get("0.mix.2"), get("1.left.1.weight"), x);
  Matrix<double> gated(n, d);
  Exact result{{}, Matrix<double>(1, d)};
  for (Index c = 0; c < d; ++c) {
    const double w = std::exp(get("1.right.decay")(0, c)), b = get("1.right.bonus")(0, c);
    double largest = 0;
    for (Index i = 0; i < n; ++i) {
      double above = std::exp(b + k(i, c)) * v(i, c), below = std::exp(b + k(i, c));
      for (Index j = 0; j < i; ++j) {
        const double weight = std::exp(-static_cast<double>(i - 1 - j) * w + k(j, c));
        above += weight * v(j, c);
        below += weight;
      }
      gated(i, c) = above / below / (1 + std::exp(-r(i, c)));
      largest = std::max(largest, std::abs(v(i, c)));
    }
    for (Index o = 0; o < d; ++o) result.scale(0, o) += std::abs(get("2.weight")(c, o)) * largest;
  }
  result.y = mapped(gated, get("2.weight"));
  return result;
}

/// The largest error in units of its bound's scale; NaN stays.
template <class S>
double scaled_error(const Matrix<S>& made, const Exact& wanted) {
  double worst = 0;
  for (Index i = 0; i < made.rows(); ++i) {
    for (Index c = 0; c < made.width(); ++c) {
      const double error = std::abs(static_cast<double>(made(i, c)) - wanted.y(i, c)) / wanted.scale(0, c);
      if (worst == worst && !(error <= worst)) worst = error;
    }
  }
  return worst;
}

/// A model with weights of a trained one's size.
template <class S>
Model<Rwkv, Reference, S> trained(Index d, Index n) {
  Model<Rwkv, Reference, S> model({d, n}, Seed{2}, rwkv_options(3));
  auto widen = [](const Path& path, auto& p) {
    for (Index r = 0; r < p.rows && path.view().ends_with("weight"); ++r) {
      for (Index c = 0; c < p.columns; ++c) p.value(r, c) *= S(3);
    }
  };
  model.visit(widen);
  return model;
}

}  // namespace

TEST_CASE_TEMPLATE("RWKV's polynomial core is 6 layers of width 4 d, 3 d without the denominator", S, Field, long) {
  for (const Index n : {1, 2, 6}) {
    for (const Index d : {1, 3}) {
      const RwkvWeights<S> w = draw_weights<S>(d);
      const Matrix<S> u = draw<S>(n, d, 30);
      const Core<S> sums = core(w, u);
      const Matrix<S> wanted = mapped(sums.gated, w.out);
      const auto with = simulate_rwkv_core(w, n), without = simulate_rwkv_core(w, n, false);
      CHECK(equal(wanted, with.run(u)));
      CHECK(equal(wanted, without.run(u)));
      CHECK(equal(sums.den, with.stack.run(u), 3 * d));
      for (const auto* made : {&with, &without}) {
        const StackSize size = made->stack.size();
        CHECK(size.layers == 6);
        CHECK(size.gate_layers == 2);
        CHECK(size.width == (made == &with ? 4 : 3) * d);
        CHECK(size.length == n);
      }
      RwkvWeights<S> other = w;
      for (S& x : other.bonus) x += S(1);
      CHECK(!equal(mapped(core(other, u).den, w.out), with.stack.run(u), 3 * d));
      other = w;
      other.out(0, 0) += S(1);
      bool some = false;
      for (Index i = 0; i < n; ++i) some = some || !(sums.gated(i, 0) == S{});
      if (some) CHECK(!equal(wanted, simulate_rwkv_core(other, n).run(u)));
    }
  }
  RwkvWeights<S> wrong = draw_weights<S>(2);
  wrong.decay = Matrix<S>(1, 3);
  CHECK_THROWS_AS(simulate_rwkv_core(wrong, 4), Error);
}

TEST_CASE("in a prime field the quotient is exact too, by 31 layers of inversion") {
  const Index n = 5, d = 2;
  RwkvWeights<Field> w = draw_weights<Field>(d);
  w.out = Matrix<Field>(d, d);
  for (Index c = 0; c < d; ++c) w.out(c, c) = 1;
  const auto made = simulate_rwkv_core(w, n);
  Stack<Field> stack = made.stack;
  const Index before = stack.size().layers;
  approximations::inverse(stack, Columns::range(3 * d, d), Columns::range(2 * d, d));
  CHECK(stack.size().layers == before + 31);
  Program<Field> divide;
  for (Index c = 0; c < d; ++c) divide.gate(c, Form<Field>::column(2 * d + c));
  stack.then(divide);
  const Matrix<Field> u = draw<Field>(n, d, 31), y = stack.run(u);
  const Core<Field> sums = core(w, u);
  bool some = false;
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < d; ++c) {
      CHECK(y(i, c) * sums.den(i, c) == (sums.den(i, c) == Field() ? Field() : sums.gated(i, c)));
      some = some || !(y(i, c) == Field());
    }
  }
  CHECK(some);
}

TEST_CASE("exp by squarings: exactly (1 + x / 2^r)^(2^r), whose logarithm is off by x^2 / 2^r at most") {
  for (const Index r : {1, 2, 3}) {  // in fractions, against the product written out
    Stack<Rational> stack(1, 1);
    approximations::exponential(stack, 0, r, Rational(1, 1 << r));
    CHECK(stack.size().layers == r + 1);
    CHECK(stack.size().gate_layers == r);
    for (const Rational x : {Rational(-2), Rational(-1, 3), Rational(0), Rational(1, 2)}) {
      Matrix<Rational> u(1, 1);
      u(0, 0) = x;
      Rational product(1);
      for (Index k = 0; k < Index{1} << r; ++k) product *= Rational(1) + x / Rational(1 << r);
      CHECK(stack.run(u)(0, 0) == product);
    }
    CHECK_THROWS_AS(approximations::exponential(stack, 0, r, Rational(1, 3)), Error);
  }
  for (const Index r : {4, 8, 12, 16}) {
    Stack<double> stack(1, 1);
    approximations::exponential(stack, 0, r, std::ldexp(1.0, -static_cast<int>(r)));
    double worst = 0;
    for (double x = -4; x <= 4; x += 0.125) {
      Matrix<double> u(1, 1);
      u(0, 0) = x;
      const double off = std::abs(std::log(stack.run(u)(0, 0)) - x);
      CHECK(off <= approximations::exponential_error(std::abs(x), r) + 1e-10);
      worst = std::max(worst, off);
    }
    CHECK(worst > 0.4 * approximations::exponential_error(4, r));  // the bound is no waste, and a wrong exponential would show
    CHECK(worst > approximations::exponential_error(4, r + 2));
  }
  CHECK_THROWS_AS(approximations::exponential_error(9, 4), Error);
  CHECK_THROWS_AS(approximations::exponential_error(NAN, 4), Error);
}

TEST_CASE("1/x by doubling: u y = 1 - (1 - u)^(2^steps), exactly") {
  for (Index steps = 0; steps <= 4; ++steps) {
    Stack<Rational> stack(1, 2);
    approximations::reciprocal(stack, 0, 1, steps);
    CHECK(stack.size().layers == steps + 1);
    CHECK(stack.size().gate_layers == steps);
    for (const Rational x : {Rational(1, 3), Rational(7, 5), Rational(3, 2), Rational(1)}) {
      Matrix<Rational> u(1, 1);
      u(0, 0) = x;
      Rational power(1);
      for (Index k = 0; k < Index{1} << steps; ++k) power *= Rational(1) - x;
      const Matrix<Rational> y = stack.run(u);
      CHECK(x * y(0, 1) == Rational(1) - power);
      CHECK(y(0, 0) == power);
      CHECK(!(x * y(0, 1) == Rational(1) - power + Rational(1, 1000)));
    }
  }
  const auto range = approximations::ReciprocalRange::of(0.25, 40);
  for (const double wanted : {1e-2, 1e-6, 1e-12}) {
    const Index steps = range.steps(wanted);
    CHECK(range.error(steps) <= wanted);
    CHECK(range.error(steps - 1) > wanted);
    Stack<double> stack(1, 2);
    approximations::reciprocal(stack, 0, 1, steps);
    for (const double x : {0.25, 1.0, 7.0, 40.0}) {
      Matrix<double> u(1, 1);
      u(0, 0) = x * range.scale;
      CHECK(std::abs(x * range.scale * stack.run(u)(0, 1) - 1) <= wanted * 1.0001 + 1e-13);
    }
  }
  CHECK_THROWS_AS(approximations::ReciprocalRange::of(0, 1), Error);
  CHECK_THROWS_AS(approximations::ReciprocalRange::of(2, 1), Error);
}

TEST_CASE_TEMPLATE("an RWKV-4 time mix as a stack: within the bound that it states", S, float, double) {
  for (const Index n : {1, 2, 24}) {
    const Index d = 4;
    auto model = trained<S>(d, 24);
    const Matrix<S> u = random_matrix<S>(n, d, 4);
    const Exact wanted = exact(model, u);
    Matrix<S> y(n, d);
    Context<Reference> context;
    model.forward(context, {.sequences = 1, .length = n}, u, y);
    CHECK(scaled_error(y, wanted) <= (std::same_as<S, float> ? 1e-5 : 1e-12));  // the oracle is the model
    RwkvApproximation range = rwkv_range(rwkv_weights(model), u);
    CHECK(range.keys > 0.3);
    for (const Index squarings : {Index{8}, Index{12}, Index{std::same_as<S, float> ? 14 : 22}}) {
      range.squarings = squarings;
      const RwkvSimulation<S> made = simulate(model, n, range);
      const double error = scaled_error(made.run(u), wanted);
      INFO("squarings ", squarings, ", rows ", n, ": ", error, " of ", made.error, " and ", made.rounding);
      CHECK(error <= made.error + made.rounding);
      const StackSize size = made.simulation.stack.size();
      CHECK(size.layers == squarings + made.steps + 9);
      CHECK(size.gate_layers == squarings + made.steps + 3);
      CHECK(size.width == 5 * d);
      CHECK(size.length == n);
    }
  }
}

TEST_CASE("the bound tells wrong stacks") {
  const Index n = 16, d = 4;
  auto model = trained<double>(d, n);
  const Matrix<double> u = random_matrix<double>(n, d, 4);
  const Exact wanted = exact(model, u);
  RwkvApproximation range = rwkv_range(rwkv_weights(model), u);
  range.squarings = 22;
  const auto fine = simulate(model, n, range);
  const double allowed = fine.error + fine.rounding;
  CHECK(scaled_error(fine.run(u), wanted) <= allowed);
  CHECK(allowed < 1e-4);
  CHECK_FALSE(scaled_error(Matrix<double>(n, d), wanted) <= allowed);
  RwkvWeights<double> weights = rwkv_weights(model);
  weights.bonus(0, 1) *= 1.1;
  CHECK_FALSE(scaled_error(simulate_rwkv(weights, n, range).run(u), wanted) <= allowed);
  RwkvApproximation coarse = range;
  coarse.squarings = 10;
  CHECK_FALSE(scaled_error(simulate(model, n, coarse).run(u), wanted) <= allowed);
  coarse = range;
  coarse.steps = 2;  // too few for the sums' range: the stated error says so
  const auto short_of = simulate(model, n, coarse);
  CHECK(short_of.error > 0.1);
  CHECK_FALSE(scaled_error(short_of.run(u), wanted) <= allowed);
  CHECK_THROWS_AS(simulate(model, n + 1, range), Error);
  CHECK_THROWS_AS(simulate(model, n, range, "elsewhere"), Error);
  coarse = {.keys = 100, .receptances = 1, .squarings = 4};
  CHECK_THROWS_AS(simulate(model, n, coarse), Error);
}

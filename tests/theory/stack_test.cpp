// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "coyote/operations/cpu/operations.hpp"
#include "coyote/theory/layers.hpp"
#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/rational.hpp"
#include "coyote/theory/stack.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;

/// A layer with everything written out, as the definition has it: W [d, d]; K, b1, b2 [N, d].
template <class S>
struct Dense {
  Matrix<S> w, k, b1, b2;
};

/// The same as a column program: every column is a gate.
template <class S>
constexpr Program<S> program_of(const Dense<S>& layer) {
  Program<S> program;
  const Index length = layer.k.rows();
  for (Index c = 0; c < layer.k.width(); ++c) {
    Form<S> form;
    for (Index a = 0; a < layer.k.width(); ++a) form.add(a, layer.w(a, c));
    Impulses<S> taps;
    for (Index t = 0; t < length; ++t) taps.add(t, layer.k(t, c));
    program.gate(c, form, Profile<S>::of(length, [&](Index i) { return layer.b1(i, c); }), taps,
                 Profile<S>::of(length, [&](Index i) { return layer.b2(i, c); }));
  }
  return program;
}

/// y[i,c] = (sum_a u[i,a] W[a,c] + b1[i,c]) * (sum_t K[t,c] u[i-t,c] + b2[i,c]), as it stands.
template <class S>
Matrix<S> textbook(const Dense<S>& layer, const Matrix<S>& u, Wrap wrap) {
  const Index length = u.rows(), width = u.width();
  Matrix<S> y(length, width);
  for (Index i = 0; i < length; ++i) {
    for (Index c = 0; c < width; ++c) {
      S left = layer.b1(i, c), right = layer.b2(i, c);
      for (Index a = 0; a < width; ++a) left += u(i, a) * layer.w(a, c);
      for (Index t = 0; t < (wrap == Wrap::cyclic ? length : i + 1); ++t)
        right += layer.k(t, c) * u((i - t + length) % length, c);
      y(i, c) = left * right;
    }
  }
  return y;
}

template <class S>
bool equal(const Matrix<S>& a, const Matrix<S>& b) {
  if (a.rows() != b.rows() || a.width() != b.width()) return false;
  for (Index i = 0; i < a.size(); ++i) {
    if (!(a.begin()[i] == b.begin()[i])) return false;
  }
  return true;
}

template <class S>
Matrix<S> random_matrix(Index rows, Index width, std::mt19937& random) {
  Matrix<S> m(rows, width);
  for (S& value : m) value = S(static_cast<long>(random() % 7) - 3);
  return m;
}

template <class S>
Dense<S> random_layer(Index length, Index width, std::mt19937& random) {
  return {random_matrix<S>(width, width, random), random_matrix<S>(length, width, random),
          random_matrix<S>(length, width, random), random_matrix<S>(length, width, random)};
}

TEST_CASE_TEMPLATE("a stack computes the definition", S, long, Field, Rational) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 40; ++trial) {
    const Index length = 1 + static_cast<Index>(random() % 6), width = 1 + static_cast<Index>(random() % 4);
    const Wrap wrap = trial % 2 == 0 ? Wrap::causal : Wrap::cyclic;
    Stack<S> stack(length, width, wrap);
    const Matrix<S> u = random_matrix<S>(length, width, random);
    Matrix<S> expected = u;
    for (int l = 0; l < 2; ++l) {
      const Dense<S> layer = random_layer<S>(length, width, random);
      stack.then(program_of(layer));
      expected = textbook(layer, expected, wrap);
    }
    Matrix<S> y = stack.run(u);
    CHECK(equal(y, expected));
    y(0, 0) += S(1);
    CHECK(!equal(y, expected));
  }
}

TEST_CASE("long dense filters over the field, which go by transforms") {
  std::mt19937 random(9);
  for (const Index length : {100, 128, 300}) {
    for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
      const auto layer = random_layer<Field>(length, 2, random);
      Stack<Field> stack(length, 2, wrap);
      stack.then(program_of(layer));
      const auto u = random_matrix<Field>(length, 2, random);
      const auto expected = textbook(layer, u, wrap);
      CHECK(equal(stack.run(u), expected));
      CHECK(!equal(stack.run(u), textbook(layer, u, wrap == Wrap::causal ? Wrap::cyclic : Wrap::causal)));
    }
  }
}

TEST_CASE("the four kinds of columns") {
  const Index length = 5;
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    std::mt19937 random(4);
    const Matrix<long> u = random_matrix<long>(length, 4, random);
    const auto before = [&](Index i, Index t) {
      return i >= t ? u(i - t, 1) : (wrap == Wrap::cyclic ? u(i - t + length, 1) : 0);
    };
    Stack<long> stack(length, 4, wrap);
    stack.then(Program<long>()
                   .lin(0, {{1, 2}, {3, -1}}, 5, Profile<long>::on(1, 3, 4))
                   .conv(1, {{1, 3, 2}, {0, 0, 7}}, Profile<long>::on(0, 2), Profile<long>(9))
                   .gate(2, Form<long>::column(0), 1, Impulses<long>::at(0, 3), 2));
    const Matrix<long> y = stack.run(u);
    for (Index i = 0; i < length; ++i) {
      CHECK(y(i, 0) == (2 * u(i, 1) - u(i, 3) + 5) * (1 <= i && i <= 3 ? 4 : 0));
      CHECK(y(i, 1) == (i <= 2 ? 1 : 0) * (2 * (before(i, 1) + before(i, 2) + before(i, 3)) + 7 * u(i, 1) + 9));
      CHECK(y(i, 2) == (u(i, 0) + 1) * (3 * u(i, 2) + 2));
      CHECK(y(i, 3) == u(i, 3));
    }
    CHECK(stack.programs()[0].has_gate());
  }
}

TEST_CASE("profiles: where runs overlap, the first decides; all rows at once agree with one at a time") {
  Profile<long> profile(7);
  profile.runs.emplace(Profile<long>::Run{2, 4, 1});
  profile.runs.emplace(Profile<long>::Run{4, 6, 2});
  Array<long> rows(9);
  profile.write(rows);
  const long expected[] = {7, 7, 1, 1, 1, 2, 2, 7, 7};
  for (Index i = 0; i < 9; ++i) {
    CHECK(profile.at(i) == expected[i]);
    CHECK(rows[i] == expected[i]);
  }
  const auto steps = Profile<long>::of(9, [](Index i) { return static_cast<long>(i / 3); });
  CHECK(steps.runs.size() == 2);
  for (Index i = 0; i < 9; ++i) CHECK(steps.at(i) == i / 3);
}

TEST_CASE("sequential and parallel composition, sizes") {
  std::mt19937 random(5);
  const Index length = 4;
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    Stack<Field> a(length, 2, wrap), b(length, 3, wrap);
    a.then(program_of(random_layer<Field>(length, 2, random))).then(program_of(random_layer<Field>(length, 2, random)));
    b.then(program_of(random_layer<Field>(length, 3, random)));
    const Matrix<Field> u = random_matrix<Field>(length, 5, random);
    Matrix<Field> ua(length, 2), ub(length, 3);
    for (Index i = 0; i < length; ++i) {
      for (Index c = 0; c < 5; ++c) (c < 2 ? ua(i, c) : ub(i, c - 2)) = u(i, c);
    }
    const Matrix<Field> ya = a.run(ua), yb = b.run(ub);
    for (const bool parallel : {false, true}) {
      Stack<Field> both(length, 5, wrap);
      both.then(a, 0);
      parallel ? both.beside(b, 2) : both.then(b, 2);
      CHECK(both.size().layers == (parallel ? 2 : 3));
      const Matrix<Field> y = both.run(u);
      for (Index i = 0; i < length; ++i) {
        for (Index c = 0; c < 5; ++c) CHECK(y(i, c) == (c < 2 ? ya(i, c) : yb(i, c - 2)));
      }
    }
    Stack<Field> shorter_first(length, 5, wrap);
    shorter_first.then(b, 0).beside(a, 3);
    CHECK(shorter_first.size().layers == 2);
  }
  Stack<long> stack(5, 3);
  stack.then(Program<long>().lin(0, {{1, 2}}, 5)).then(Program<long>().gate(2, {{0, 1}, {1, 1}}, 1, {{0, 3, 1}}));
  const StackSize size = stack.size();
  CHECK(size.length == 5);
  CHECK(size.width == 3);
  CHECK(size.layers == 2);
  CHECK(size.gate_layers == 1);
  CHECK(size.dense_parameters == 2 * (9 + 3 * 5 * 3));
  CHECK(size.multiplications == 2 * (5 * 9 + 3 * 15 + 15));
  CHECK(size.stored == 3 + 7);
}

/// The largest difference of a model's output from the exact one, relative to the largest exact value.
template <Wrap W, class Backend, class T>
double model_error(const Stack<long>& stack, const Matrix<long>& u, const Matrix<long>& expected) {
  const auto model = as_layers<W, Backend, T>(stack, [](long value) { return static_cast<T>(value); });
  Context<Backend> context;
  Matrix<T> x(stack.length(), stack.width()), y(stack.length(), stack.width());
  for (Index i = 0; i < u.rows(); ++i) {
    for (Index c = 0; c < u.width(); ++c) x(i, c) = static_cast<T>(u(i, c));
  }
  model.forward(context, Batch{.sequences = 1, .length = stack.length()}, x, y);
  double worst = 0, size = 0;
  for (Index i = 0; i < y.size(); ++i) {
    const double e = std::abs(static_cast<double>(y.begin()[i]) - static_cast<double>(expected.begin()[i]));
    if (worst == worst && !(e <= worst)) worst = e;
    size = std::max(size, std::abs(static_cast<double>(expected.begin()[i])));
  }
  return worst / size;
}

template <Wrap W>
void check_layers() {
  std::mt19937 random(6);
  Stack<long> stack(6, 3, W);
  stack.then(program_of(random_layer<long>(6, 3, random)));
  stack.then(Program<long>().lin(0, {{1, 1}, {2, -2}}, Profile<long>::on(2, 4, 3), Profile<long>::on(1, 5)));  // 1, 2: KEEP
  stack.then(Program<long>().conv(1, {{0, 4, 1}}).gate(2, {{0, 1}}, 2, Impulses<long>::at(3), 1));
  const Matrix<long> u = random_matrix<long>(6, 2, random), expected = stack.run(u);
  CHECK(model_error<W, Reference, long>(stack, u, expected) == 0);
  CHECK(model_error<W, Cpu, double>(stack, u, expected) <= 1e-13);
  // The library's own report says the same, and sees a few wrong weights.
  const auto number = [](long x) { return static_cast<double>(x); };
  const LayerError report = layer_error<W, Cpu, float>(stack, u, number);
  CHECK(report.relative() == model_error<W, Cpu, float>(stack, u, expected));
  CHECK(report.size > 1);
  CHECK(report.relative() <= 1e-5);
  int threes = 0;  // weights come first
  const LayerError spoilt =
      layer_error<W, Cpu, double>(stack, u, [&](long x) { return number(x) + (x == 3 && ++threes <= 8 ? 1e-3 : 0); });
  CHECK(threes > 0);
  CHECK(spoilt.relative() > 1e-9);
  CHECK(model_error<W, Cpu, float>(stack, u, expected) <= 1e-5);
  Matrix<long> wrong = expected;
  wrong(5, 0) += 1;
  CHECK(!(model_error<W, Reference, long>(stack, u, wrong) == 0));
  CHECK(!(model_error<W, Cpu, double>(stack, u, wrong) <= 1e-13));
  CHECK(!(model_error<W, Cpu, double>(stack, Matrix<long>(6, 2), expected) <= 1e-13));
  constexpr Wrap other = W == Wrap::causal ? Wrap::cyclic : Wrap::causal;
  CHECK_THROWS_AS((as_layers<other, Reference, long>(stack, [](long value) { return value; })), Error);
}
TEST_CASE("a stack as ordinary layers") {
  check_layers<Wrap::causal>();
  check_layers<Wrap::cyclic>();
}

TEST_CASE("errors") {
  using P = Program<long>;
  CHECK_THROWS_AS(Stack<long>(0, 1), Error);
  CHECK_THROWS_AS(Stack<long>(1, 0), Error);
  Stack<long> stack(4, 2);
  CHECK_THROWS_AS(stack.then(P().lin(2, {})), Error);
  CHECK_THROWS_AS(stack.then(P().lin(-1, {})), Error);
  CHECK_THROWS_AS(stack.then(P().lin(0, {{2, 1}})), Error);
  CHECK_THROWS_AS(stack.then(P().conv(0, Impulses<long>::at(4))), Error);
  CHECK_THROWS_AS(stack.then(P().conv(0, Impulses<long>::at(-1))), Error);
  CHECK_THROWS_AS(stack.then(P().lin(0, {}, Profile<long>::on(3, 4))), Error);
  CHECK_THROWS_AS(stack.then(P().lin(0, {}, 0, Profile<long>::on(-1, 2))), Error);
  CHECK_THROWS_AS(P().lin(0, {}).conv(0, {}), Error);
  CHECK_THROWS_AS(stack.then(Stack<long>(3, 2)), Error);
  CHECK_THROWS_AS(stack.beside(Stack<long>(4, 2, Wrap::cyclic), 0), Error);
  CHECK_THROWS_AS(stack.then(Stack<long>(4, 2).then(P().lin(1, {})), 1), Error);
  CHECK_THROWS_AS(stack.run(Matrix<long>(5, 2)), Error);
  CHECK_THROWS_AS(stack.run(Matrix<long>(4, 3)), Error);
  CHECK(stack.size().layers == 0);
  CHECK(stack.run(Matrix<long>(2, 1)).rows() == 4);
}

}  // namespace

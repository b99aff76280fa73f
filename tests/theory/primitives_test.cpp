// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>

#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/primitives.hpp"
#include "coyote/theory/rational.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;
namespace pr = coyote::theory::primitives;

constexpr Index length = 7;

template <class S>
Matrix<S> random_matrix(Index rows, Index width, std::mt19937& random) {
  Matrix<S> m(rows, width);
  for (S& value : m) value = S(static_cast<long>(random() % 19) - 9);
  return m;
}

/// Checks a stack's rows against y(i, c, u) for every column c below `columns`; a slightly wrong expectation must fail.
template <class S, class Y>
void check(const Stack<S>& stack, Index layers, const Matrix<S>& u, Index columns, Y&& y) {
  CHECK(stack.size().layers == layers);
  const Matrix<S> result = stack.run(u);
  bool equal = true, slightly_wrong = true;
  for (Index i = 0; i < result.rows(); ++i) {
    for (Index c = 0; c < columns; ++c) {
      equal = equal && result(i, c) == y(i, c);
      slightly_wrong = slightly_wrong && result(i, c) == y(i, c) + S(i == 0 && c == 0 ? 1 : 0);
    }
  }
  CHECK(equal);
  CHECK(!slightly_wrong);
}

TEST_CASE_TEMPLATE("affine map and convolution with masks", S, Field, Rational) {
  std::mt19937 random(1);
  const auto u = random_matrix<S>(length, 3, random), w = random_matrix<S>(3, 3, random), k = random_matrix<S>(length, 3, random),
             b = random_matrix<S>(length, 3, random), m = random_matrix<S>(length, 3, random);
  const auto uw = [&](Index i, Index c) { return u(i, 0) * w(0, c) + u(i, 1) * w(1, c) + u(i, 2) * w(2, c); };
  Stack<S> a(length, 3), plain(length, 3);
  check(pr::affine(a, w, b, m), 1, u, 3, [&](Index i, Index c) { return (uw(i, c) + b(i, c)) * m(i, c); });
  check(pr::affine(plain, w), 1, u, 3, uw);
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    const auto ku = [&](Index i, Index c) {
      S sum{};
      for (Index t = 0; t < length; ++t) {
        if (t <= i || wrap == Wrap::cyclic) sum += k(t, c) * u((i - t + length) % length, c);
      }
      return sum;
    };
    Stack<S> masked(length, 3, wrap), bare(length, 3, wrap);
    check(pr::convolution(masked, k, b, m), 1, u, 3, [&](Index i, Index c) { return m(i, c) * (ku(i, c) + b(i, c)); });
    check(pr::convolution(bare, k), 1, u, 3, ku);
  }
}

TEST_CASE("columns: copy, permute, delete, remember") {
  std::mt19937 random(2);
  const auto u = random_matrix<Field>(length, 3, random);
  Stack<Field> copied(length, 3), swapped(length, 3), erased(length, 3), kept(length, 3);
  check(pr::copy(copied, 0, 2), 1, u, 3, [&](Index i, Index c) { return u(i, c == 2 ? 0 : c); });
  check(pr::copy(swapped, {2, 2, 0}, {0, 1, 2}), 1, u, 3, [&](Index i, Index c) { return u(i, c == 2 ? 0 : 2); });
  check(pr::erase(erased, {0, 2}), 1, u, 3, [&](Index i, Index c) { return c == 1 ? u(i, 1) : Field(0); });
  check(kept.then(Program<Field>()), 1, u, 3, [&](Index i, Index c) { return u(i, c); });
}

TEST_CASE("shifts") {
  std::mt19937 random(3);
  const auto u = random_matrix<Field>(length, 3, random);
  Stack<Field> down(length, 3), same(length, 3), ring(length, 3, Wrap::cyclic);
  const Index by[] = {0, 1, 3};
  const auto above = [&](Index i, Index c, Index s) { return i >= s ? u(i - s, c) : Field(0); };
  check(pr::shift_down(down, {0, 1, 2}, {0, 1, 3}), 1, u, 3, [&](Index i, Index c) { return above(i, c, by[c]); });
  check(pr::shift_down(same, {0, 2}, 2), 1, u, 3, [&](Index i, Index c) { return above(i, c, c == 1 ? 0 : 2); });
  check(pr::shift_down(ring, {0, 1, 2}, 2), 1, u, 3, [&](Index i, Index c) { return u((i + length - 2) % length, c); });
  for (Index s = 0; s < length; ++s) {
    Stack<Field> up(length, 3, Wrap::cyclic);
    check(pr::shift_up(up, {0, 1, 2}, s), 1, u, 3, [&](Index i, Index c) { return i + s < length ? u(i + s, c) : Field(0); });
  }
}

TEST_CASE("products") {
  std::mt19937 random(4);
  const auto u = random_matrix<Field>(length, 3, random);
  Stack<Field> own(length, 3), third(length, 3), positions(length, 3), squares(length, 3);
  check(pr::product_in_place(own, {{0, 5}, {1, 7}}, Field(1), 2, 3, Field(4)), 1, u, 3,
        [&](Index i, Index c) { return c < 2 ? u(i, c) : (5 * u(i, 0) + 7 * u(i, 1) + 1) * (3 * u(i, 2) + 4); });
  check(pr::product_into(third, 0, 1, 2), 2, u, 3, [&](Index i, Index c) { return c < 2 ? u(i, c) : u(i, 0) * u(i, 1); });
  check(pr::product_of_positions(positions, 0, 2, 3), 1, u, 3,
        [&](Index i, Index c) { return c < 2 ? u(i, c) : (i >= 3 ? u(i, 0) * u(i - 3, 2) : Field(0)); });
  check(pr::square(squares, {0, 1, 2}), 1, u, 3, [&](Index i, Index c) { return u(i, c) * u(i, c); });
  CHECK(own.size().gate_layers == 1);
  for (Index m = 1; m <= 19; ++m) {
    const auto v = random_matrix<Field>(2, m, random);
    Stack<Field> tree(2, m);
    const Index at = pr::product_tree(tree, pr::Columns::range(0, m)), levels = tree.size().layers;
    CHECK((Index{1} << levels) >= m);
    CHECK((levels == 0 || (Index{1} << (levels - 1)) < m));
    const auto y = tree.run(v);
    for (Index i = 0; i < 2; ++i) {
      Field product = 1;
      for (Index c = 0; c < m; ++c) product *= v(i, c);
      CHECK(y(i, at) == product);
    }
  }
}

TEST_CASE("rows: prefix sums, broadcast, window") {
  std::mt19937 random(5);
  const auto u = random_matrix<Field>(length, 3, random);
  Stack<Field> sums(length, 3), sent(length, 3);
  check(pr::prefix_sum(sums, {0, 2}), 1, u, 3, [&](Index i, Index c) {
    Field sum{};
    for (Index j = c == 1 ? i : 0; j <= i; ++j) sum += u(j, c);
    return sum;
  });
  check(pr::broadcast_row(sent, {0, 1, 2}, 2), 2, u, 3, [&](Index i, Index c) { return i >= 2 ? u(2, c) : Field(0); });
  for (Index window = 1; window <= length; ++window) {
    Stack<Field> wide(length, 3 * window);
    check(pr::unfold(wide, 3, window), 2, u, 3 * window,
          [&](Index i, Index c) { return i >= c / 3 ? u(i - c / 3, c % 3) : Field(0); });
  }
}

TEST_CASE("a layer on some rows only") {
  std::mt19937 random(6);
  const auto u = random_matrix<Field>(length, 3, random);
  const auto chosen = [](Index i) { return i == 1 || (i >= 3 && i <= 5); };
  const auto rows = Profile<Field>::of(length, [&](Index i) { return Field(chosen(i) ? 1 : 0); });
  const auto bias = Profile<Field>::of(length, [](Index i) { return Field(i * i); });
  Stack<Field> stack(length, 6);
  pr::on_rows(stack, 3, rows,
              Program<Field>().lin(0, {{1, 2}, {2, 1}}, bias, Field(3)).conv(1, {{0, 1, 5}, {3, 3, 2}}, Field(7), bias));
  const auto at = [&](Index i) { return i >= 0 ? u(i, 1) : Field(0); };
  check(stack, 2, u, 6, [&](Index i, Index c) {
    if (c >= 3) return Field(0);
    if (!chosen(i) || c == 2) return u(i, c);
    return c == 0 ? 3 * (2 * u(i, 1) + u(i, 2) + i * i) : 7 * (5 * at(i) + 5 * at(i - 1) + 2 * at(i - 3) + i * i);
  });
}

TEST_CASE_TEMPLATE("gates of logic", S, Field, Rational) {
  Matrix<S> u(4, 2);
  for (Index i = 0; i < 4; ++i) {
    u(i, 0) = S(i / 2);
    u(i, 1) = S(i % 2);
  }
  const auto column = [&](auto&& f) {
    return [&u, f](Index i, Index c) { return c == 0 ? u(i, 0) : S(f(i / 2 == 1, i % 2 == 1) ? 1 : 0); };
  };
  Stack<S> both(4, 2), neither(4, 2), either(4, 2), same(4, 2);
  check(pr::logical_and(both, 0, 1), 1, u, 2, column([](bool a, bool b) { return a && b; }));
  check(pr::logical_not(neither, 1), 1, u, 2, column([](bool, bool b) { return !b; }));
  check(pr::logical_or(either, 0, 1), 2, u, 2, column([](bool a, bool b) { return a || b; }));
  const S half = S(1) / S(2);
  const auto equal = column([](bool a, bool b) { return a == b; });
  check(pr::equality_minus_half(same, 0, 1, half), 1, u, 2,
        [&](Index i, Index c) { return equal(i, c) - (c == 1 ? half : S(0)); });
  CHECK_THROWS_AS(pr::equality_minus_half(same, 0, 1, S(2)), Error);
}

TEST_CASE("rows of a causal stack never depend on later rows") {
  std::mt19937 generator(7);
  const auto random = [&] { return static_cast<long long>(generator()); };
  for (int trial = 0; trial < 20; ++trial) {
    Stack<Field> stack(5, 3), ring(5, 3, Wrap::cyclic);
    for (int l = 0; l < 4; ++l) {
      Program<Field> program;
      for (Index c = 0; c < 3; ++c) {
        Form<Field> form;
        Impulses<Field> taps;
        for (Index a = 0; a < 3; ++a) form.add(a, random());
        for (Index t = 0; t < 5; ++t) taps.add(t, random());
        program.gate(c, form, Field(random()), taps, Field(random()));
      }
      stack.then(program);
      ring.then(program);
    }
    auto u = random_matrix<Field>(5, 3, generator);
    const auto before = stack.run(u), ring_before = ring.run(u);
    const Index row = static_cast<Index>(random() % 4);
    u(row + 1, trial % 3) += 1;
    const auto after = stack.run(u), ring_after = ring.run(u);
    bool ring_unmoved = true;
    for (Index i = 0; i <= row; ++i) {
      for (Index c = 0; c < 3; ++c) {
        CHECK(before(i, c) == after(i, c));
        ring_unmoved = ring_unmoved && ring_before(i, c) == ring_after(i, c);
      }
    }
    CHECK(!ring_unmoved);
  }
}

TEST_CASE("functions of the row from biases that are the same in every row") {
  std::mt19937 random(8);
  const auto u = random_matrix<Field>(length, 2, random), f = random_matrix<Field>(length, 1, random);
  Stack<Field> stack(length, 2);
  check(pr::position_function(stack, 1, [&](Index i) { return f(i, 0); }), 2, u, 2,
        [&](Index i, Index c) { return c == 0 ? u(i, 0) : f(i, 0); });
  for (const auto& program : stack.programs()) {
    for (const auto& column : program.columns()) {
      CHECK(column.b1.runs.size() == 0);
      CHECK(column.b2.runs.size() == 0);
    }
  }
}

TEST_CASE("residual layers: 2 L of width 2 d") {
  std::mt19937 random(9);
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    const auto u = random_matrix<Field>(length, 3, random);
    Stack<Field> stack(length, 3, wrap);
    stack.then(Program<Field>().gate(0, {{1, 2}, {2, 5}}, Field(3), {{0, 1, 2}, {4, 4, 1}}, Profile<Field>::on(2, 3)));
    stack.then(Program<Field>().lin(1, {{0, 1}, {1, -4}}, Profile<Field>::on(1, 5, 9), Field(2)).conv(2, {{1, 1, 3}}));
    // The two layers as plain formulas.
    const auto above = [&](Index i, Index t, Index c) {
      return i >= t || wrap == Wrap::cyclic ? u((i - t + length) % length, c) : Field(0);
    };
    const auto expected = [&](Index i, Index c) {
      const Field first =
          (2 * u(i, 1) + 5 * u(i, 2) + 3) * (2 * (u(i, 0) + above(i, 1, 0)) + above(i, 4, 0) + (i == 2 || i == 3 ? 1 : 0));
      if (c == 0) return first;
      return c == 1 ? 2 * (first - 4 * u(i, 1) + (1 <= i && i <= 5 ? 9 : 0)) : 3 * above(i, 1, 2);
    };
    const Stack<Field> residual = pr::residual_form(stack);
    CHECK(residual.size().layers == 4);
    CHECK(residual.width() == 6);
    Matrix<Field> x = residual.embedded(u);
    for (const auto& program : residual.programs()) {
      CHECK(program.columns().size() == 6);
      Matrix<Field> y = x;
      residual.apply(program, y);
      for (Index i = 0; i < x.size(); ++i) x.data()[i] += y.data()[i];
    }
    bool equal = true, slightly_wrong = true;
    for (Index i = 0; i < length; ++i) {
      for (Index c = 0; c < 6; ++c) {
        const Field want = c < 3 ? expected(i, c) : Field(0);
        equal = equal && x(i, c) == want;
        slightly_wrong = slightly_wrong && x(i, c) == want + Field(c == 1 && i == 4 ? 1 : 0);
      }
    }
    CHECK(equal);
    CHECK(!slightly_wrong);
  }
}

TEST_CASE("errors") {
  Stack<long> causal(4, 2), ring(4, 2, Wrap::cyclic);
  CHECK_THROWS_AS(pr::shift_up(causal, 0, 1), Error);
  CHECK_THROWS_AS(pr::shift_up(ring, 0, 4), Error);
  CHECK_THROWS_AS(pr::shift_up(ring, 0, -1), Error);
  CHECK_THROWS_AS(pr::prefix_sum(ring, 0), Error);
  CHECK_THROWS_AS(pr::broadcast_row(ring, 0, 1), Error);
  CHECK_THROWS_AS(pr::broadcast_row(causal, 0, 4), Error);
  CHECK_THROWS_AS(pr::shift_down(causal, {0, 1}, {1, 2, 3}), Error);
  CHECK_THROWS_AS(pr::shift_down(causal, 0, 4), Error);
  CHECK_THROWS_AS(pr::copy(causal, {0, 1}, 0), Error);
  CHECK_THROWS_AS(pr::copy(causal, {0, 1}, {1, 1}), Error);
  CHECK_THROWS_AS(pr::product_into(causal, 0, 1, 1), Error);
  CHECK_THROWS_AS(pr::product_into(causal, 2, 0, 1), Error);
  CHECK_THROWS_AS(pr::position_function(ring, 0, [](Index) { return 1L; }), Error);
  CHECK_THROWS_AS(pr::product_tree(causal, {}), Error);
  CHECK_THROWS_AS(pr::unfold(causal, 1, 3), Error);
  CHECK_THROWS_AS(pr::affine(causal, Matrix<long>(3, 3)), Error);
  CHECK_THROWS_AS(pr::affine(causal, Matrix<long>(2, 2), Matrix<long>(3, 2)), Error);
  CHECK_THROWS_AS(pr::on_rows(causal, 2, 1, Program<long>()), Error);
  CHECK_THROWS_AS(pr::on_rows(causal, 1, 1, Program<long>().gate(0, {})), Error);
  CHECK_THROWS_AS(pr::on_rows(causal, 1, 1, Program<long>().lin(1, {})), Error);
  CHECK(causal.size().layers == 0);
  CHECK(ring.size().layers == 0);
}

}  // namespace

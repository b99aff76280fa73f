// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "coyote/theory/compile.hpp"
#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/rational.hpp"
#include "support/random_circuit.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;
using coyote::test::random_circuit;

/// Sizes by walking back from the outputs with plain recursion, so that the formulas rest on nothing that the compilers use.
template <class S>
struct Walk {
  const Circuit<S>& circuit;
  std::vector<bool> seen;
  Index products = 0, constants = 0, gates = 0;

  explicit Walk(const Circuit<S>& c) : circuit(c), seen(static_cast<std::size_t>(c.nodes().size())) {
    for (Index n : c.outputs()) visit(n);
  }
  bool is_input(Index n) const { return circuit.nodes()[n].kind == Circuit<S>::Kind::input; }
  bool is_constant(Index n) const { return circuit.nodes()[n].kind == Circuit<S>::Kind::constant; }
  bool varies(Index n) const {
    const auto& node = circuit.nodes()[n];
    return is_input(n) || (!is_constant(n) && (varies(node.a) || varies(node.b)));
  }
  bool is_product(Index n) const {
    const auto& node = circuit.nodes()[n];
    return node.kind == Circuit<S>::Kind::multiply && varies(node.a) && varies(node.b);
  }
  void visit(Index n) {
    if (seen[static_cast<std::size_t>(n)]) return;
    seen[static_cast<std::size_t>(n)] = true;
    if (is_input(n)) return;
    if (is_constant(n)) {
      ++constants;
      return;
    }
    ++gates;
    products += is_product(n) ? 1 : 0;
    visit(circuit.nodes()[n].a);
    visit(circuit.nodes()[n].b);
  }
  Index depth(Index n, bool only_products) const {
    if (is_input(n) || is_constant(n)) return 0;
    const auto& node = circuit.nodes()[n];
    return std::max(depth(node.a, only_products), depth(node.b, only_products)) + (!only_products || is_product(n) ? 1 : 0);
  }
  Index depth(bool only_products) const {
    Index most = 0;
    for (Index n : circuit.outputs()) most = std::max(most, depth(n, only_products));
    return most;
  }
};

template <class S>
Matrix<S> random_matrix(Index rows, Index width, std::mt19937& random) {
  Matrix<S> m(rows, width);
  for (S& value : m) value = S(static_cast<long>(random() % 11) - 5);
  return m;
}

template <class S>
std::vector<S> list(const List<S>& values) {
  return {values.begin(), values.end()};
}

/// Outputs of a stack against the circuit's own; a slightly wrong expectation must fail.
template <class S>
void check_equal(const List<S>& came, const Circuit<S>& circuit, const std::vector<S>& x) {
  auto expected = list(circuit.evaluate(x));
  CHECK(list(came) == expected);
  expected.back() += S(1);
  CHECK(!(list(came) == expected));
}

TEST_CASE("sizes of circuits") {
  std::mt19937 random(1);
  for (int trial = 0; trial < 60; ++trial) {
    const auto c = random_circuit<Field>(1 + static_cast<Index>(random() % 4), static_cast<Index>(random() % 14), 2, random);
    const Walk<Field> walk(c);
    const CircuitSize size = c.size();
    CHECK(size.multiplications == walk.products);
    CHECK(size.constants == walk.constants);
    CHECK(size.gates == walk.gates);
    CHECK(size.degree_depth == walk.depth(true));
    CHECK(size.depth == walk.depth(false));
  }
}

TEST_CASE_TEMPLATE("A: 2 D + 1 layers, width max(inputs + products, outputs)", S, Field, Rational) {
  std::mt19937 random(2);
  const bool is_field = std::same_as<S, Field>;
  for (int trial = 0; trial < (is_field ? 120 : 30); ++trial) {
    const Index inputs = 1 + static_cast<Index>(random() % 6), outputs = 1 + static_cast<Index>(random() % 4),
                length = 1 + static_cast<Index>(random() % 3);
    const auto c = random_circuit<S>(inputs, static_cast<Index>(random()) % (is_field ? 20 : 6), outputs, random);
    const Walk<S> walk(c);
    const auto own = compile_channels(c, length), recycled = compile_channels(c, length, Registers::recycled, Wrap::cyclic);
    const Matrix<S> u = random_matrix<S>(length, inputs, random);
    CHECK(own.stack.size().layers == 2 * walk.depth(true) + 1);
    CHECK(own.stack.size().gate_layers == walk.depth(true));
    CHECK(own.stack.width() == std::max(inputs + walk.products, outputs));
    CHECK(recycled.stack.size().layers == own.stack.size().layers);
    CHECK(recycled.stack.width() <= own.stack.width());
    for (Index i = 0; i < length; ++i) {
      std::vector<S> x;
      for (Index k = 0; k < inputs; ++k) x.push_back(u(i, k));
      check_equal(own.run(u, i), c, x);
      check_equal(recycled.run(u, i), c, x);
    }
  }
}

TEST_CASE("A: a chain of squares recycles its columns") {
  Circuit<Field> c;
  auto x = c.input(0);
  for (int k = 0; k < 10; ++k) x = x * x;
  c.output(x);
  CHECK(compile_channels(c).stack.width() == 11);
  const auto recycled = compile_channels(c, 1, Registers::recycled);
  CHECK(recycled.stack.width() == 2);
  Matrix<Field> u(1, 1);
  u(0, 0) = 3;
  CHECK(recycled.run(u)[0] == Field(3).pow(1024));
}

TEST_CASE("A with a window: 2 D + 3 layers") {
  std::mt19937 random(3);
  for (int trial = 0; trial < 40; ++trial) {
    const Index length = 1 + static_cast<Index>(random() % 4), width = 1 + static_cast<Index>(random() % 2),
                window = 1 + static_cast<Index>(random()) % length, inputs = window * width;
    const auto c = random_circuit<Field>(inputs, 14, 2, random);
    const Walk<Field> walk(c);
    const auto compiled = compile_windows(c, length, width);
    CHECK(compiled.stack.size().layers == 2 * walk.depth(true) + 3);
    CHECK(compiled.stack.width() == std::max<Index>(inputs + walk.products, 2));
    CHECK(compiled.stack.length() == length);
    const Matrix<Field> u = random_matrix<Field>(length, width, random);
    for (Index i = 0; i < length; ++i) {
      std::vector<Field> x;
      for (Index k = 0; k < inputs; ++k) x.push_back(i >= k / width ? u(i - k / width, k % width) : Field(0));
      check_equal(compiled.run(u, i), c, x);
    }
  }
}

TEST_CASE("A for sequences: 2 D + 5 layers, later rows too") {
  std::mt19937 random(4);
  for (int trial = 0; trial < 40; ++trial) {
    const Index length = 1 + static_cast<Index>(random() % 4), in = 1 + static_cast<Index>(random() % 2),
                out = 1 + static_cast<Index>(random() % 2);
    const auto c = random_circuit<Field>(length * in, 14, length * out, random);
    const Walk<Field> walk(c);
    for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
      const auto compiled = compile_sequences(c, length, in, out, wrap);
      const StackSize size = compiled.stack.size();
      CHECK(size.layers == 2 * walk.depth(true) + 5);
      CHECK(size.width == std::max(length * in + walk.products, length * out));
      CHECK(size.length == (wrap == Wrap::cyclic ? length : 2 * length - 1));
      for (Index k = 0; k < length * out; ++k) {
        CHECK(compiled.outputs[k].row == (wrap == Wrap::cyclic ? 0 : length - 1) + k / out);
        CHECK(compiled.outputs[k].column == k % out);
      }
      const Matrix<Field> u = random_matrix<Field>(length, in, random);
      check_equal(compiled.run(u), c, {u.begin(), u.end()});
    }
  }
}

TEST_CASE("B: Delta (10 m - 1) + 1 layers, width 7, N' = 2^m") {
  std::mt19937 random(5);
  for (int trial = 0; trial < 40; ++trial) {
    const Index inputs = 1 + static_cast<Index>(random() % 5), gates = static_cast<Index>(random() % 18);
    const auto c = random_circuit<Field>(inputs, gates, 3, random);
    const Walk<Field> walk(c);
    Index m = 1;
    while ((Index{1} << m) < inputs + walk.constants + walk.gates) ++m;
    const auto compiled = compile_routed(c);
    const StackSize size = compiled.stack.size();
    CHECK(size.layers == walk.depth(false) * (10 * m - 1) + 1);
    CHECK(size.width == 7);
    CHECK(size.length == Index{1} << m);
    CHECK(size.dense_parameters == size.layers * (49 + 21 * size.length));
    CHECK(size.gate_layers == walk.depth(false));
    const Matrix<Field> u = random_matrix<Field>(inputs, 1, random);
    check_equal(compiled.run(u), c, {u.begin(), u.end()});
  }
}

TEST_CASE("B: a larger circuit") {
  std::mt19937 random(6);
  Circuit<Field> c(16);
  Index first = 0, end = 16;  // the level before
  for (int level = 0; level < 6; ++level) {
    for (int g = 0; g < 40; ++g) {
      const auto a = c.wire(first + static_cast<Index>(random()) % (end - first)), b = c.wire(static_cast<Index>(random()) % end);
      g % 3 == 0 ? a* b : g % 3 == 1 ? a + b : a - b;
    }
    first = end;
    end = c.nodes().size();
  }
  for (Index n = first; n < end; ++n) c.output(c.wire(n));
  const auto compiled = compile_routed(c);
  CHECK(compiled.stack.size().layers == c.size().depth * (10 * log2_ceil(compiled.stack.length()) - 1) + 1);
  const Matrix<Field> u = random_matrix<Field>(16, 1, random);
  check_equal(compiled.run(u), c, {u.begin(), u.end()});
}

TEST_CASE("constants, unused inputs, repeated outputs") {
  Circuit<long> c(3);
  const auto x = c.input(1);
  c.output(c.constant(4) * 5 - 1);
  c.output(x);
  c.output(x);
  c.output((x - x) * x);
  c.output(2 * x + 3 * (x + 1));
  for (Index n = 0; n < 2; ++n) {
    Matrix<long> u = n == 0 ? Matrix<long>(1, 3) : Matrix<long>(3, 1);
    u.data()[1] = 6;
    const auto y = n == 0 ? compile_channels(c).run(u) : compile_routed(c).run(u);
    CHECK(list(y) == std::vector<long>{19, 6, 6, 0, 33});
  }
  CHECK(compile_channels(c).stack.size().layers == 3);
}

TEST_CASE("errors") {
  Circuit<long> none(2), two(2), three(3);
  two.output(two.input(0) * two.input(1));
  three.output(three.input(0) * three.input(2));
  CHECK_THROWS_AS(compile_channels(none), Error);
  CHECK_THROWS_AS(compile_windows(none, 2, 1), Error);
  CHECK_THROWS_AS(compile_routed(none), Error);
  CHECK_THROWS_AS(compile_channels(two, 0), Error);
  CHECK_THROWS_AS(compile_windows(three, 2, 1), Error);
  CHECK_THROWS_AS(compile_windows(three, 2, 0), Error);
  CHECK_THROWS_AS(compile_sequences(three, 1, 2, 1, Wrap::cyclic), Error);
  CHECK_THROWS_AS(compile_sequences(two, 2, 1, 1, Wrap::cyclic), Error);
  CHECK_THROWS_AS(compile_sequences(two, 1, 2, 0, Wrap::cyclic), Error);
  CHECK_THROWS_AS(compile_channels(two).run(Matrix<long>(1, 4)), Error);
}

}  // namespace

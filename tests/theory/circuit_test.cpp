// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "coyote/theory/circuit.hpp"
#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/rational.hpp"
#include "support/random_circuit.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;
using coyote::test::random_circuit;

template <class S>
std::vector<S> evaluate(const Circuit<S>& circuit, const std::vector<S>& x) {
  const List<S> y = circuit.evaluate(x);
  return {y.begin(), y.end()};
}

/// The value of a node by recursion from the definition.
template <class S>
S value_of(const Circuit<S>& c, Index n, const std::vector<S>& x) {
  using Kind = typename Circuit<S>::Kind;
  const auto& node = c.nodes()[n];
  switch (node.kind) {
    case Kind::input:
      return x[static_cast<std::size_t>(node.a)];
    case Kind::constant:
      return node.value;
    case Kind::add:
      return value_of(c, node.a, x) + value_of(c, node.b, x);
    case Kind::subtract:
      return value_of(c, node.a, x) - value_of(c, node.b, x);
    default:
      return value_of(c, node.a, x) * value_of(c, node.b, x);
  }
}

TEST_CASE("plain operators") {
  Circuit<long> c;
  const auto x = c.input(0), y = c.input(1);
  c.output(x * x + 3);
  c.output(2 - x * y);
  c.output(-(x - y) * 5);
  c.output(7 + 2 * (y - 1));
  for (long a = -3; a <= 3; ++a) {
    for (long b = -3; b <= 3; ++b) {
      CHECK(evaluate<long>(c, {a, b}) == std::vector<long>{a * a + 3, 2 - a * b, -(a - b) * 5, 7 + 2 * (b - 1)});
    }
  }
  const CircuitSize size = c.size();
  CHECK(size.inputs == 2);
  CHECK(size.outputs == 4);
  CHECK(size.multiplications == 2);  // x x and x y: the others are by a constant
  CHECK(size.degree_depth == 1);
  CHECK(size.gates == 2 + 2 + 3 + 3);
  CHECK(size.constants == 7);
  CHECK(size.depth == 3);
}

static_assert([] {
  Circuit<long> c;
  const auto x = c.input(0);
  c.output(x * x + 3);
  const long in[] = {5};
  return c.evaluate(in)[0] == 28 && c.size() == CircuitSize{1, 1, 1, 2, 1, 1, 2};
}());

TEST_CASE("sizes: what outputs do not need is not counted") {
  Circuit<long> c(3);
  CHECK(c.inputs() == 3);
  auto x = c.input(0);
  const auto unused = c.input(4) * x;
  for (int k = 0; k < 4; ++k) x = x * x;
  c.output(x);
  CHECK(c.inputs() == 5);
  CHECK(c.size() == CircuitSize{5, 1, 0, 4, 4, 4, 4});
  c.output(unused + 1);
  CHECK(c.size() == CircuitSize{5, 2, 1, 6, 5, 4, 4});
  Circuit<long> constant;
  constant.output(constant.constant(2) * constant.constant(3));
  CHECK(constant.size() == CircuitSize{0, 1, 2, 1, 0, 0, 1});
  CHECK(evaluate<long>(constant, {}) == std::vector<long>{6});
}

TEST_CASE_TEMPLATE("evaluation, and text there and back", S, Field, Rational) {
  std::mt19937 random(2);
  for (int trial = 0; trial < 40; ++trial) {
    const Index inputs = 1 + static_cast<Index>(random() % 4);
    auto c = random_circuit<S>(inputs, static_cast<Index>(random() % 12), 3, random);
    c.output(c.wire(0) * (S(1) / S(3)));
    std::vector<S> x;
    for (Index k = 0; k < inputs; ++k) x.push_back(S(static_cast<long>(random() % 5) - 2));
    std::vector<S> expected;
    for (Index n : c.outputs()) expected.push_back(value_of(c, n, x));
    CHECK(evaluate(c, x) == expected);
    const std::string text = print_circuit(c);
    const auto again = parse_circuit<S>(text);
    CHECK(print_circuit(again) == text);
    CHECK(again.size() == c.size());
    CHECK(evaluate(again, x) == expected);
    expected[0] += S(1);
    CHECK(!(evaluate(again, x) == expected));
  }
}

TEST_CASE("the text form") {
  const auto c = parse_circuit<long>(
      "# two polynomials\n"
      "input x y   # two inputs\n"
      "\n"
      "s = x * y\r\n"
      "  input z\n"
      "t = s + -3\n"
      "name_2 = t - z\n"
      "same = t\n"
      "five = 5\n"
      "output name_2 same   # twice is fine: t\n"
      "output t five z");
  CHECK(evaluate<long>(c, {2, 7, 1}) == std::vector<long>{10, 11, 11, 5, 1});
  CHECK(c.size() == CircuitSize{3, 5, 2, 3, 1, 1, 3});
  CHECK(print_circuit(c) ==
        "input x0\ninput x1\nn2 = x0 * x1\ninput x2\nn4 = -3\nn5 = n2 + n4\nn6 = n5 - x2\nn7 = 5\noutput n6 n5 n5 n7 x2\n");
  const auto extremes = parse_circuit<long>("a = 9223372036854775807\nb = -9223372036854775808\noutput a b");
  CHECK(evaluate<long>(extremes, {}) == std::vector<long>{9223372036854775807L, -9223372036854775807L - 1});
  CHECK(evaluate<Rational>(parse_circuit<Rational>("input x\ny = x * -3/6\noutput y"), {Rational(5)})[0] == Rational(-5, 2));
  CHECK(evaluate<Field>(parse_circuit<Field>("input x\ny = x * 1/2\noutput y"), {Field(5)})[0] + Field(5) / 2 == Field(5));
}

template <class S = long>
void check_error(const std::string& text, Index line, const std::string& came) {
  INFO(text);
  try {
    parse_circuit<S>(text);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.where() == words("theory::parse_circuit, line ", line));
    CHECK(error.came() == came);
  }
}

TEST_CASE("bad circuits are refused with the line") {
  check_error("input x\ny = x + z\noutput y", 2, "the unknown wire 'z'");
  check_error("input x\noutput q", 2, "the unknown wire 'q'");
  check_error("input x\na = x * a\noutput a", 2, "a cycle through 'a'");
  check_error("input x\na = x * b\nb = x + c\nc = a - 1\noutput a", 2, "a cycle through 'b'");
  check_error("input x\na = x * b\nb = x + x\noutput a", 2, "'b', which line 3 defines");
  check_error("input x\na = x * b\nb = b + x\noutput a", 2, "'b', which line 3 defines");
  check_error("a = 9223372036854775808\noutput a", 1, "the oversized constant 9223372036854775808");
  check_error("a = -9223372036854775809\noutput a", 1, "the oversized constant -9223372036854775809");
  check_error("a = 99999999999999999999999999\noutput a", 1, "the oversized constant 99999999999999999999999999");
  check_error<int>("a = 2147483648\noutput a", 1, "the oversized constant 2147483648");
  check_error("input x\ny = x + 1", 2, "none");
  check_error("", 1, "none");
  check_error("input\n", 1, "none");
  check_error("input x\noutput\n", 2, "none");
  check_error("input x x\noutput x", 1, "'x' a second time");
  check_error("input x\nx = 3\noutput x", 2, "'x' a second time");
  check_error("input 3x\noutput x", 1, "'3x'");
  check_error("input x\ny = x / x\noutput y", 2, "a line that begins with 'y'");
  check_error("input x\ny = x+x\noutput y", 2, "'x+x'");
  check_error("input x\ny x\noutput y", 2, "a line that begins with 'y'");
  check_error("input x\ny = \noutput y", 2, "a line that begins with 'y'");
  check_error("y = -\noutput y", 1, "'-'");
  check_error("y = 1/2\noutput y", 1, "'1/2'");
  check_error<Field>("y = 1/998244353\noutput y", 1, "'1/998244353'");
  check_error<Rational>("y = 1/\noutput y", 1, "''");
  check_error<Rational>("y = /2\noutput y", 1, "''");
  check_error("output = 3\noutput output", 1, "'='");
}

TEST_CASE("other errors") {
  Circuit<long> a, b;
  const auto x = a.input(0), y = b.input(0);
  CHECK_THROWS_AS(x + y, Error);
  CHECK_THROWS_AS(a.output(y), Error);
  CHECK_THROWS_AS(a.input(-1), Error);
  CHECK_THROWS_AS(a.wire(9), Error);
  CHECK_THROWS_AS(Circuit<long>(-1), Error);
  const std::vector<long> two(2);
  CHECK_THROWS_AS(a.evaluate(two), Error);
}

}  // namespace

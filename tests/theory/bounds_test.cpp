// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/theory/bounds.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/chain.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/theory/mqar.hpp"

using namespace coyote;
using namespace coyote::theory;

namespace {

Field draw(std::mt19937& random) { return Field(static_cast<long long>(random() % Field::modulus)); }

Matrix<Field> draw(std::mt19937& random, Index rows, Index width) {
  Matrix<Field> x(rows, width);
  for (Field& value : x) value = draw(random);
  return x;
}

/// A stack with no zero anywhere.
Stack<Field> draw_stack(std::mt19937& random, Index rows, Index width, Index layers, Wrap wrap) {
  Stack<Field> stack(rows, width, wrap);
  for (Index l = 0; l < layers; ++l) {
    Program<Field> program;
    for (Index c = 0; c < width; ++c) {
      Form<Field> form;
      Impulses<Field> taps;
      for (Index a = 0; a < width; ++a) form.add(a, draw(random));
      for (Index t = 0; t < rows; ++t) taps.add(t, draw(random));
      const auto noise = [&](Index) { return draw(random); };
      program.gate(c, form, Profile<Field>::of(rows, noise), taps, Profile<Field>::of(rows, noise));
    }
    stack.then(program);
  }
  return stack;
}

Index degree_of(std::mt19937& random, const Stack<Field>& stack, Index points) {
  return line_degree(stack, draw(random, stack.length(), stack.width()), draw(random, stack.length(), stack.width()), points);
}

constexpr Index cube_degree() {
  Matrix<Field> a(1, 1), b(1, 1);
  a(0, 0) = 5;
  b(0, 0) = 3;
  return line_degree<Field>(
      [](const Matrix<Field>& x) {
        Matrix<Field> y(1, 1);
        y(0, 0) = x(0, 0) * x(0, 0) * x(0, 0) + x(0, 0);
        return y;
      },
      a, b, 6);
}
static_assert(cube_degree() == 3);

}  // namespace

TEST_CASE("the degree along a random line is 2^L for L full gate layers, and never more") {
  std::mt19937 random(1);
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    for (Index layers = 0; layers <= 4; ++layers) {
      const Stack<Field> stack = draw_stack(random, 3, 2, layers, wrap);
      CHECK(degree_of(random, stack, (Index{1} << layers) + 3) == Index{1} << layers);
      CHECK(degree_of(random, stack, Index{1} << layers) == (Index{1} << layers) - 1);  // too few points: "at least"
    }
  }
  const Matrix<Field> a = draw(random, 2, 2), b = draw(random, 2, 2);
  CHECK(line_degree<Field>([](const Matrix<Field>&) { return Matrix<Field>(2, 2); }, a, b, 4) == -1);
  CHECK(line_degree<Field>([&](const Matrix<Field>&) { return a; }, a, b, 4) == 0);
  CHECK_THROWS_AS(line_degree<Field>([&](const Matrix<Field>&) { return a; }, a, b, 0), Error);
  CHECK_THROWS_AS(line_degree<Field>([&](const Matrix<Field>&) { return a; }, a, Matrix<Field>(1, 2), 2), Error);
}

TEST_CASE("constructions keep to 2 to the power of their gate layers, and reach what recall needs") {
  std::mt19937 random(2);
  CHECK(degree_of(random, table<Field>(3, 2, 1).stack, 8) == 3);
  for (const Index l : {1, 2, 3, 4, 5}) {
    const auto m1 = lag_unfold<Field>(3, l, 1);
    const Index gates = m1.stack.size().gate_layers, bound = Index{1} << gates;
    const Index found = degree_of(random, m1.stack, bound + 3);
    CHECK(found <= bound);
    CHECK(found >= recall_degree(l));
    CHECK(gates >= required_gate_layers(l));
    if ((l & (l - 1)) == 0) CHECK(gates == required_gate_layers(l));  // none needs fewer
  }
}

TEST_CASE("an answer bit has degree 2 l + 1 with top coefficient 2^l, from all its values") {
  for (const Index l : {1, 2, 3, 4, 5}) {
    const Index n = 2 * l + 1;
    std::vector<long> f(std::size_t{1} << n);  // after Moebius inversion: coefficients of the multilinear polynomial
    for (std::size_t x = 0; x < f.size(); ++x) {
      const std::size_t q = x & ((std::size_t{1} << l) - 1), k = (x >> l) & ((std::size_t{1} << l) - 1), v = x >> (2 * l);
      f[x] = q == k && v == 1;
    }
    for (Index i = 0; i < n; ++i) {
      for (std::size_t x = 0; x < f.size(); ++x) {
        if (x >> i & 1) f[x] -= f[x ^ (std::size_t{1} << i)];
      }
    }
    CHECK(f.back() == 1L << l);
    CHECK(recall_degree(l) == n);
  }
}

TEST_CASE("required bits: formulas, and no encoder of a tiny table does better") {
  CHECK(required_bits({64, 4096}) == doctest::Approx(64 * 12));
  CHECK(required_bits({2, 4, 5}) == doctest::Approx(4 + std::log2(10)));
  CHECK(required_bits({10, 2, 0, 0.9}) == doctest::Approx(10 * (1 + 0.1 * std::log2(0.1) + 0.9 * std::log2(0.9))));
  CHECK(required_bits({10, 2, 0, 0.5}) == 0);
  CHECK(required_bits({10, 4, 0, 0.1}) == 0);
  CHECK(required_bits({10, 4, 0, 0}) == 0);
  CHECK(required_bits({10, 1}) == 0);
  for (const RecallLoad& wrong : {RecallLoad{0, 2}, RecallLoad{1, 0}, RecallLoad{3, 2, 2}, RecallLoad{1, 2, 0, 1.5},
                                  RecallLoad{1, 2, 0, std::nan("")}, RecallLoad{1, std::nan("")}, RecallLoad{1, 2, 4, 0.5}}) {
    CHECK_THROWS_AS(required_bits(wrong), Error);
  }
  // All encoders of `pairs` values into `states` states (states in order of first use), each with its best decoder.
  const auto best_accuracy = [](Index pairs, Index values, Index states) {
    Index tables = 1;
    for (Index d = 0; d < pairs; ++d) tables *= values;
    std::vector<Index> state(static_cast<std::size_t>(tables));
    Index best = 0;
    const std::function<void(Index, Index)> assign = [&](Index table, Index used) {
      if (table < tables) {
        for (Index s = 0; s < std::min(used + 1, states); ++s) {
          state[static_cast<std::size_t>(table)] = s;
          assign(table + 1, std::max(used, s + 1));
        }
        return;
      }
      Index right = 0;
      for (Index s = 0; s < used; ++s) {
        for (Index d = 0, place = 1; d < pairs; ++d, place *= values) {
          std::vector<Index> count(static_cast<std::size_t>(values));
          for (Index t = 0; t < tables; ++t) {
            if (state[static_cast<std::size_t>(t)] == s) ++count[static_cast<std::size_t>(t / place % values)];
          }
          right += *std::max_element(count.begin(), count.end());
        }
      }
      best = std::max(best, right);
    };
    assign(0, 0);
    return static_cast<double>(best) / static_cast<double>(tables * pairs);
  };
  struct {
    Index pairs, values, states;
  } cases[] = {{2, 2, 1}, {2, 2, 2}, {2, 2, 3}, {2, 2, 4}, {3, 2, 2}, {3, 2, 4}, {2, 3, 2}};
  for (const auto& [pairs, values, states] : cases) {
    const double accuracy = best_accuracy(pairs, values, states), has = std::log2(static_cast<double>(states));
    CHECK(required_bits({pairs, static_cast<double>(values), 0, accuracy}) <= has + 1e-9);
    CHECK((accuracy == 1) == (has >= required_bits({pairs, static_cast<double>(values)}) - 1e-9));
  }
}

namespace {
using Short = Coyote<ShortConv<3>>;
using Long = Coyote<LongConv<>>;
using TwoLong = Chain<Long, Long>;
}  // namespace

TEST_CASE("a report says what degree and state exclude") {
  const RecallQuestion easy{.key_bits = 1, .value_bits = 8, .pairs = 2}, hard{.key_bits = 13, .value_bits = 12, .pairs = 64};
  CHECK(degree_verdict<Long>(easy) == Verdict::no);  // degree 2 < 3
  CHECK(degree_verdict<TwoLong>(easy) == Verdict::not_excluded);
  CHECK(degree_verdict<TwoLong>(hard) == Verdict::no);
  CHECK(degree_verdict<Attention<>>(hard) == Verdict::not_excluded);
  // Three taps: the two rows before, 2 * 4 numbers of 32 bits.
  CHECK(state_bits<Short>({4, 128}) == 2 * 4 * 32);
  CHECK(state_bits<Long>({4, 128}) == 128 * 4 * 32);
  CHECK(state_bits<Attention<>>({4, 128}, 16) == 2 * 128 * 4 * 16);
  CHECK(state_verdict<Short>({4, 128}, easy) == Verdict::not_excluded);
  CHECK(state_verdict<Short>({4, 128}, hard) == Verdict::no);
  CHECK(state_verdict<Long>({4, 128}, hard) == Verdict::not_excluded);
  const RecallQuestion edge{.key_bits = 2, .value_bits = 128, .pairs = 2};  // exactly the 256 bits of the state
  CHECK(state_verdict<Short>({4, 128}, edge) == Verdict::not_excluded);
  CHECK(state_verdict<Short>({4, 128}, {.key_bits = 2, .value_bits = 128, .pairs = 2, .known_keys = false}) == Verdict::no);

  const std::string no = report<Chain<Short, Short>>({4, 128}, hard);
  CHECK(no ==
        "solves MQAR of 64 pairs, 13-bit keys, 12-bit values (width 4, length 128)?\n"
        "  degree says  no: an answer bit is a polynomial of degree 27 in the bits, the architecture has degree 4\n"
        "  state says   no: 768 bits must be remembered, the state holds 512\n");
  const std::string open = report<Attention<>>({64, 128}, hard);
  CHECK(open.find("degree says  not excluded") != std::string::npos);
  CHECK(open.find("is not a polynomial") != std::string::npos);
  CHECK(open.find("state says   not excluded: 768 bits must be remembered, the state holds 524288\n") != std::string::npos);
  using Ring = Coyote<LongConv<FreeFilter, Cyclic>>;
  CHECK(report<Ring>({4, 16}, easy).find("state says   nothing: the architecture is not causal") != std::string::npos);
}

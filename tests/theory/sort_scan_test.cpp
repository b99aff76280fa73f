// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/theory/sort_scan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "coyote/theory/lanes.hpp"
#include "support/recall_instance.hpp"

using namespace coyote;
using namespace coyote::theory;
using coyote::test::expected;
using Instance = coyote::test::RecallInstance;

namespace {

Instance draw(std::mt19937& random, Index rows, Index l, Index mv) {
  Instance x;
  for (Index i = 0; i < rows; ++i) {
    const auto below = [&](Index bits) { return static_cast<Token>(random() % (1u << bits)); };
    x.keys.push_back(below(l));
    x.values.push_back(below(mv));
    const Token shown = x.keys[random() % x.keys.size()];
    x.queries.push_back(random() % 4 == 0 ? below(l) : shown);
  }
  return x;
}

int wrong(const Construction<Lanes<>>& construction, const std::vector<Instance>& instances) {
  const std::vector<Aligned> views(instances.begin(), instances.end());
  const List<Array<Token>> answers = solve_all(construction, std::span(views));
  CHECK(answers.size() == static_cast<Index>(instances.size()));
  int count = 0;
  for (std::size_t s = 0; s < instances.size(); ++s) {
    count += std::ranges::equal(answers[static_cast<Index>(s)], expected(instances[s])) ? 0 : 1;
  }
  return count;
}

template <Ring S>
void check_size(const Construction<S>& construction, Index rows, Index l, Index mv, Wrap wrap) {
  Index m = 1;
  while ((Index{1} << (m - 1)) < rows) ++m;
  const Index n = Index{1} << m, w = l + m, stages = m * (m + 1) / 2;
  const StackSize size = construction.stack.size();
  CHECK(size.layers == stages * (8 + log2_ceil(w)) + 2 * m + 8 + log2_ceil(l));
  CHECK(size.width == 3 * (w + 1 + mv) + 2 * w + 2 * stages);
  CHECK(size.length == (wrap == Wrap::cyclic ? n : 5 * n - 2 * m - 4));
  CHECK(construction.answer_row == (wrap == Wrap::cyclic ? 0 : 4 * n - 2 * m - 4));
  CHECK(construction.rows == rows);
  CHECK(!construction.is_causal_step_by_step);
}

constexpr Wrap both[] = {Wrap::cyclic, Wrap::causal};

}  // namespace

TEST_CASE("sort, scan, unsort has the stated sizes") {
  struct {
    Index rows, l, mv, layers, width;
  } listed[] = {{2, 1, 1, 42, 27}, {4, 3, 2, 82, 51}, {8, 4, 3, 128, 72}, {16, 5, 4, 201, 95}};
  for (const auto& [rows, l, mv, layers, width] : listed) {
    for (const Wrap wrap : both) {
      const auto m3 = sort_scan<int>(rows, l, mv, wrap);
      CHECK(m3.stack.size().layers == layers);
      CHECK(m3.stack.size().width == width);
      check_size(m3, rows, l, mv, wrap);
    }
  }
}

TEST_CASE("every instance of small sizes, repeated keys included") {
  struct {
    Index rows, l, mv;
  } sizes[] = {{2, 1, 1}, {2, 2, 1}, {3, 1, 1}};
  for (const auto& [rows, l, mv] : sizes) {
    const Index codes = Index{1} << l, values = Index{1} << mv, choices = codes * codes * values;
    Index total = 1;
    for (Index i = 0; i < rows; ++i) total *= choices;
    std::vector<Instance> all;
    for (Index s = 0; s < total; ++s) {
      Instance x;
      for (Index i = 0, rest = s; i < rows; ++i, rest /= choices) {
        x.keys.push_back(static_cast<Token>(rest % codes));
        x.queries.push_back(static_cast<Token>(rest / codes % codes));
        x.values.push_back(static_cast<Token>(rest / codes / codes % values));
      }
      all.push_back(std::move(x));
    }
    for (const Wrap wrap : both) CHECK(wrong(sort_scan<Lanes<>>(rows, l, mv, wrap), all) == 0);
  }
}

TEST_CASE("random instances, over lanes and over other rings; all numbers stay in -1, 0, 1") {
  std::mt19937 random(1);
  for (const Wrap wrap : both) {
    for (const Index rows : {1, 2, 3, 5, 8, 11, 16}) {
      const Index l = 1 + static_cast<Index>(random() % 5), mv = 1 + static_cast<Index>(random() % 4);
      std::vector<Instance> instances;
      for (int s = 0; s < 64; ++s) instances.push_back(draw(random, rows, l, mv));
      const auto lanes = sort_scan<Lanes<>>(rows, l, mv, wrap);
      check_size(lanes, rows, l, mv, wrap);
      CHECK(wrong(lanes, instances) == 0);
      CHECK(std::ranges::equal(sort_scan<Field>(rows, l, mv, wrap).solve(instances[0]), expected(instances[0])));
      const auto integers = sort_scan<int>(rows, l, mv, wrap);
      Matrix<int> x = integers.embed(instances[1]);
      bool small = true;
      for (const auto& program : integers.stack.programs()) {
        integers.stack.apply(program, x);
        for (const int number : x) small = small && -1 <= number && number <= 1;
      }
      CHECK(small);
      CHECK(std::ranges::equal(integers.answers(x), expected(instances[1])));
    }
  }
}

TEST_CASE("a larger instance") {
  std::mt19937 random(2);
  std::vector<Instance> instances;
  for (int s = 0; s < 32; ++s) instances.push_back(draw(random, 100, 7, 5));
  CHECK(wrong(sort_scan<Lanes<>>(100, 7, 5), instances) == 0);
}

TEST_CASE("the comparison rejects other rules and broken networks") {
  // Key 1 comes twice: the latest value answers, not the first.
  const Instance x{{1, 1, 0, 0}, {1, 2, 3, 0}, {0, 0, 1, 1}};
  CHECK(expected(x) == std::vector<Token>{0, 0, 2, 2});
  const auto m3 = sort_scan<Field>(4, 1, 2);
  CHECK(std::ranges::equal(m3.solve(x), expected(x)));
  CHECK(!std::ranges::equal(m3.answers(Matrix<Field>(m3.stack.length(), m3.stack.width())), expected(x)));
  auto broken = m3;  // over the field, where nothing overflows: without the layer that makes the first exchange
  broken.stack = Stack<Field>(m3.stack.length(), m3.stack.width(), Wrap::cyclic);
  for (Index n = 0; n < m3.stack.programs().size(); ++n) {
    if (n != 8) broken.stack.then(m3.stack.programs()[n]);
  }
  CHECK(!std::ranges::equal(broken.solve(x), expected(x)));
  CHECK_THROWS_AS(m3.solve(Instance{{2, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}), Error);
  CHECK_THROWS_AS(sort_scan<int>(0, 1, 1), Error);
}

TEST_CASE("lanes are a product of rings") {
  std::mt19937 random(3);
  Lanes<4> a, b;
  for (Index n = 0; n < 4; ++n) {
    a.set(n, static_cast<int>(random() % 100) - 50);
    b.set(n, static_cast<int>(random() % 100) - 50);
  }
  for (Index n = 0; n < 4; ++n) {
    CHECK((a + b).at(n) == a.at(n) + b.at(n));
    CHECK((a - b).at(n) == a.at(n) - b.at(n));
    CHECK((a * b).at(n) == a.at(n) * b.at(n));
    CHECK((-a).at(n) == -a.at(n));
    CHECK(Lanes<4>(-3).at(n) == -3);
  }
}

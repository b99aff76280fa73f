// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/routing.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;

/// What the stages do to the row numbers.
std::vector<Index> follow(const List<RouteStage>& stages, Index n) {
  std::vector<Index> x(static_cast<std::size_t>(n));
  std::iota(x.begin(), x.end(), Index{0});
  for (const RouteStage& stage : stages) {
    std::vector<Index> y = x;
    for (Index i = 0; i < n; ++i) {
      const Index from = stage.from_below(i) ? i + stage.distance : stage.from_above(i) ? i - stage.distance : i;
      y[static_cast<std::size_t>(i)] = x[static_cast<std::size_t>(from)];
    }
    x = y;
  }
  return x;
}

Matrix<Field> random_column(Index n, std::mt19937& random) {
  Matrix<Field> u(n, 1);
  for (Field& value : u) value = static_cast<long long>(random());
  return u;
}

/// The routed stack against the map; rows with source -1 may hold anything.
void check_stack(const RoutingStack<Field>& routed, const std::vector<Index>& source, std::mt19937& random) {
  const Index n = static_cast<Index>(source.size());
  const Matrix<Field> u = random_column(n, random), y = routed.stack.run(u);
  bool all = true, slightly_wrong = true;
  for (Index o = 0; o < n; ++o) {
    const Index s = source[static_cast<std::size_t>(o)];
    if (s < 0) continue;
    all = all && y(routed.first_row + o, 0) == u(s, 0);
    slightly_wrong = slightly_wrong && y(routed.first_row + o, 0) == u(s, 0) + 1;
  }
  CHECK(all);
  CHECK(!slightly_wrong);
}

void check_permutation(const std::vector<Index>& source, Index m) {
  const auto stages = benes(source);
  CHECK(stages.size() == 2 * m - 1);
  for (Index k = 0; k < stages.size(); ++k) {
    CHECK(stages[k].distance == (Index{1} << (k < m ? m - 1 - k : k - m + 1)));
    CHECK(!stages[k].copies);
  }
  CHECK(follow(stages, Index{1} << m) == source);
}

TEST_CASE("Benes: every permutation of 2, 4 and 8 rows, random ones beyond") {
  for (Index m = 1; m <= 3; ++m) {
    std::vector<Index> p(static_cast<std::size_t>(1) << m);
    std::iota(p.begin(), p.end(), Index{0});
    do {
      if (follow(benes(p), Index{1} << m) != p) FAIL("a permutation of ", 1 << m, " rows is wrong");
    } while (std::next_permutation(p.begin(), p.end()));
  }
  std::mt19937 random(1);
  for (Index m = 1; m <= 10; ++m) {
    std::vector<Index> p(static_cast<std::size_t>(1) << m);
    std::iota(p.begin(), p.end(), Index{0});
    for (int trial = 0; trial < 5; ++trial) {
      std::shuffle(p.begin(), p.end(), random);
      check_permutation(p, m);
    }
  }
}

TEST_CASE("permutations as stacks: 4m - 1 layers, width 3, N' = n or 3n - 3") {
  std::mt19937 random(2);
  for (Index m = 1; m <= 6; ++m) {
    const Index n = Index{1} << m;
    std::vector<Index> p(static_cast<std::size_t>(n));
    std::iota(p.begin(), p.end(), Index{0});
    for (int trial = 0; trial < 4; ++trial) {
      std::shuffle(p.begin(), p.end(), random);
      for (const Wrap wrap : {Wrap::cyclic, Wrap::causal}) {
        const auto routed = permute_rows<Field>(p, wrap);
        const StackSize size = routed.stack.size();
        CHECK(size.layers == 4 * m - 1);
        CHECK(size.width == 3);
        CHECK(size.gate_layers == 0);
        CHECK(size.length == (wrap == Wrap::cyclic ? n : 3 * n - 3));
        CHECK(routed.first_row == (wrap == Wrap::cyclic ? 0 : 2 * n - 3));
        check_stack(routed, p, random);
      }
    }
  }
}

TEST_CASE("fan-out: every map of 2 and 4 rows, random ones beyond, 5m - 2 stages") {
  for (Index m = 1; m <= 2; ++m) {
    const Index n = Index{1} << m;
    std::vector<Index> f(static_cast<std::size_t>(n), -1);
    for (bool more = true; more;) {
      const auto got = follow(fan_out(f), n);
      for (std::size_t o = 0; o < f.size(); ++o) CHECK((f[o] == -1 || got[o] == f[o]));
      more = false;
      for (Index& source : f) {
        if (++source < n) {
          more = true;
          break;
        }
        source = -1;
      }
    }
  }
  std::mt19937 random(3);
  for (Index m = 1; m <= 7; ++m) {
    const Index n = Index{1} << m;
    for (int trial = 0; trial < 8; ++trial) {
      std::vector<Index> f(static_cast<std::size_t>(n));
      const Index range = 1 + static_cast<Index>(random()) % n;  // few sources: large blocks
      for (Index& source : f) source = random() % 4 == 0 ? -1 : static_cast<Index>(random()) % range;
      f[0] = static_cast<Index>(random()) % range;
      const auto stages = fan_out(f);
      CHECK(stages.size() == 5 * m - 2);
      const auto got = follow(stages, n);
      bool right = true;
      for (std::size_t o = 0; o < f.size(); ++o) right = right && (f[o] == -1 || got[o] == f[o]);
      CHECK(right);
      if (m > 5) continue;
      for (const Wrap wrap : {Wrap::cyclic, Wrap::causal}) {
        const auto routed = map_rows<Field>(f, wrap);
        CHECK(routed.stack.size().layers == 10 * m - 3);
        CHECK(routed.stack.length() == (wrap == Wrap::cyclic ? n : 6 * n - 7));
        CHECK(routed.first_row == (wrap == Wrap::cyclic ? 0 : 5 * n - 7));
        check_stack(routed, f, random);
      }
    }
  }
}

TEST_CASE("errors") {
  const std::vector<Index> three{0, 1, 2}, one{0}, twice{0, 0}, outside{0, 2}, negative{-1, 0}, below{-2, 0};
  CHECK_THROWS_AS(benes(three), Error);
  CHECK_THROWS_AS(benes(one), Error);
  CHECK_THROWS_AS(benes({}), Error);
  CHECK_THROWS_AS(benes(twice), Error);
  CHECK_THROWS_AS(benes(outside), Error);
  CHECK_THROWS_AS(benes(negative), Error);
  CHECK_THROWS_AS(fan_out(three), Error);
  CHECK_THROWS_AS(fan_out(outside), Error);
  CHECK_THROWS_AS(fan_out(below), Error);
  CHECK_THROWS_AS(permute_rows<long>(twice), Error);
  CHECK_THROWS_AS(map_rows<long>(below), Error);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/theory/mqar.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "coyote/tasks/recall.hpp"
#include "support/recall_instance.hpp"

using namespace coyote;
using namespace coyote::theory;
using coyote::test::expected;
using Instance = coyote::test::RecallInstance;

namespace {

template <Ring S>
bool exact(const Construction<S>& construction, const Instance& x) {
  const Array<Token> answers = construction.solve(x);
  return std::ranges::equal(answers, expected(x));
}

Token draw(std::mt19937& random, Index below) {
  return static_cast<Token>(random() % static_cast<std::mt19937::result_type>(below));
}

/// Unique keys of 0 .. c-1, values from `least`, queries of all of them; `none`: some keys and queries are missing.
Instance draw_instance(std::mt19937& random, Index rows, Index c, Index values, bool none = false) {
  std::vector<Token> keys(static_cast<std::size_t>(c));
  for (std::size_t a = 0; a < keys.size(); ++a) keys[a] = static_cast<Token>(a);
  std::shuffle(keys.begin(), keys.end(), random);
  Instance x;
  for (Index i = 0; i < rows; ++i) {
    x.keys.push_back(none && random() % 3 == 0 ? -1 : keys[static_cast<std::size_t>(i)]);
    x.values.push_back(draw(random, values));
    x.queries.push_back(none && random() % 3 == 0 ? -1 : draw(random, c));
  }
  return x;
}

/// Every instance of `rows` rows with unique keys; `lowest` = -1 lets keys and queries be none.
template <class F>
int for_all(Index rows, Index c, Index values, Token lowest, F&& f) {
  const Index tokens = c - lowest, choices = tokens * tokens * values;
  Index total = 1;
  for (Index i = 0; i < rows; ++i) total *= choices;
  int instances = 0;
  for (Index s = 0; s < total; ++s) {
    Instance x;
    Index rest = s;
    bool unique = true;
    for (Index i = 0; i < rows; ++i, rest /= choices) {
      const Token k = static_cast<Token>(rest % tokens) + lowest;
      unique = unique && (k < 0 || std::find(x.keys.begin(), x.keys.end(), k) == x.keys.end());
      x.keys.push_back(k);
      x.queries.push_back(static_cast<Token>(rest / tokens % tokens) + lowest);
      x.values.push_back(static_cast<Token>(rest / tokens / tokens % values));
    }
    if (!unique) continue;
    f(x);
    ++instances;
  }
  return instances;
}

template <Ring S>
void check_size(const Construction<S>& construction, Index layers, Index gate_layers, Index width) {
  const StackSize size = construction.stack.size();
  CHECK(size.layers == layers);
  CHECK(size.gate_layers == gate_layers);
  CHECK(size.width == width);
  CHECK(size.length == construction.rows);
  CHECK(size.dense_parameters == layers * (width * width + 3 * construction.rows * width));
  CHECK(construction.is_causal_step_by_step);
}

/// Changing row i changes no row of any layer before i.
template <Ring S>
bool rows_see_no_later_row(const Construction<S>& construction, const Instance& x, Index changed) {
  Matrix<S> a = construction.embed(x), b = a;
  for (Index c = 0; c < b.width(); ++c) b(changed, c) += S(5);
  for (const auto& program : construction.stack.programs()) {
    construction.stack.apply(program, a);
    construction.stack.apply(program, b);
    for (Index i = 0; i < changed; ++i) {
      for (Index c = 0; c < a.width(); ++c) {
        if (!(a(i, c) == b(i, c))) return false;
      }
    }
  }
  return true;
}

}  // namespace

TEST_CASE("a table over one-hot keys is exact on every small instance and has the stated sizes") {
  for (const bool copied : {false, true}) {
    for (const Index rows : {1, 2, 3}) {
      const auto m0 = table<long>(rows, 2, 1, copied);
      check_size(m0, copied ? 3 : 4, 2, copied ? 2 + 1 + 2 : 4 + 1 + 2);
      int wrong = 0;
      const int instances = for_all(rows, 2, 2, -1, [&](const Instance& x) { wrong += exact(m0, x) ? 0 : 1; });
      CHECK(instances == (rows == 1 ? 18 : rows == 2 ? 7 * 36 : 13 * 216));  // 3, 7 and 13 lists of unique keys or none
      CHECK(wrong == 0);
    }
  }
  std::mt19937 random(1);
  for (int trial = 0; trial < 40; ++trial) {
    const Index c = 2 + draw(random, 8), bits = 1 + draw(random, 4), rows = 1 + draw(random, c);
    const Instance x = draw_instance(random, rows, c, Index{1} << bits, trial % 2 == 1);
    const auto m0 = table<long>(rows, c, bits), slim = table<long>(rows, c, bits, true);
    CHECK(exact(m0, x));
    CHECK(exact(slim, x));
    CHECK(exact(table<Field>(rows, c, bits), x));
    check_size(m0, 4, 2, 2 * c + bits + c * bits);
    check_size(slim, 3, 2, c + bits + c * bits);
    CHECK(rows_see_no_later_row(m0, x, rows - 1));
  }
}

TEST_CASE("a check of answers rejects zeros and a single wrong tap") {
  std::mt19937 random(2);
  const Instance x{{3, 1, 2, 0}, {1, 2, 3, 1}, {0, 3, 3, 1}};
  const auto m0 = table<long>(4, 4, 2);
  CHECK(expected(x) == std::vector<Token>{0, 1, 1, 2});
  CHECK(exact(m0, x));
  CHECK(!std::ranges::equal(m0.answers(Matrix<long>(4, m0.stack.width())), expected(x)));
  auto no_mask = m0;  // sees its own row too: the query of row 0 is then answered wherever it is its own key
  no_mask.stack = Stack<long>(4, m0.stack.width());
  for (Index n = 0; n < 4; ++n) {
    Program<long> program = m0.stack.programs()[n];
    if (n == 2) {
      program = {};
      for (const auto& column : m0.stack.programs()[n].columns()) {
        program.gate(column.column, column.form, {}, Impulses<long>::range(0, 3));
      }
    }
    no_mask.stack.then(program);
  }
  CHECK(exact(no_mask, x));
  CHECK(!exact(no_mask, {{3, 1, 2, 0}, {1, 2, 3, 1}, {3, 3, 3, 1}}));
}

TEST_CASE("the bigram table counts what followed, and solves single-query recall in a width that the length does not change") {
  std::mt19937 random(3);
  for (int trial = 0; trial < 20; ++trial) {
    const Index c = 2 + draw(random, 4), rows = 1 + draw(random, 12);
    const auto stack = bigram_table<long>(rows, c, c, 0, c);
    CHECK(stack.size().layers == 4);
    CHECK(stack.size().gate_layers == 2);
    CHECK(stack.size().width == c * c + c);
    std::vector<Token> x;
    Matrix<long> u(rows, c);
    for (Index i = 0; i < rows; ++i) u(i, x.emplace_back(draw(random, c))) = 1;
    const Matrix<long> y = stack.run(u);
    for (std::size_t i = 0; i < x.size(); ++i) {
      for (Token b = 0; b < c; ++b) {
        long count = 0;
        for (std::size_t j = 1; j <= i; ++j) count += x[j - 1] == x[i] && x[j] == b;
        CHECK(y(static_cast<Index>(i), b) == count);
      }
    }
  }
  // Sequences of the task itself: the label is the only value with a count, or noop if there is none.
  for (const Index pairs : {1, 4, 16}) {
    const SingleQueryRecall task({.vocabulary = 12, .pairs = pairs, .absent = 0.3}, Seed{4});
    const auto stack = bigram_table<long>(task.longest(), 12, task.keys(), task.keys(), task.keys());
    CHECK(stack.width() == 12 + 25);
    LabelledBatch data;
    fill(task, Split::test, 0, 30, data);
    const Batch batch = data.view();
    for (Index s = 0; s < 30; ++s) {
      Matrix<long> u(task.longest(), 12);
      for (Index i = 0; i < u.rows(); ++i) u(i, batch.tokens[static_cast<std::size_t>(s * u.rows() + i)]) = 1;
      const Matrix<long> y = stack.run(u);
      Token found = task.noop();
      for (Token b = 0; b < task.keys(); ++b) {
        if (y(u.rows() - 1, b) > 0) found = static_cast<Token>(task.keys() + b);
      }
      CHECK(found == batch.labels[static_cast<std::size_t>(s)]);
    }
  }
}

TEST_CASE("the lag unfold is exact over the field and over the integers, with all lags or the needed ones") {
  for (const Index rows : {1, 2, 3}) {
    const Index l = rows == 3 ? 2 : 1;
    const auto field = lag_unfold<Field>(rows, l, 1);
    const auto integers = lag_unfold<long>(rows, l, 1);
    int wrong = 0;
    const int instances =
        for_all(rows, Index{1} << l, 2, 0, [&](const Instance& x) { wrong += exact(field, x) && exact(integers, x) ? 0 : 1; });
    CHECK(instances == (rows == 1 ? 8 : rows == 2 ? 2 * 16 : 24 * 512));
    CHECK(wrong == 0);
  }
  std::mt19937 random(5);
  for (int trial = 0; trial < 40; ++trial) {
    const Index l = 1 + draw(random, 5), mv = 1 + draw(random, 3), c = Index{1} << l;
    const Index rows = 2 + draw(random, std::min(c, Index{8}) - 1);
    const Instance x = draw_instance(random, rows, c, Index{1} << mv);
    const auto field = lag_unfold<Field>(rows, l, mv);
    const auto integers = lag_unfold<long>(rows, l, mv);
    CHECK(exact(field, x));
    CHECK(exact(integers, x));
    CHECK(field.unit == Field(1));
    CHECK(integers.unit == 1L << l);
    CHECK(exact(lag_unfold<Field>(rows, l, mv, all_lags(rows), false, Field(1)), x));
    check_size(field, 5 + log2_ceil(l), 2 + log2_ceil(l), 2 * l + mv + (rows - 1) * (l + mv));
    check_size(integers, 5 + log2_ceil(l), 2 + log2_ceil(l), 2 * l + mv + (rows - 1) * (l + mv));
    CHECK(rows_see_no_later_row(field, x, rows - 1));
    std::vector<bool> needed(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < x.keys.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (x.keys[j] == x.queries[i]) needed[i - j] = true;
      }
    }
    Array<Index> lags(std::count(needed.begin(), needed.end(), true));
    for (std::size_t t = 1, n = 0; t < needed.size(); ++t) {
      if (needed[t]) lags[static_cast<Index>(n++)] = static_cast<Index>(t);
    }
    const auto few = lag_unfold<Field>(rows, l, mv, lags);
    CHECK(exact(few, x));
    check_size(few, 5 + log2_ceil(l), lags.size() > 0 ? 2 + log2_ceil(l) : 0, 2 * l + mv + lags.size() * (l + mv));
    if (lags.size() > 0) {  // without one of them some value other than 0 is lost
      Array<Index> fewer(lags.size() - 1);
      for (Index n = 0; n < fewer.size(); ++n) fewer[n] = lags[n];
      Instance odd = x;
      for (Token& v : odd.values) v |= 1;
      CHECK(exact(few, odd));
      CHECK(!exact(lag_unfold<Field>(rows, l, mv, fewer), odd));
    }
  }
}

TEST_CASE("the lag unfold answers raw tokens with what followed") {
  std::mt19937 random(6);
  for (int trial = 0; trial < 30; ++trial) {
    const Index l = 3 + draw(random, 2), rows = 2 + draw(random, 7);
    std::vector<Token> x;  // every token at most twice, so that the answer is single
    for (Index i = 0; i < rows; ++i) {
      Token t = draw(random, Index{1} << l);
      while (std::count(x.begin(), x.end(), t) >= 2) t = draw(random, Index{1} << l);
      x.push_back(t);
    }
    const auto m1 = lag_unfold<Field>(rows, l, l, all_lags(rows), true);
    std::vector<Token> wanted = recall_answers(x, Occurrence::latest);
    for (Token& a : wanted) a = std::max(a, Token{0});
    CHECK(std::ranges::equal(m1.solve({x, x, x}), wanted));
    check_size(m1, 5 + log2_ceil(l), 2 + log2_ceil(l), 3 * l + (rows - 1) * 2 * l);
  }
}

TEST_CASE("scalar tokens: equality by a power in the prime field") {
  std::mt19937 random(7);
  const auto p = static_cast<Index>(Field::modulus);
  for (int trial = 0; trial < 10; ++trial) {
    const Index rows = 1 + trial % 6;
    Instance x;
    for (Index i = 0; i < rows; ++i) {
      x.keys.push_back(draw(random, p));
      x.values.push_back(draw(random, p));
      x.queries.push_back(trial % 2 == 0 || i == 0 ? draw(random, p) : x.keys[static_cast<std::size_t>(draw(random, i))]);
    }
    const auto m2 = scalar_tokens(rows);
    CHECK(exact(m2, x));
    check_size(m2, 35, rows > 1 ? 31 : 0, 3 * rows);
  }
  const auto m2 = scalar_tokens(3);
  int wrong = 0;
  for_all(3, 3, 2, 0, [&](const Instance& x) { wrong += exact(m2, x) ? 0 : 1; });
  CHECK(wrong == 0);
}

namespace {
template <Ring S>
Matrix<S> one_hot(const std::vector<Token>& tokens, Index c) {
  Matrix<S> x(static_cast<Index>(tokens.size()), c);
  for (Index i = 0; i < x.rows(); ++i) {
    if (const Token t = tokens[static_cast<std::size_t>(i)]; t >= 0) x(i, t) = S(1);
  }
  return x;
}
std::vector<Index> list(const Array<Index>& a) { return {a.begin(), a.end()}; }
}  // namespace

TEST_CASE("lags come from correlations; the gated look-up over them is exact, and every one is needed") {
  std::mt19937 random(8);
  for (int trial = 0; trial < 60; ++trial) {
    const Index rows = 2 + draw(random, 11), c = rows + draw(random, 4);
    Instance x = draw_instance(random, rows, c, 98, true);
    for (Token& v : x.values) ++v;
    const Array<long> scores = lag_scores<long>(one_hot<long>(x.queries, c), one_hot<long>(x.keys, c));
    const Array<Field> transformed = lag_scores_by_transform(one_hot<Field>(x.queries, c), one_hot<Field>(x.keys, c));
    std::vector<Index> needed;
    for (Index t = 0; t < rows; ++t) {
      long count = 0;
      for (Index i = t; i < rows; ++i) {
        const Token q = x.queries[static_cast<std::size_t>(i)];
        count += q >= 0 && q == x.keys[static_cast<std::size_t>(i - t)];
      }
      CHECK(scores[t] == count);
      CHECK(transformed[t] == Field(count));
      if (t > 0 && count > 0) needed.push_back(t);
    }
    const Array<Index> lags = scored_lags(scores);
    CHECK(list(lags) == needed);
    const auto lookup = gated_lookup<long>(rows, c, lags);
    CHECK(exact(lookup, x));
    CHECK(exact(gated_lookup<long>(rows, c, all_lags(rows)), x));  // more lags do no harm
    CHECK(gated_lookup<long>(rows, c, all_lags(rows)).is_causal_step_by_step);
    const StackSize size = lookup.stack.size();
    CHECK(size.layers == 5);
    CHECK(size.gate_layers == (needed.empty() ? 0 : 2));
    CHECK(size.width == 2 * c + 1 + lags.size() * (c + 1));
    CHECK(lookup.is_causal_step_by_step == (lags.size() == rows - 1));
    for (const Index missing : needed) {
      Array<Index> others(lags.size() - 1);
      for (Index n = 0, m = 0; n < lags.size(); ++n) {
        if (lags[n] != missing) others[m++] = lags[n];
      }
      CHECK(!exact(gated_lookup<long>(rows, c, others), x));
    }
  }
}

TEST_CASE("counterexample: without the gate, a convolution over the right lags mixes values") {
  const Instance x{{0, 1, 2, -1, -1}, {10, 20, 30, 0, 0}, {-1, -1, -1, 1, 0}};
  const Array<Index> lags = scored_lags(lag_scores<long>(one_hot<long>(x.queries, 3), one_hot<long>(x.keys, 3)));
  CHECK(list(lags) == std::vector<Index>{2, 4});
  Stack<long> ungated(5, 1);
  Impulses<long> taps;
  for (const Index t : lags) taps.add(t, 1);
  ungated.then(Program<long>().conv(0, taps));
  Matrix<long> v(5, 1);
  for (Index i = 0; i < 5; ++i) v(i, 0) = x.values[static_cast<std::size_t>(i)];
  const Matrix<long> y = ungated.run(v);
  CHECK(y(4, 0) == 40);  // 10 from lag 4 and 30 from lag 2
  CHECK(y(2, 0) == 10);  // not even a query
  CHECK(exact(gated_lookup<long>(5, 3, lags), x));
  CHECK(expected(x) == std::vector<Token>{0, 0, 0, 20, 10});
}

TEST_CASE("counterexample: the strongest lag of untagged tokens is not the needed one, a threshold keeps it") {
  const std::vector<Token> tokens{0, 3, 4, 1, 3, 4, 2, 3, 0};  // (k, v, q) three times; only the last query has a match
  CHECK(mqar_interleaved(tokens) == std::vector<Token>{no_answer, no_answer, 3});
  const Matrix<long> u = one_hot<long>(tokens, 5);
  const Array<long> scores = lag_scores<long>(u, u);
  CHECK(scores[8] == 1);
  CHECK(scores[3] == 3);
  for (Index t = 1; t < 9; ++t) CHECK(scores[t] <= scores[3]);
  const std::vector<Index> lags = list(scored_lags(scores));
  CHECK(std::find(lags.begin(), lags.end(), 8) != lags.end());
}

TEST_CASE("counterexample: a correlation that wraps finds a match between the last row and the first") {
  const std::vector<Token> tokens{5, 0, 1, 2, 3, 5};
  const Matrix<Field> u = one_hot<Field>(tokens, 6);
  CHECK(lag_scores_by_transform(u, u)[1] == Field(0));
  CHECK(lag_scores_by_transform(u, u)[5] == Field(1));
  int wrapped = 0;
  for (std::size_t i = 0; i < 6; ++i) wrapped += tokens[i] == tokens[(i + 5) % 6];
  CHECK(wrapped == 1);
}

TEST_CASE("dense embeddings score within their coherence of one-hot ones") {
  std::mt19937 random(9);
  constexpr Index rows = 12, c = 16, d = 1024;
  for (int trial = 0; trial < 10; ++trial) {
    Matrix<double> code(c, d);
    for (double& x : code) x = (random() % 2 == 0 ? 1 : -1) / std::sqrt(static_cast<double>(d));
    double mu = 0;
    for (Index a = 0; a < c; ++a) {
      for (Index b = 0; b < a; ++b) {
        double product = 0;
        for (Index n = 0; n < d; ++n) product += code(a, n) * code(b, n);
        mu = std::max(mu, std::abs(product));
      }
    }
    const Instance x = draw_instance(random, rows, c, 2, true);
    Matrix<double> q(rows, d), k(rows, d);
    for (Index i = 0; i < rows; ++i) {
      const Token qi = x.queries[static_cast<std::size_t>(i)], ki = x.keys[static_cast<std::size_t>(i)];
      for (Index n = 0; n < d; ++n) {
        if (qi >= 0) q(i, n) = code(qi, n);
        if (ki >= 0) k(i, n) = code(ki, n);
      }
    }
    const Array<double> dense = lag_scores<double>(q, k);
    const Array<long> counts = lag_scores<long>(one_hot<long>(x.queries, c), one_hot<long>(x.keys, c));
    for (Index t = 0; t < rows; ++t) {
      double pairs = 0;
      for (Index i = t; i < rows; ++i) {
        pairs += x.queries[static_cast<std::size_t>(i)] >= 0 && x.keys[static_cast<std::size_t>(i - t)] >= 0;
      }
      const double matches = static_cast<double>(counts[t]);
      CHECK(std::abs(dense[t] - matches) <= (pairs - matches) * mu + 1e-9);
      if (pairs * mu < 0.5) CHECK((dense[t] > 0.5) == (matches > 0));
    }
  }
}

TEST_CASE("wrong sizes and tokens are errors") {
  CHECK_THROWS_AS(table<long>(0, 2, 1), Error);
  CHECK_THROWS_AS(table<long>(2, 0, 1), Error);
  CHECK_THROWS_AS(lag_unfold<long>(2, 0, 1), Error);
  CHECK_THROWS_AS(bigram_table<long>(4, 3, 2, 2, 2), Error);
  Array<Index> lag(1);
  CHECK_THROWS_AS(lag_unfold<long>(2, 1, 1, lag), Error);
  lag[0] = 2;
  CHECK_THROWS_AS(gated_lookup<long>(2, 1, lag), Error);
  const auto m0 = table<long>(2, 2, 1);
  CHECK_THROWS_AS(m0.solve(Instance{{0}, {0}, {0}}), Error);
  CHECK_THROWS_AS(m0.solve(Instance{{0, 2}, {0, 0}, {0, 0}}), Error);
  CHECK_THROWS_AS(m0.solve(Instance{{0, 1}, {0, 2}, {0, 0}}), Error);
  CHECK_THROWS_AS((lag_unfold<long>(2, 1, 1).solve(Instance{{0, 1}, {0, 0}, {0, -1}})), Error);
}

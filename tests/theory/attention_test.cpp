// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/theory/attention.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>

#include "coyote/operations/cpu/operations.hpp"
#include "coyote/tasks/oracle.hpp"
#include "support/recall_instance.hpp"

using namespace coyote;
using namespace coyote::theory;
using coyote::test::RecallInstance;

namespace {

/// One-hot rows of the exact form against the definition; a key, value or query below 0 is the zero row.
template <Index C, class S, class M>
bool exact(const M& model, const RecallInstance& x) {
  const auto n = static_cast<Index>(x.keys.size());
  Matrix<S> u(n, 3 * C), y(n, C);
  for (Index i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const Token parts[] = {x.keys[at], x.values[at], x.queries[at]};
    for (Index part = 0; part < 3; ++part) {
      if (parts[part] >= 0) u(i, part * C + parts[part]) = S(1);
    }
  }
  Context<Reference> context;
  model.forward(context, {.sequences = 1, .length = n}, u, y);
  RecallInstance never = x;  // what is none matches nothing
  for (Token& q : never.queries) q = q < 0 ? -9 : q;
  const std::vector<Token> answers = mqar_aligned(never.keys, never.values, never.queries);
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < C; ++c) {
      if (!(y(i, c) == S(answers[static_cast<std::size_t>(i)] == c ? 1 : 0))) return false;
    }
  }
  return true;
}

RecallInstance draw(std::mt19937& random, Index rows, Index l, Index mv, bool unique) {
  const auto below = [&](Index bits) { return static_cast<Token>(random() % (1u << bits)); };
  std::vector<Token> keys(std::size_t{1} << l);
  for (std::size_t a = 0; a < keys.size(); ++a) keys[a] = static_cast<Token>(a);
  std::shuffle(keys.begin(), keys.end(), random);
  RecallInstance x;
  for (Index i = 0; i < rows; ++i) {
    x.keys.push_back(unique ? keys[static_cast<std::size_t>(i)] : static_cast<Token>(below(l) % 3));
    x.values.push_back(below(mv));
    x.queries.push_back(x.keys[random() % x.keys.size()]);
  }
  return x;
}

/// The farthest that an answer bit of a row with a match is from the right one; NaN stays.
template <class Backend, class T>
double farthest(const AttentionRecall<Backend, T>& recall, const RecallInstance& x) {
  const std::vector<Token> answers = mqar_aligned(x.keys, x.values, x.queries);  // the latest
  const Matrix<T> u = recall.embed(x);
  Matrix<T> y(u.rows(), u.width());
  Context<Backend> context = make_context<Backend>();
  recall.model.forward(context, {.sequences = 1, .length = u.rows()}, u, y);
  double worst = 0;
  for (Index i = 0; i < u.rows(); ++i) {
    const Token answer = answers[static_cast<std::size_t>(i)];
    for (Index r = 0; r < recall.value_bits && answer >= 0; ++r) {
      const double bit = (answer >> (recall.value_bits - 1 - r)) & 1;
      const double off = std::abs(static_cast<double>(y(i, recall.answer_column() + r)) - bit);
      if (worst == worst && !(off <= worst)) worst = off;
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("without softmax: every instance of three rows, over the integers and the field") {
  const auto integers = exact_attention<2, long>(3);
  const auto field = exact_attention<2, Field>(3);
  CHECK(exact_attention_size<2>(3) == AttentionSize{1, 6, 3, 9 * 4 + 3, true});
  int compared = 0, wrong = 0;
  for (Index s = 0; s < 18 * 18 * 18; ++s) {  // keys and queries of {none, 0, 1}, values of {0, 1}
    RecallInstance x;
    for (Index i = 0, rest = s; i < 3; ++i, rest /= 18) {
      x.keys.push_back(static_cast<Token>(rest % 3 - 1));
      x.queries.push_back(static_cast<Token>(rest / 3 % 3 - 1));
      x.values.push_back(static_cast<Token>(rest / 9 % 2));
    }
    bool unique = true;
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < i; ++j) unique = unique && (x.keys[i] < 0 || x.keys[i] != x.keys[j]);
    }
    if (!unique) continue;
    ++compared;
    wrong += exact<2, long>(integers, x) && exact<2, Field>(field, x) ? 0 : 1;
  }
  CHECK(compared == 13 * 216);
  CHECK(wrong == 0);
  // Without the strict mask a row finds its own key.
  auto loose = exact_attention<2, long>(2);
  auto open = [](const Path& path, auto& p) {
    if (path.view().ends_with("taps")) p.value(0, 0) = 1;
  };
  const RecallInstance own{{0, 1}, {1, 0}, {1, 1}};
  CHECK(exact<2, long>(loose, own));
  loose.visit(open);
  CHECK(!exact<2, long>(loose, own));
}

TEST_CASE("softmax misses what the formula says: one-hot codes meet it, the sharpness is the least") {
  for (const Index n : {2, 5, 64}) {
    for (const double miss : {0.3, 1e-2, 1e-6}) {
      const double beta = attention_sharpness(n, miss);
      CHECK(attention_miss(beta, n) <= miss * (1 + 1e-9));
      CHECK(attention_miss(beta - 1e-3, n) > miss);
      // By the definition of softmax, with n - 1 scores of 0 and one of beta.
      CHECK(attention_miss(beta, n) ==
            doctest::Approx(static_cast<double>(n - 1) / (static_cast<double>(n - 1) + std::exp(beta))));
      CHECK(LatestSharpness::of(n, miss).miss(n) <= miss * (1 + 1e-9));
    }
  }
  CHECK(attention_sharpness(4, 0.9, 0, 4) == 0);
  CHECK_THROWS_AS(attention_sharpness(4, 0), Error);
  CHECK_THROWS_AS(attention_sharpness(4, 0.1, 1), Error);
  CHECK_THROWS_AS(attention_sharpness(4, 0.1, 0, 5), Error);
}

TEST_CASE_TEMPLATE("softmax with unique keys, and the latest of several, within the miss", Backend, Reference, Cpu) {
  std::mt19937 random(1);
  for (const auto& [rows, l, mv] : {std::array<Index, 3>{1, 1, 1}, {2, 1, 2}, {7, 3, 2}, {30, 5, 4}}) {
    for (const double miss : {1e-2, 1e-5}) {
      const auto unique = attention_recall<Backend, double>(rows, l, mv, miss);
      const auto latest = attention_recall<Backend, double>(rows, l, mv, miss, AttentionRule::latest);
      CHECK(unique.size == AttentionSize{2, 2 * l + mv, rows, cost<RecallAttention>(2 * l + mv, rows).parameters, true});
      CHECK(latest.size.width == 2 * l + mv + 2);
      for (int trial = 0; trial < 10; ++trial) {
        CHECK(farthest(unique, draw(random, rows, l, mv, true)) <= miss + 1e-12);
        CHECK(farthest(latest, draw(random, rows, l, mv, true)) <= miss + 1e-12);
        CHECK(farthest(latest, draw(random, rows, l, mv, false)) <= miss + 1e-12);
      }
    }
  }
  // The bound is no formality: less sharp, or by the other rule, answers are off by more.
  const Index rows = 24, l = 5, mv = 4;
  const auto blunt = attention_recall<Backend, double>(rows, l, mv, 0.2),
             sharp = attention_recall<Backend, double>(rows, l, mv, 1e-4);
  const RecallInstance distinct = draw(random, rows, l, mv, true), repeated = draw(random, rows, l, mv, false);
  CHECK(farthest(sharp, distinct) <= 1e-4);
  CHECK(farthest(blunt, distinct) > 1e-4);
  CHECK(farthest(sharp, repeated) > 0.1);
  CHECK_THROWS_AS((attention_recall<Backend, double>(0, 1, 1, 0.1)), Error);
  CHECK_THROWS_AS(sharp.embed(RecallInstance{{0}, {0}, {0}}), Error);
}

TEST_CASE("two layers on raw tokens") {
  std::mt19937 random(2);
  const double miss = 1e-3;
  for (int trial = 0; trial < 20; ++trial) {
    constexpr Index l = 4;
    const Index rows = 2 + static_cast<Index>(random() % 14);
    CHECK(token_attention_size(rows, l) == AttentionSize{2, 2 * l, rows, cost<RecallAttention>(2 * l, rows).parameters, true});
    const auto model = token_attention<Cpu, double>(rows, l, miss);
    std::vector<Token> x;  // every token at most twice, so that the answer is single
    for (Index i = 0; i < rows; ++i) {
      auto t = static_cast<Token>(random() % 16);
      while (std::count(x.begin(), x.end(), t) >= 2) t = static_cast<Token>(random() % 16);
      x.push_back(t);
    }
    const auto code = [](Token t, Index r) { return ((t >> r & 1) != 0 ? 1 : -1) / std::sqrt(static_cast<double>(l)); };
    Matrix<double> u(rows, 2 * l), y(rows, 2 * l);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < 2 * l; ++c) u(i, c) = code(x[static_cast<std::size_t>(i)], c % l);
    }
    Context<Cpu> context(1);
    model.forward(context, {.sequences = 1, .length = rows}, u, y);
    const std::vector<Token> answers = recall_answers(x, Occurrence::latest);
    for (Index i = 0; i < rows; ++i) {
      const Token answer = answers[static_cast<std::size_t>(i)];
      if (answer < 0) continue;
      double distance = 0, to_other = 0;
      for (Index c = 0; c < l; ++c) {
        distance += std::pow(y(i, c) - code(answer, c), 2);
        to_other += std::pow(y(i, c) - code(answer ^ 1, c), 2);
      }
      CHECK(std::sqrt(distance) <= 2 * miss);
      CHECK(std::sqrt(to_other) > 2 * miss);
    }
  }
}

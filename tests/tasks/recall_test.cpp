// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/tasks/recall.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "coyote/tasks/induction.hpp"
#include "coyote/tasks/mixture.hpp"
#include "coyote/tasks/oracle.hpp"
#include "support/message_of.hpp"

using coyote::Index;
using coyote::InductionHeads;
using coyote::InductionHeadsOptions;
using coyote::LabelledBatch;
using coyote::Occurrence;
using coyote::Seed;
using coyote::SingleQueryRecall;
using coyote::SingleQueryRecallOptions;
using coyote::Split;
using coyote::Token;
using coyote::TokenSequence;
using coyote::test::message_of;

namespace {

/// The definition of single-query recall, checked from the finished sequence. Empty if all is well.
std::string broken_rule(const SingleQueryRecall& task, const TokenSequence& s) {
  const auto& o = task.options();
  const auto rows = static_cast<std::size_t>(task.longest()), pairs = static_cast<std::size_t>(o.pairs);
  if (s.tokens.size() != rows || rows != 2 * pairs + (o.separator ? 2 : 1)) return "length";
  std::vector<Token> value(static_cast<std::size_t>(task.keys()), -1);
  for (std::size_t i = 0; i < pairs; ++i) {
    const Token k = s.tokens[2 * i], v = s.tokens[2 * i + 1];
    if (k < 0 || k >= task.keys()) return "key range";
    if (v < task.keys() || v >= 2 * task.keys()) return "value range";
    Token& known = value[static_cast<std::size_t>(k)];
    if (known >= 0 && known != v) return "consistent values";
    known = v;
  }
  if (o.separator && s.tokens[2 * pairs] != task.separator()) return "separator";
  if (s.label_rows != std::vector<Index>{static_cast<Index>(rows) - 1} || s.labels.size() != 1) return "label at the last row";
  const Token query = s.tokens.back();
  if (query < 0 || query >= task.keys()) return "query range";
  const Token expected = value[static_cast<std::size_t>(query)] < 0 ? task.noop() : value[static_cast<std::size_t>(query)];
  return s.labels[0] == expected ? "" : "label is the key's value or noop";
}

std::string broken_rule(const InductionHeads& task, const TokenSequence& s) {
  const auto rows = static_cast<std::size_t>(task.options().length);
  if (s.tokens.size() != rows) return "length";
  for (const Token token : s.tokens)
    if (token < 0 || token >= task.vocabulary()) return "range";
  if (s.tokens.back() != task.trigger()) return "trigger at the end";
  if (std::count(s.tokens.begin(), s.tokens.end(), task.trigger()) != 2) return "trigger twice";
  if (s.label_rows != std::vector<Index>{static_cast<Index>(rows) - 1} || s.labels.size() != 1) return "label at the last row";
  const auto first = std::find(s.tokens.begin(), s.tokens.end(), task.trigger());
  if (s.labels[0] == task.trigger()) return "label is not the trigger";
  return s.labels[0] == *(first + 1) ? "" : "label follows the trigger";
}

}  // namespace

TEST_CASE("single-query recall obeys its definition") {
  for (const SingleQueryRecallOptions options :
       {SingleQueryRecallOptions{}, SingleQueryRecallOptions{.absent = 0.5}, SingleQueryRecallOptions{.absent = 1},
        SingleQueryRecallOptions{.separator = false}, SingleQueryRecallOptions{.vocabulary = 4, .pairs = 1},
        SingleQueryRecallOptions{.vocabulary = 7, .pairs = 30, .absent = 0.2},
        SingleQueryRecallOptions{.vocabulary = 1000, .pairs = 5}}) {
    const SingleQueryRecall task(options, Seed{1});
    TokenSequence out;
    for (std::uint64_t i = 0; i < 300; ++i) {
      task.generate(Split::training, i, out);
      CHECK(broken_rule(task, out) == "");
      if (options.absent == 0) CHECK(out.labels[0] != task.noop());
      if (options.absent == 1) CHECK(out.labels[0] == task.noop());
    }
  }
}

TEST_CASE("the checkers catch sequences that are wrong") {
  const SingleQueryRecall task({}, Seed{1});
  TokenSequence good;
  task.generate(Split::training, 0, good);
  REQUIRE(broken_rule(task, good) == "");
  TokenSequence bad = good;
  bad.labels[0] = good.labels[0] == 9 ? 10 : 9;
  CHECK(broken_rule(task, bad) == "label is the key's value or noop");
  bad.labels[0] = task.noop();
  CHECK(broken_rule(task, bad) == "label is the key's value or noop");
  bad = good;
  bad.tokens[20] = 0;
  CHECK(broken_rule(task, bad) == "separator");
  bad = good;
  bad.tokens[2] = bad.tokens[0];
  bad.tokens[3] = bad.tokens[1] == 9 ? 10 : 9;
  CHECK(broken_rule(task, bad) == "consistent values");

  const InductionHeads heads({}, Seed{1});
  heads.generate(Split::training, 0, good);
  REQUIRE(broken_rule(heads, good) == "");
  bad = good;
  bad.labels[0] = (good.labels[0] + 1) % 19;
  CHECK(broken_rule(heads, bad) == "label follows the trigger");
  bad = good;
  bad.tokens[bad.tokens[3] == heads.trigger() ? 4 : 3] = heads.trigger();
  CHECK(broken_rule(heads, bad) == "trigger twice");
}

TEST_CASE("keys repeat, queries cover every position, absence has its probability") {
  const SingleQueryRecall task({.absent = 0.25}, Seed{2});
  TokenSequence out;
  int absent = 0, repeated = 0;
  std::set<Token> queries, values;
  const int count = 4000;
  for (int i = 0; i < count; ++i) {
    task.generate(Split::validation, static_cast<std::uint64_t>(i), out);
    absent += out.labels[0] == task.noop() ? 1 : 0;
    std::set<Token> keys;
    for (std::size_t pair = 0; pair < 10; ++pair) keys.insert(out.tokens[2 * pair]);
    repeated += keys.size() < 10 ? 1 : 0;
    queries.insert(out.tokens.back());
    values.insert(out.labels[0]);
  }
  // Five standard deviations of a binomial.
  CHECK(std::abs(absent - 0.25 * count) <= 5 * std::sqrt(0.25 * 0.75 * count));
  CHECK(repeated > count / 2);
  CHECK(queries.size() == 9);
  CHECK(values.size() == 10);  // nine values and noop
}

TEST_CASE("labels are the raw-token answers by either rule") {
  LabelledBatch batch;
  coyote::fill(SingleQueryRecall({}, Seed{3}), Split::test, 0, 200, batch);
  CHECK(coyote::disagreements(batch.view(), Occurrence::first) == 0);
  CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 0);
  coyote::fill(SingleQueryRecall({.absent = 1}, Seed{3}), Split::test, 0, 200, batch);
  CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 200);  // noop is not in the input
  coyote::fill(InductionHeads({}, Seed{3}), Split::test, 0, 200, batch);
  CHECK(coyote::disagreements(batch.view(), Occurrence::first) == 0);
  CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 0);
}

TEST_CASE("induction heads obey their definition and use every row") {
  for (const InductionHeadsOptions options : {InductionHeadsOptions{}, InductionHeadsOptions{.vocabulary = 3, .length = 3},
                                              InductionHeadsOptions{.vocabulary = 500, .length = 101}}) {
    const InductionHeads task(options, Seed{4});
    TokenSequence out;
    std::set<std::ptrdiff_t> rows;
    for (std::uint64_t i = 0; i < 1500; ++i) {
      task.generate(Split::training, i, out);
      CHECK(broken_rule(task, out) == "");
      rows.insert(std::find(out.tokens.begin(), out.tokens.end(), task.trigger()) - out.tokens.begin());
    }
    CHECK(static_cast<Index>(rows.size()) == options.length - 2);
  }
}

TEST_CASE("mixtures of these tasks are packed batches") {
  const coyote::Mixture<InductionHeads> heads({{{.length = 8}, 1}, {{.length = 30}, 1}}, Seed{1});
  const coyote::Mixture<SingleQueryRecall> recall({{{.pairs = 3}, 1}, {{.vocabulary = 30, .pairs = 12}, 1}}, Seed{1});
  LabelledBatch batch;
  coyote::fill(heads, Split::training, 0, 40, batch);
  batch.view().check("heads");
  CHECK(batch.view().length == 30);
  CHECK(!batch.view().offsets.empty());
  CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 0);
  coyote::fill(recall, Split::training, 0, 40, batch);
  batch.view().check("recall");
  CHECK(batch.view().length == 26);
  CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 0);
}

TEST_CASE("impossible options throw and say which") {
  const auto recall = [](SingleQueryRecallOptions options) { return message_of([&] { SingleQueryRecall task(options); }); };
  CHECK(recall({.vocabulary = 3}) ==
        "SingleQueryRecall.vocabulary: required 4 .. 2147483647 tokens (a key, a value, separator and noop), came 3");
  CHECK(recall({.pairs = 0}) == "SingleQueryRecall.pairs: required 1 .. 1073741824 pairs, came 0");
  CHECK(recall({.absent = -0.5}).find("SingleQueryRecall.absent: required a probability, 0 .. 1, came -0.5") == 0);
  CHECK(recall({.absent = std::nan("")}).find("SingleQueryRecall.absent") == 0);
  CHECK(recall({.vocabulary = 5, .absent = 0.1}) ==
        "SingleQueryRecall.vocabulary: required at least 6 tokens where a key can be absent (two keys), came 5");
  CHECK(recall({.vocabulary = 5}) == "nothing thrown");
  const auto heads = [](InductionHeadsOptions options) { return message_of([&] { InductionHeads task(options); }); };
  CHECK(heads({.vocabulary = 2}) ==
        "InductionHeads.vocabulary: required 3 .. 2147483647 tokens (the trigger and two others), came 2");
  CHECK(heads({.length = 2}) == "InductionHeads.length: required 3 .. 2147483647 rows (trigger, token, trigger), came 2");
}

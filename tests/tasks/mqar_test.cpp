// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/tasks/mqar.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "coyote/tasks/oracle.hpp"
#include "support/message_of.hpp"

using coyote::Index;
using coyote::LabelledBatch;
using coyote::Mqar;
using coyote::MqarFiller;
using coyote::MqarLayout;
using coyote::MqarMixture;
using coyote::MqarOptions;
using coyote::Occurrence;
using coyote::Seed;
using coyote::Split;
using coyote::Token;
using coyote::TokenSequence;
using coyote::test::message_of;

namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// The definition, checked from the finished sequence alone. Empty if all is well, otherwise the rule that is broken.
std::string broken_rule(const MqarOptions& o, const TokenSequence& s) {
  if (static_cast<Index>(s.tokens.size()) != o.length) return "length";
  const Index context = 2 * o.pairs * o.passes, half = o.vocabulary / 2;
  std::vector<Token> keys, values;
  for (Index i = 0; i < o.pairs; ++i) {
    keys.push_back(s.tokens[at(2 * i)]);
    values.push_back(s.tokens[at(2 * i + 1)]);
    if (keys.back() < 1 || keys.back() >= half) return "key range";
    if (values.back() < half || values.back() >= o.vocabulary) return "value range";
  }
  if (std::set<Token>(keys.begin(), keys.end()).size() != keys.size()) return "distinct keys";
  if (std::set<Token>(values.begin(), values.end()).size() != values.size()) return "distinct values";
  for (Index r = 0; r < context; ++r)
    if (s.tokens[at(r)] != s.tokens[at(r % (2 * o.pairs))]) return "passes";
  if (static_cast<Index>(s.label_rows.size()) != o.pairs || s.labels.size() != s.label_rows.size()) return "one label per pair";
  std::set<Token> queried;
  std::set<Index> fixed;
  if (!std::is_sorted(s.label_rows.begin(), s.label_rows.end())) return "ascending rows";
  for (std::size_t n = 0; n < s.labels.size(); ++n) {
    const Index row = s.label_rows[n];
    if (row < context || row >= o.length || (row - context) % 2 != 0) return "query row";
    const auto key = std::find(keys.begin(), keys.end(), s.tokens[at(row)]);
    if (key == keys.end()) return "query is a key";
    queried.insert(*key);
    if (s.labels[n] != values[static_cast<std::size_t>(key - keys.begin())]) return "label is the key's value";
    fixed.insert(row);
    if (o.layout == MqarLayout::answered) {
      if (s.tokens[at(row + 1)] != s.labels[n]) return "answer after the query";
      fixed.insert(row + 1);
    }
  }
  if (queried.size() != keys.size()) return "each key once";
  for (Index r = context; r < o.length; ++r) {
    if (fixed.count(r) != 0) continue;
    const Token token = s.tokens[at(r)];
    if (o.filler == MqarFiller::zero && token != 0) return "filler 0";
    if (token < 0 || token >= o.vocabulary) return "filler range";
    if (o.filler == MqarFiller::random_without_keys && std::find(keys.begin(), keys.end(), token) != keys.end())
      return "filler without keys";
  }
  return "";
}

TokenSequence sequence(const Mqar& task, std::uint64_t index, Split split = Split::training) {
  TokenSequence out;
  task.generate(split, index, out);
  return out;
}

/// Gap of the pair: where its key stands again after the pairs (filler 0).
Index gap_of(const Mqar& task, const TokenSequence& s, Index pair) {
  const Index context = 2 * task.options().pairs * task.options().passes;
  for (Index g = 0; g < task.space(); ++g)
    if (s.tokens[at(context + 2 * g)] == s.tokens[at(2 * pair)]) return g;
  return -1;
}

/// Chi-square statistic of counts against probabilities.
double chi_square(const std::vector<double>& counts, const std::vector<double>& probabilities) {
  double total = 0, sum = 0;
  for (const double count : counts) total += count;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = total * probabilities[i];
    sum += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return sum;
}
/// Exceeded with probability about 1e-5 (Wilson and Hilferty); seeds are fixed, so a test passes always or never.
double chi_square_limit(std::size_t bins) {
  const double freedom = static_cast<double>(bins - 1), h = 2 / (9 * freedom), root = 1 - h + 4.265 * std::sqrt(h);
  return freedom * root * root * root;
}

/// The gap law, independently of the task's integer tables.
std::vector<double> gap_law(Index space, double a) {
  std::vector<double> p;
  double sum = 0;
  for (Index g = 0; g < space; ++g) {
    p.push_back(std::pow(static_cast<double>(g + 1), a - 1));
    sum += p.back();
  }
  for (double& x : p) x /= sum;
  return p;
}

constexpr MqarFiller fillers[] = {MqarFiller::zero, MqarFiller::random, MqarFiller::random_without_keys};
constexpr MqarLayout layouts[] = {MqarLayout::zoology, MqarLayout::answered};

}  // namespace

TEST_CASE("the public generator's documented example, token for token") {
  // 12 tokens, 2 pairs, 16 rows: 2 -> 8 and 4 -> 7; 4 is queried at row 4 + 2*1, 2 at row 4 + 2*4.
  const Mqar task({.vocabulary = 12, .length = 16, .pairs = 2});
  TokenSequence out;
  task.place(std::vector<Token>{2, 4}, std::vector<Token>{8, 7}, std::vector<Index>{4, 1}, out);
  CHECK(out.tokens == std::vector<Token>{2, 8, 4, 7, 0, 0, 4, 0, 0, 0, 0, 0, 2, 0, 0, 0});
  CHECK(out.label_rows == std::vector<Index>{6, 12});
  CHECK(out.labels == std::vector<Token>{7, 8});
  CHECK(broken_rule(task.options(), out) == "");
}

TEST_CASE("two passes and both layouts, token for token") {
  MqarOptions options{.vocabulary = 20, .length = 22, .pairs = 3, .passes = 2};
  const std::vector<Token> keys = {9, 1, 5}, values = {10, 19, 14};
  const std::vector<Index> gaps = {3, 0, 4};
  TokenSequence out;
  Mqar(options).place(keys, values, gaps, out);
  CHECK(out.tokens == std::vector<Token>{9, 10, 1, 19, 5, 14, 9, 10, 1, 19, 5, 14, 1, 0, 0, 0, 0, 0, 9, 0, 5, 0});
  CHECK(out.label_rows == std::vector<Index>{12, 18, 20});
  CHECK(out.labels == std::vector<Token>{19, 10, 14});

  options.layout = MqarLayout::answered;
  Mqar(options).place(keys, values, gaps, out);
  CHECK(out.tokens == std::vector<Token>{9, 10, 1, 19, 5, 14, 9, 10, 1, 19, 5, 14, 1, 19, 0, 0, 0, 0, 9, 10, 5, 14});
  CHECK(out.label_rows == std::vector<Index>{12, 18, 20});
  CHECK(out.labels == std::vector<Token>{19, 10, 14});
}

TEST_CASE("place refuses what the task cannot produce") {
  const Mqar task({.vocabulary = 12, .length = 16, .pairs = 2});
  TokenSequence out;
  const auto refuse = [&](std::vector<Token> keys, std::vector<Token> values, std::vector<Index> gaps) {
    return message_of([&] { task.place(keys, values, gaps, out); });
  };
  CHECK(refuse({2}, {8, 7}, {4, 1}) == "Mqar::place keys: required one per pair, 2, came 1");
  CHECK(refuse({2, 0}, {8, 7}, {4, 1}) == "Mqar::place keys: required numbers in 1 .. 5, came 0");
  CHECK(refuse({2, 6}, {8, 7}, {4, 1}) == "Mqar::place keys: required numbers in 1 .. 5, came 6");
  CHECK(refuse({2, 2}, {8, 7}, {4, 1}) == "Mqar::place keys: required distinct numbers, came 2 twice");
  CHECK(refuse({2, 4}, {8, 5}, {4, 1}) == "Mqar::place values: required numbers in 6 .. 11, came 5");
  CHECK(refuse({2, 4}, {8, 12}, {4, 1}) == "Mqar::place values: required numbers in 6 .. 11, came 12");
  CHECK(refuse({2, 4}, {8, 7}, {4, 6}) == "Mqar::place gaps: required numbers in 0 .. 5, came 6");
  CHECK(refuse({2, 4}, {8, 7}, {4, 4}) == "Mqar::place gaps: required distinct numbers, came 4 twice");
  CHECK(refuse({2, 4}, {8, 7}, {4, 5}) == "nothing thrown");
}

TEST_CASE("every sequence obeys the definition") {
  for (const MqarFiller filler : fillers)
    for (const MqarLayout layout : layouts)
      for (MqarOptions options :
           {MqarOptions{}, MqarOptions{.length = 512, .pairs = 64}, MqarOptions{.length = 64, .pairs = 5, .passes = 3},
            MqarOptions{.vocabulary = 4, .length = 4, .pairs = 1},                    // the smallest
            MqarOptions{.vocabulary = 41, .length = 80, .pairs = 19, .power = 1},     // all keys, V odd
            MqarOptions{.vocabulary = 42, .length = 80, .pairs = 20, .power = 0.01},  // all keys, all gaps
            MqarOptions{.vocabulary = 64, .length = 200, .pairs = 9, .power = 60.0},  // all mass at the end
            MqarOptions{.vocabulary = 64, .length = 36, .pairs = 9, .power = 1e-12}}) {
        options.filler = filler;
        options.layout = layout;
        const Mqar task(options, Seed{11});
        CHECK(task.most_labels() == options.pairs);
        TokenSequence out;
        for (std::uint64_t i = 0; i < 60; ++i) {
          task.generate(Split::validation, i, out);
          CHECK(broken_rule(options, out) == "");
        }
      }
}

TEST_CASE("the checker catches sequences that are wrong") {
  const MqarOptions options{.vocabulary = 64, .length = 32, .pairs = 4, .filler = MqarFiller::random_without_keys};
  const Mqar task(options, Seed{2});
  const TokenSequence good = sequence(task, 0);
  REQUIRE(broken_rule(options, good) == "");
  const auto spoilt = [&](auto change) {
    TokenSequence s = good;
    change(s);
    return broken_rule(options, s);
  };
  CHECK(spoilt([](TokenSequence& s) { std::swap(s.labels[0], s.labels[1]); }) == "label is the key's value");
  CHECK(spoilt([](TokenSequence& s) { s.labels.pop_back(); }) == "one label per pair");
  CHECK(spoilt([](TokenSequence& s) { ++s.label_rows.back(); }) == "query row");
  CHECK(spoilt([](TokenSequence& s) { std::swap(s.label_rows[0], s.label_rows[1]); }) == "ascending rows");
  CHECK(spoilt([](TokenSequence& s) { s.tokens[at(s.label_rows[0])] = 0; }) == "query is a key");
  CHECK(spoilt([](TokenSequence& s) { s.tokens[2] = s.tokens[0]; }) == "distinct keys");
  CHECK(spoilt([](TokenSequence& s) { s.tokens[3] = s.tokens[1]; }) == "distinct values");
  CHECK(spoilt([](TokenSequence& s) { s.tokens[0] = 32; }) == "key range");
  CHECK(spoilt([](TokenSequence& s) { s.tokens[1] = 31; }) == "value range");
  CHECK(spoilt([](TokenSequence& s) { s.tokens.push_back(0); }) == "length");
  CHECK(spoilt([](TokenSequence& s) { s.tokens[at(s.label_rows[0] + 1)] = s.tokens[0]; }) == "filler without keys");

  // All labels shifted by one pair, as a generator with a wrong index would do: the oracle sees it as well.
  LabelledBatch right, wrong;
  TokenSequence shifted = good;
  std::rotate(shifted.labels.begin(), shifted.labels.begin() + 1, shifted.labels.end());
  right.append(good);
  wrong.append(shifted);
  CHECK(coyote::disagreements(right.view(), Occurrence::latest) == 0);
  CHECK(coyote::disagreements(wrong.view(), Occurrence::latest) == 4);
}

TEST_CASE("labels are the raw-token answers") {
  LabelledBatch batch;
  for (const MqarLayout layout : layouts)
    for (const Index passes : {1, 2}) {
      MqarOptions options{.vocabulary = 128, .length = 64, .pairs = 8, .passes = passes, .layout = layout};
      coyote::fill(Mqar(options, Seed{4}), Split::test, 0, 100, batch);
      CHECK(coyote::disagreements(batch.view(), Occurrence::first) == 0);
      CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 0);
      options.filler = MqarFiller::random_without_keys;
      coyote::fill(Mqar(options, Seed{4}), Split::test, 0, 100, batch);
      CHECK(coyote::disagreements(batch.view(), Occurrence::first) == 0);
      CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 0);
      // Random filler repeats keys now and then: the first occurrence is still the pair, the latest need not be.
      options.filler = MqarFiller::random;
      coyote::fill(Mqar(options, Seed{4}), Split::test, 0, 100, batch);
      CHECK(coyote::disagreements(batch.view(), Occurrence::first) == 0);
      CHECK(coyote::disagreements(batch.view(), Occurrence::latest) > 0);
    }
}

TEST_CASE("pairs and queries do not depend on filler and layout; the filler depends on the seed") {
  const Mqar zero({.vocabulary = 64, .length = 32}, Seed{5}),
      random({.vocabulary = 64, .length = 32, .filler = MqarFiller::random}, Seed{5}),
      answered({.vocabulary = 64, .length = 32, .layout = MqarLayout::answered}, Seed{5}),
      other({.vocabulary = 64, .length = 32, .filler = MqarFiller::random}, Seed{6});
  bool fillers_differ = false;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const TokenSequence a = sequence(zero, i), b = sequence(random, i), c = sequence(answered, i), d = sequence(other, i);
    CHECK(a.label_rows == b.label_rows);
    CHECK(a.labels == b.labels);
    CHECK(a.label_rows == c.label_rows);
    CHECK(a.labels == c.labels);
    for (std::size_t r = 0; r < a.tokens.size(); ++r) {
      if (a.tokens[r] == 0) continue;
      CHECK(a.tokens[r] == b.tokens[r]);
      CHECK(a.tokens[r] == c.tokens[r]);
    }
    for (std::size_t r = 8; r < b.tokens.size(); ++r) {
      const bool query = std::count(b.label_rows.begin(), b.label_rows.end(), static_cast<Index>(r)) +
                             std::count(d.label_rows.begin(), d.label_rows.end(), static_cast<Index>(r)) >
                         0;
      if (!query) fillers_differ = fillers_differ || b.tokens[r] != d.tokens[r];
    }
  }
  CHECK(fillers_differ);
}

TEST_CASE("random filler is uniform") {
  for (const bool keys_too : {true, false}) {
    const Mqar task(
        {.vocabulary = 10, .length = 64, .pairs = 2, .filler = keys_too ? MqarFiller::random : MqarFiller::random_without_keys},
        Seed{8});
    std::vector<double> counts(10, 0.0), expected(10, 0.0);
    double rows = 0;
    for (std::uint64_t i = 0; i < 2000; ++i) {
      const TokenSequence s = sequence(task, i);
      for (std::size_t r = 4; r < s.tokens.size(); ++r) {
        if (std::count(s.label_rows.begin(), s.label_rows.end(), static_cast<Index>(r)) != 0) continue;
        ++counts[static_cast<std::size_t>(s.tokens[r])];
        ++rows;
        for (std::size_t t = 0; t < 10; ++t) {
          const bool key = static_cast<Token>(t) == s.tokens[0] || static_cast<Token>(t) == s.tokens[2];
          expected[t] += keys_too ? 0.1 : key ? 0.0 : 1.0 / 8;
        }
      }
    }
    for (double& p : expected) p /= rows;
    CHECK(chi_square(counts, expected) < chi_square_limit(10));
  }
}

TEST_CASE("gaps follow the power law, drawn one after the other") {
  for (const double a : {0.01, 0.5, 1.0, 3.0}) {
    const Mqar task({.length = 48, .pairs = 3, .power = a}, Seed{7});
    const auto space = at(task.space());
    REQUIRE(space == 21);
    const std::vector<double> p = gap_law(21, a);
    std::vector<double> second(space, 0.0), uniform(space, 1.0 / 21), counts(space, 0.0), counts_second(space, 0.0);
    for (std::size_t h = 0; h < space; ++h)
      for (std::size_t g = 0; g < space; ++g)
        if (g != h) second[h] += p[g] * p[h] / (1 - p[g]);
    for (Index g = 0; g < 21; ++g) CHECK(std::abs(task.first_gap_probability(g) - p[at(g)]) <= 1e-11);
    TokenSequence out;
    for (std::uint64_t i = 0; i < 20000; ++i) {
      task.generate(Split::training, i, out);
      ++counts[at(gap_of(task, out, 0))];
      ++counts_second[at(gap_of(task, out, 1))];
    }
    CHECK(chi_square(counts, p) < chi_square_limit(space));
    CHECK(chi_square(counts_second, second) < chi_square_limit(space));
    // The test can tell laws apart.
    if (a != 1.0) CHECK(!(chi_square(counts, uniform) < chi_square_limit(space)));
    if (a == 0.01) CHECK(!(chi_square(counts_second, p) < chi_square_limit(space)));
    CHECK(!(chi_square(counts, gap_law(21, a + 0.2)) < chi_square_limit(space)));
  }
}

TEST_CASE("ordered pairs of gaps and of keys have their exact joint law") {
  const Mqar task({.vocabulary = 10, .length = 14, .pairs = 2, .power = 0.3}, Seed{9});
  REQUIRE(task.space() == 5);
  const std::vector<double> p = gap_law(5, 0.3);
  std::vector<double> gap_counts(20, 0.0), gap_expected, key_counts(12, 0.0), key_expected(12, 1.0 / 12);
  for (std::size_t g = 0; g < 5; ++g)
    for (std::size_t h = 0; h < 5; ++h)
      if (g != h) gap_expected.push_back(p[g] * p[h] / (1 - p[g]));
  TokenSequence out;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    task.generate(Split::test, i, out);
    const Index g = gap_of(task, out, 0), h = gap_of(task, out, 1);
    ++gap_counts[at(g * 4 + (h > g ? h - 1 : h))];
    const Index k = out.tokens[0] - 1, m = out.tokens[2] - 1;  // keys 1 .. 4
    ++key_counts[at(k * 3 + (m > k ? m - 1 : m))];
  }
  CHECK(chi_square(gap_counts, gap_expected) < chi_square_limit(20));
  CHECK(!(chi_square(gap_counts, std::vector<double>(20, 0.05)) < chi_square_limit(20)));
  CHECK(chi_square(key_counts, key_expected) < chi_square_limit(12));
}

TEST_CASE("the sequences of a seed stay what they are") {
  // Written down once. A change here is a change of every published result.
  const TokenSequence s = sequence(Mqar({.vocabulary = 64, .length = 20, .pairs = 3, .filler = MqarFiller::random}, Seed{1}), 0);
  CHECK(s.tokens == std::vector<Token>{17, 36, 1, 32, 12, 38, 1, 63, 7, 59, 12, 61, 17, 59, 17, 21, 38, 26, 60, 49});
  CHECK(s.label_rows == std::vector<Index>{6, 10, 14});
  CHECK(s.labels == std::vector<Token>{32, 38, 36});
}

TEST_CASE("impossible options throw and say which") {
  const auto refuse = [](MqarOptions options) { return message_of([&] { Mqar task(options); }); };
  CHECK(refuse({.vocabulary = 3}) == "Mqar.vocabulary: required 4 .. 2147483647 tokens, came 3");
  CHECK(refuse({.vocabulary = Index{1} << 31}) == "Mqar.vocabulary: required 4 .. 2147483647 tokens, came 2147483648");
  CHECK(refuse({.length = 63}) == "Mqar.length: required an even number of rows, 4 .. 4194304, came 63");
  CHECK(refuse({.length = 0}) == "Mqar.length: required an even number of rows, 4 .. 4194304, came 0");
  CHECK(refuse({.length = Index{1} << 23}) == "Mqar.length: required an even number of rows, 4 .. 4194304, came 8388608");
  CHECK(refuse({.pairs = 0}) == "Mqar.pairs: required at least 1 pair, came 0");
  CHECK(refuse({.vocabulary = 8, .pairs = 4}) ==
        "Mqar.pairs: required at most vocabulary / 2 - 1 = 3 pairs, one key each (or a larger vocabulary), came 4");
  CHECK(refuse({.passes = 0}) == "Mqar.passes: required at least 1 pass, came 0");
  CHECK(refuse({.length = 64, .pairs = 17}) ==
        "Mqar.length: required at least 2 * pairs * passes + 2 * pairs rows (or fewer pairs or passes), came 64 for 17 pairs and "
        "1 passes");
  CHECK(refuse({.length = 64, .pairs = 16}) == "nothing thrown");
  CHECK(refuse({.length = 64, .pairs = 8, .passes = 3}) == "nothing thrown");
  CHECK(refuse({.length = 64, .pairs = 8, .passes = 4}).find("Mqar.length: required at least") == 0);
  CHECK(refuse({.length = 64, .passes = std::numeric_limits<Index>::max()}).find("Mqar.length: required at least") == 0);
  CHECK(refuse({.power = 0}).find("Mqar.power: required a positive, finite exponent, came 0.0") == 0);
  CHECK(refuse({.power = -1}).find("Mqar.power") == 0);
  CHECK(refuse({.power = std::nan("")}).find("Mqar.power") == 0);
  CHECK(refuse({.power = std::numeric_limits<double>::infinity()}).find("Mqar.power") == 0);
  CHECK(refuse({.filler = static_cast<MqarFiller>(3)}) ==
        "Mqar.filler: required one of zero, random, random_without_keys, came 3");
  CHECK(refuse({.layout = static_cast<MqarLayout>(2)}) == "Mqar.layout: required one of zoology, answered, came 2");
}

TEST_CASE("a mixture draws settings by weight and each sequence from its setting") {
  const std::vector<MqarMixture::Setting> settings = {
      {{.length = 16, .pairs = 2}, 1}, {{.length = 32, .pairs = 4}, 2}, {{.vocabulary = 9000, .length = 32, .pairs = 3}, 5}};
  const MqarMixture mixture(settings, Seed{3});
  CHECK(mixture.longest() == 32);
  CHECK(mixture.vocabulary() == 9000);
  CHECK(mixture.most_labels() == 4);
  std::vector<double> counts(3, 0.0);
  TokenSequence out;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    const std::size_t which = mixture.setting_of(Split::training, i);
    ++counts[which];
    if (i % 40 != 0) continue;
    mixture.generate(Split::training, i, out);
    CHECK(broken_rule(settings[which].options, out) == "");
    CHECK(out.tokens == sequence(Mqar(settings[which].options, Seed{3}), i).tokens);
  }
  CHECK(chi_square(counts, {0.125, 0.25, 0.625}) < chi_square_limit(3));
  CHECK(!(chi_square(counts, {0.2, 0.3, 0.5}) < chi_square_limit(3)));

  LabelledBatch batch;
  coyote::fill(mixture, Split::training, 0, 128, batch);
  batch.view().check("mixture");
  CHECK(!batch.view().offsets.empty());
  CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 0);

  const auto refuse = [](std::vector<MqarMixture::Setting> list) { return message_of([&] { MqarMixture task(list, Seed{1}); }); };
  CHECK(refuse({}) == "Mixture.settings: required at least one setting, came none");
  CHECK(refuse({{{}, 1}, {{}, 0}}).find("Mixture.settings[1].weight: required a positive, finite weight, came 0") == 0);
  CHECK(refuse({{{}, std::nan("")}}).find("Mixture.settings[0].weight") == 0);
  CHECK(refuse({{{.length = 7}, 1}}).find("Mqar.length") == 0);
}

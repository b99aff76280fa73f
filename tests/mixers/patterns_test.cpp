// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/patterns.hpp"

#include <doctest/doctest.h>

#include <set>
#include <vector>

#include "coyote/operations/reference/attention.hpp"

namespace {

using namespace coyote;

using Keys = std::vector<Index>;

/// The keys of every row, in the order in which the pattern names them. The index is built by `append` row by row, with room
/// for `capacity` rows.
template <class Pattern>
std::vector<Keys> keys_of(const std::vector<Token>& tokens, Index capacity) {
  std::vector<std::int32_t> index(static_cast<std::size_t>(Pattern::index_size(capacity)), -1);
  std::vector<Token> known(static_cast<std::size_t>(capacity), -7);  // later tokens are not known yet
  std::vector<Keys> result;
  for (Index i = 0; i < static_cast<Index>(tokens.size()); ++i) {
    known[static_cast<std::size_t>(i)] = tokens[static_cast<std::size_t>(i)];
    Pattern::append(index, known, i);
    result.emplace_back();
    reference::for_each_key<Pattern>(index, capacity, i, [&](Index j) { result.back().push_back(j); });
  }
  return result;
}

/// Calls f(tokens) for every string of `symbols` symbols of length 1 .. longest.
template <class F>
void for_each_string(Token symbols, Index longest, F&& f) {
  for (Index n = 1; n <= longest; ++n) {
    std::vector<Token> tokens(static_cast<std::size_t>(n), 0);
    for (;;) {
      f(tokens);
      std::size_t at = 0;
      while (at < tokens.size() && ++tokens[at] == symbols) tokens[at++] = 0;
      if (at == tokens.size()) break;
    }
  }
}

std::size_t pairs(const std::vector<Keys>& keys) {
  std::size_t count = 0;
  for (const Keys& k : keys) count += k.size();
  return count;
}

/// All j >= 1 with token[j-1] = token[i], newest first, at most `most`.
Keys followers(const std::vector<Token>& tokens, std::size_t i, std::size_t most) {
  Keys keys;
  for (std::size_t j = i; j >= 1 && keys.size() < most; --j) {
    if (tokens[j - 1] == tokens[i]) keys.push_back(static_cast<Index>(j));
  }
  return keys;
}

/// Theory: sum over tokens with n occurrences of n(n-1)/2, or k(k-1)/2 + (n-k)k beyond the cap.
std::size_t bigram_pairs(const std::vector<Token>& tokens, std::size_t k) {
  std::size_t total = 0;
  for (const Token a : std::set<Token>(tokens.begin(), tokens.end())) {
    std::size_t n = 0;
    for (const Token t : tokens) n += t == a ? 1u : 0u;
    total += n <= k ? n * (n - 1) / 2 : k * (k - 1) / 2 + (n - k) * k;
  }
  return total;
}

TEST_CASE("repeated bigrams: the tokens that followed, for every string of up to 6 of 3 symbols") {
  int strings = 0;
  for_each_string(3, 6, [&](const std::vector<Token>& tokens) {
    ++strings;
    for (const Index capacity : {static_cast<Index>(tokens.size()), Index{11}}) {
      const auto all = keys_of<RepeatedBigrams<>>(tokens, capacity);
      const auto one = keys_of<RepeatedBigrams<1>>(tokens, capacity), two = keys_of<RepeatedBigrams<2>>(tokens, capacity);
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        REQUIRE(all[i] == followers(tokens, i, 99));
        REQUIRE(one[i] == followers(tokens, i, 1));
        REQUIRE(two[i] == followers(tokens, i, 2));
      }
      REQUIRE(pairs(all) == bigram_pairs(tokens, 99));
      REQUIRE(pairs(two) == bigram_pairs(tokens, 2));
    }
  });
  CHECK(strings == 3 + 9 + 27 + 81 + 243 + 729);
}

TEST_CASE("repeated tokens: all keys for rows whose token came before, for every string") {
  for_each_string(3, 6, [](const std::vector<Token>& tokens) {
    const auto keys = keys_of<RepeatedTokens>(tokens, static_cast<Index>(tokens.size()));
    std::size_t selected = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      Keys expected;
      if (!followers(tokens, i, 1).empty()) {
        ++selected;
        for (std::size_t j = 0; j <= i; ++j) expected.push_back(static_cast<Index>(j));
      }
      REQUIRE(keys[i] == expected);
    }
    REQUIRE(selected == tokens.size() - std::set<Token>(tokens.begin(), tokens.end()).size());
  });
}

TEST_CASE("the token index at sizes around powers of two, with tokens that collide") {
  for (const Index n : {1, 2, 3, 7, 8, 9, 31, 32, 33, 100, 257}) {
    const Stream draws(Seed{4}, Purpose::test, static_cast<std::uint64_t>(n));
    for (const std::uint64_t symbols : {std::uint64_t{1}, std::uint64_t{5}, std::uint64_t{1000000}}) {
      std::vector<Token> tokens;
      for (Index i = 0; i < n; ++i) {
        tokens.push_back(static_cast<Token>(draws.below(static_cast<std::uint64_t>(i), symbols) * 2147u % 2147483647u));
      }
      const auto keys = keys_of<RepeatedBigrams<>>(tokens, n);
      for (std::size_t i = 0; i < tokens.size(); ++i) REQUIRE(keys[i] == followers(tokens, i, tokens.size()));
    }
  }
}

TEST_CASE("windows, dense and random keys; upper bounds of pairs and rows hold and are reached") {
  for (Index n = 1; n <= 40; ++n) {
    const std::vector<Token> same(static_cast<std::size_t>(n), 3);
    const auto dense = keys_of<Dense>(same, n), window = keys_of<Window<5>>(same, n), random = keys_of<RandomEdges<4>>(same, n);
    for (Index i = 0; i < n; ++i) {
      const auto row = static_cast<std::size_t>(i);
      Keys expected;
      for (Index j = 0; j <= i; ++j) expected.push_back(j);
      CHECK(dense[row] == expected);
      expected.clear();
      for (Index j = std::max<Index>(0, i - 4); j <= i; ++j) expected.push_back(j);
      CHECK(window[row] == expected);
      CHECK(static_cast<Index>(random[row].size()) == std::min<Index>(4, i + 1));
      for (std::size_t k = 0; k < random[row].size(); ++k) {
        CHECK(random[row][k] <= i);
        if (k > 0) CHECK(random[row][k - 1] < random[row][k]);
      }
    }
    CHECK(random == keys_of<RandomEdges<4>>(std::vector<Token>(static_cast<std::size_t>(n), 1), n));
    const auto rows = [](const std::vector<Keys>& keys) {
      Index count = 0;
      for (const Keys& k : keys) count += k.empty() ? 0 : 1;
      return count;
    };
    const auto reaches = [&](auto pattern, const std::vector<Keys>& keys) {
      using Pattern = decltype(pattern);
      CHECK(Pattern::max_pairs(n) == static_cast<Index>(pairs(keys)));
      CHECK(Pattern::max_rows(n) == rows(keys));
    };
    reaches(Dense{}, dense);
    reaches(Window<5>{}, window);
    reaches(RandomEdges<4>{}, random);
    reaches(RepeatedBigrams<>{}, keys_of<RepeatedBigrams<>>(same, n));
    reaches(RepeatedBigrams<3>{}, keys_of<RepeatedBigrams<3>>(same, n));
    reaches(RepeatedTokens{}, keys_of<RepeatedTokens>(same, n));
  }
}

}  // namespace

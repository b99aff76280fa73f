// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "coyote/core/error.hpp"
#include "coyote/tasks/sequences.hpp"

namespace coyote::inline v0 {

struct SingleQueryRecallOptions {
  Index vocabulary = 20;  ///< with the separator and the noop token
  Index pairs = 10;       ///< shown before the query; keys may come more than once, with the same value
  double absent = 0;      ///< probability that the queried key was not shown
  bool separator = true;  ///< the separator stands before the query
};

/// Associative recall with one query, the task of work before MQAR and the contrast to it:
///   k v k v ... k v (separator) q,   label at the last row: the value of q, or noop if q was not shown.
/// With vocabulary V and h = (V - 2)/2 rounded down: keys are 0 .. h - 1, values h .. 2h - 1, separator V - 2, noop V - 1.
/// Each sequence draws a dictionary (a value for each key, uniform and independent, so two keys may share one), then the keys
/// of its pairs, uniform. A present query is uniform over the distinct keys shown. An absent one is uniform over all keys,
/// and the pairs are drawn from the others. Sequences are a pure function of (seed, split, index).
///
/// Errors: options out of range throw, naming the option.
/// Source: the single-query tasks of Fu et al. (H3, 2022) and Poli et al. (Hyena, 2023), as described in Arora et al. (2023).
class SingleQueryRecall {
 public:
  using Options = SingleQueryRecallOptions;

  explicit SingleQueryRecall(const Options& options = {}, Seed seed = {}) : options_(options), seed_(seed) {
    const auto need = [](bool met, const char* option, std::string required, std::string came) {
      if (!met) throw Error(std::string("SingleQueryRecall.") + option, std::move(required), std::move(came));
    };
    constexpr Index most_tokens = std::numeric_limits<Token>::max();
    need(options.vocabulary >= 4 && options.vocabulary <= most_tokens, "vocabulary",
         words("4 .. ", most_tokens, " tokens (a key, a value, separator and noop)"), words(options.vocabulary));
    need(options.pairs >= 1 && options.pairs <= (Index{1} << 30), "pairs", words("1 .. ", Index{1} << 30, " pairs"),
         words(options.pairs));
    need(options.absent >= 0 && options.absent <= 1, "absent", "a probability, 0 .. 1", words(options.absent));
    need(options.absent == 0 || keys() >= 2, "vocabulary", "at least 6 tokens where a key can be absent (two keys)",
         words(options.vocabulary));
    absent_ = static_cast<std::uint64_t>(std::llround(options.absent * 0x1p53));
  }

  const Options& options() const { return options_; }
  Seed seed() const { return seed_; }
  Index vocabulary() const { return options_.vocabulary; }
  Index longest() const { return 2 * options_.pairs + (options_.separator ? 2 : 1); }
  Index most_labels() const { return 1; }
  /// Number of keys, and of values: keys are 0 .. keys() - 1, values keys() .. 2 keys() - 1.
  Index keys() const { return (options_.vocabulary - 2) / 2; }
  Token separator() const { return static_cast<Token>(options_.vocabulary - 2); }
  Token noop() const { return static_cast<Token>(options_.vocabulary - 1); }

  /// Sequence `index` of the split.
  void generate(Split split, std::uint64_t index, TokenSequence& out) const {
    prepare(out);
    out.clear();
    detail::TaskDraws draws(seed_, detail::TaskPart::recall, split, index);
    const auto count = static_cast<std::uint64_t>(keys());
    // The value of each key, drawn when the key is met; -1 before that.
    Token* dictionary = out.workspace.tokens.data();
    std::fill_n(dictionary, count, Token{-1});
    Index* shown = out.workspace.indices.data();  // the distinct keys, in order of appearance
    std::uint64_t distinct = 0;

    const bool absent = draws.happens(absent_);
    const std::uint64_t left_out = absent ? draws.below(count) : count;
    for (Index pair = 0; pair < options_.pairs; ++pair) {
      std::uint64_t key = draws.below(absent ? count - 1 : count);
      if (key >= left_out) ++key;
      if (dictionary[key] < 0) {
        dictionary[key] = static_cast<Token>(count + draws.below(count));
        shown[distinct++] = static_cast<Index>(key);
      }
      out.tokens.push_back(static_cast<Token>(key));
      out.tokens.push_back(dictionary[key]);
    }
    if (options_.separator) out.tokens.push_back(separator());
    const Token query = absent ? static_cast<Token>(left_out) : static_cast<Token>(shown[draws.below(distinct)]);
    out.label_rows.push_back(static_cast<Index>(out.tokens.size()));
    out.labels.push_back(absent ? noop() : dictionary[query]);
    out.tokens.push_back(query);
  }

  /// Makes room for one sequence in `out`.
  void prepare(TokenSequence& out) const {
    const auto count = static_cast<std::size_t>(keys());
    if (out.workspace.tokens.size() < count) out.workspace.tokens.resize(count);
    const std::size_t most = std::min(count, static_cast<std::size_t>(options_.pairs));
    if (out.workspace.indices.size() < most) out.workspace.indices.resize(most);
  }

 private:
  Options options_;
  Seed seed_;
  std::uint64_t absent_ = 0;  ///< probability of an absent key, in 2^-53
};

}  // namespace coyote::inline v0

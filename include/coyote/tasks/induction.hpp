// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include "coyote/core/error.hpp"
#include "coyote/tasks/sequences.hpp"

namespace coyote::inline v0 {

struct InductionHeadsOptions {
  Index vocabulary = 20;  ///< with the trigger
  Index length = 30;      ///< rows of a sequence, the final trigger included
};

/// Induction heads: what followed the trigger the last time? With vocabulary V and length N, rows 0 .. N - 2 are uniform over
/// the tokens 0 .. V - 2, but one of the rows 0 .. N - 3, uniform, holds the trigger V - 1. Row N - 1 is the trigger again
/// and its label the token after the first one. Sequences are a pure function of (seed, split, index).
///
/// Errors: options out of range throw, naming the option. Source: Fu et al. (H3, 2022), section 3, after Olsson et al. (2022).
class InductionHeads {
 public:
  using Options = InductionHeadsOptions;

  explicit InductionHeads(const Options& options = {}, Seed seed = {}) : options_(options), seed_(seed) {
    constexpr Index most = std::numeric_limits<Token>::max();
    if (options.vocabulary < 3 || options.vocabulary > most)
      throw Error("InductionHeads.vocabulary", words("3 .. ", most, " tokens (the trigger and two others)"),
                  words(options.vocabulary));
    if (options.length < 3 || options.length > most)
      throw Error("InductionHeads.length", words("3 .. ", most, " rows (trigger, token, trigger)"), words(options.length));
  }

  const Options& options() const { return options_; }
  Seed seed() const { return seed_; }
  Index vocabulary() const { return options_.vocabulary; }
  Index longest() const { return options_.length; }
  Index most_labels() const { return 1; }
  Token trigger() const { return static_cast<Token>(options_.vocabulary - 1); }

  /// Sequence `index` of the split.
  void generate(Split split, std::uint64_t index, TokenSequence& out) const {
    out.clear();
    detail::TaskDraws draws(seed_, detail::TaskPart::induction, split, index);
    const auto others = static_cast<std::uint64_t>(options_.vocabulary - 1);
    const auto row = static_cast<Index>(draws.below(static_cast<std::uint64_t>(options_.length - 2)));
    for (Index r = 0; r < options_.length - 1; ++r)
      out.tokens.push_back(r == row ? trigger() : static_cast<Token>(draws.below(others)));
    out.tokens.push_back(trigger());
    out.label_rows.push_back(options_.length - 1);
    out.labels.push_back(out.tokens[static_cast<std::size_t>(row) + 1]);
  }

  void prepare(TokenSequence&) const {}  // needs no workspace; offered so that mixtures work

 private:
  Options options_;
  Seed seed_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "coyote/core/error.hpp"
#include "coyote/tasks/mixture.hpp"
#include "coyote/tasks/sequences.hpp"

namespace coyote::inline v0 {

/// What stands on the rows that are neither pairs nor queries.
enum class MqarFiller {
  zero,    ///< token 0, which is never a key or a value
  random,  ///< uniform over the vocabulary: may repeat a key before its query, so that the pair is its first occurrence only
  random_without_keys  ///< uniform over the tokens that are not keys of the sequence
};

/// Where a query has its answer.
enum class MqarLayout {
  zoology,  ///< the label stands at the query's row, the input does not contain the answer (the public generator's form)
  answered  ///< as zoology, and the row after the query contains its value: what a language model would read
};

struct MqarOptions {
  Index vocabulary = 8192;
  Index length = 64;    ///< rows of a sequence, even
  Index pairs = 4;      ///< D, the number of key-value pairs and of queries
  double power = 0.01;  ///< a > 0 of the gap law; 1 is uniform, small is near
  Index passes = 1;     ///< p, how often the pairs are shown before the queries
  MqarFiller filler = MqarFiller::zero;
  MqarLayout layout = MqarLayout::zoology;
};

/// Multi-query associative recall. With vocabulary V, length N, D pairs and p passes:
///   keys     D distinct tokens, uniform over 1 .. V/2 - 1 (V/2 rounded down)
///   values   D distinct tokens, uniform over V/2 .. V - 1
///   rows     0 .. 2Dp - 1: the pairs k v k v ..., p times in the same order
///   gaps     D distinct numbers g of 0 .. (N - 2Dp)/2 - 1, drawn one after the other with probability proportional to
///            (g+1)^(a-1) among those that are left; key i is the query at row 2Dp + 2 g_i
///   labels   at each query's row, the value of its key; nothing anywhere else
/// Sequences are a pure function of (seed, split, index). The weights of the gap law are tabulated once, as integers; all
/// draws are integer arithmetic. Pairs and queries do not depend on the filler or the layout.
///
/// Cost: O(N + D log N + V/64) per sequence. 128 sequences of the default setting take about 0.05 ms of one core, 0.2 ms with
/// random filler; a batch holds 4 bytes per row, 12 per label and 8 per sequence, the task itself 16 bytes per gap.
/// Errors: an option that cannot be met throws, naming the option. Unlike the public generator, V may be below N.
/// Source: Arora et al., "Zoology" (2023), section 3 and its public generator.
class Mqar {
 public:
  using Options = MqarOptions;
  using Filler = MqarFiller;
  using Layout = MqarLayout;

  /// The longest sequence: integer weights of the gap law stay exact up to it.
  static constexpr Index longest_length = Index{1} << 22;

  explicit Mqar(const Options& options = {}, Seed seed = {}) : options_(options), seed_(seed) {
    check(options_);
    space_ = (options_.length - 2 * options_.pairs * options_.passes) / 2;
    const auto space = static_cast<std::size_t>(space_);
    // Weights relative to the largest, in 2^-40; none is 0, so that every gap can be drawn when all others are taken.
    const double slope = options_.power - 1;
    const double top = slope > 0 ? std::log(static_cast<double>(space_)) : 0;
    weights_.resize(space);
    tree_.assign(space + 1, 0);
    for (std::size_t g = 0; g < space; ++g) {
      const double relative = std::exp(slope * (std::log(static_cast<double>(g + 1)) - top));
      weights_[g] = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::llround(relative * 0x1p40)));
      total_ += weights_[g];
      tree_[g + 1] += weights_[g];
      const std::size_t parent = (g + 1) + ((g + 1) & (~g));
      if (parent <= space) tree_[parent] += tree_[g + 1];
    }
  }

  const Options& options() const { return options_; }
  Seed seed() const { return seed_; }
  Index vocabulary() const { return options_.vocabulary; }
  Index longest() const { return options_.length; }
  Index most_labels() const { return options_.pairs; }
  /// First token that is a value; keys are 1 .. first_value() - 1.
  Token first_value() const { return static_cast<Token>(options_.vocabulary / 2); }
  /// Number of gaps to choose from; query rows are 2Dp + 2g for g below it.
  Index space() const { return space_; }
  /// Probability that the first gap drawn is g: weight over total, as used by the draws.
  double first_gap_probability(Index g) const {
    return static_cast<double>(weights_[static_cast<std::size_t>(g)]) / static_cast<double>(total_);
  }

  /// Sequence `index` of the split.
  void generate(Split split, std::uint64_t index, TokenSequence& out) const {
    prepare(out);
    const auto pairs = static_cast<std::size_t>(options_.pairs);
    const std::span<Token> keys(out.workspace.tokens.data(), pairs), values(keys.data() + pairs, pairs);
    const std::span<Index> gaps(out.workspace.indices.data(), pairs);
    std::uint64_t* storage = out.workspace.words.data();
    detail::TaskDraws draws(seed_, detail::TaskPart::mqar, split, index);

    // Values first: the set of keys is needed again by the filler.
    const Index key_tokens = options_.vocabulary / 2, value_tokens = options_.vocabulary - key_tokens;
    detail::SmallSet taken(storage, value_tokens);
    for (Token& value : values) value = first_value() + static_cast<Token>(draw_new(draws, taken, value_tokens, 0));
    detail::SmallSet is_key(storage, key_tokens);
    for (Token& key : keys) key = static_cast<Token>(draw_new(draws, is_key, key_tokens - 1, 1));
    draw_gaps(draws, storage + set_words(), gaps);

    lay_out(keys, values, gaps, out);
    if (options_.filler == MqarFiller::zero) {
      std::replace(out.tokens.begin(), out.tokens.end(), blank, Token{0});
      return;
    }
    detail::TaskDraws filler(seed_, detail::TaskPart::mqar_filler, split, index);
    const bool any = options_.filler == MqarFiller::random;
    for (Token& token : out.tokens) {
      if (token != blank) continue;
      std::uint64_t drawn;
      // At most half of the vocabulary are keys, so this ends after two draws on average at the worst.
      do {
        drawn = filler.below(static_cast<std::uint64_t>(options_.vocabulary));
      } while (!any && drawn < static_cast<std::uint64_t>(key_tokens) && is_key.contains(drawn));
      token = static_cast<Token>(drawn);
    }
  }

  /// The sequence with these keys, values and gaps (one of each per pair), filler 0. Throws unless they are as the task's
  /// definition says: distinct and in range.
  void place(std::span<const Token> keys, std::span<const Token> values, std::span<const Index> gaps, TokenSequence& out) const {
    check_distinct("Mqar::place keys", keys, 1, first_value());
    check_distinct("Mqar::place values", values, first_value(), static_cast<Token>(options_.vocabulary));
    check_distinct("Mqar::place gaps", gaps, Index{0}, space_);
    lay_out(keys, values, gaps, out);
    std::replace(out.tokens.begin(), out.tokens.end(), blank, Token{0});
  }

  /// Makes room for one sequence in `out`.
  void prepare(TokenSequence& out) const {
    const auto grow = [](auto& storage, std::size_t size) {
      if (storage.size() < size) storage.resize(size);
    };
    grow(out.workspace.tokens, 2 * static_cast<std::size_t>(options_.pairs));
    grow(out.workspace.indices, static_cast<std::size_t>(options_.pairs));
    grow(out.workspace.words, set_words() + tree_.size());
  }

 private:
  static constexpr Token blank = -1;  // a row still to be filled

  static void check(const Options& o) {
    const auto need = [](bool met, const char* option, std::string required, std::string came) {
      if (!met) throw Error(std::string("Mqar.") + option, std::move(required), std::move(came));
    };
    const Index most_tokens = std::numeric_limits<Token>::max();
    need(o.vocabulary >= 4 && o.vocabulary <= most_tokens, "vocabulary", words("4 .. ", most_tokens, " tokens"),
         words(o.vocabulary));
    need(o.length >= 4 && o.length <= longest_length && o.length % 2 == 0, "length",
         words("an even number of rows, 4 .. ", longest_length), words(o.length));
    need(o.pairs >= 1, "pairs", "at least 1 pair", words(o.pairs));
    need(o.pairs <= o.vocabulary / 2 - 1, "pairs",
         words("at most vocabulary / 2 - 1 = ", o.vocabulary / 2 - 1, " pairs, one key each (or a larger vocabulary)"),
         words(o.pairs));
    need(o.passes >= 1, "passes", "at least 1 pass", words(o.passes));
    // Compared without forming the product, which may be too large for an Index.
    const Index half = o.length / 2;
    need(o.pairs <= half && o.passes <= half / o.pairs - 1, "length",
         "at least 2 * pairs * passes + 2 * pairs rows (or fewer pairs or passes)",
         words(o.length, " for ", o.pairs, " pairs and ", o.passes, " passes"));
    need(o.power > 0 && std::isfinite(o.power), "power", "a positive, finite exponent", words(o.power));
    need(o.filler == MqarFiller::zero || o.filler == MqarFiller::random || o.filler == MqarFiller::random_without_keys, "filler",
         "one of zero, random, random_without_keys", words(static_cast<int>(o.filler)));
    need(o.layout == MqarLayout::zoology || o.layout == MqarLayout::answered, "layout", "one of zoology, answered",
         words(static_cast<int>(o.layout)));
  }

  template <class Number>
  void check_distinct(const char* where, std::span<const Number> numbers, Number low, Number end) const {
    if (static_cast<Index>(numbers.size()) != options_.pairs)
      throw Error(where, words("one per pair, ", options_.pairs), words(numbers.size()));
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] < low || numbers[i] >= end)
        throw Error(where, words("numbers in ", low, " .. ", end - 1), words(numbers[i]));
      for (std::size_t j = 0; j < i; ++j)
        if (numbers[j] == numbers[i]) throw Error(where, "distinct numbers", words(numbers[i], " twice"));
    }
  }

  std::size_t set_words() const { return detail::SmallSet::words_for(options_.vocabulary - options_.vocabulary / 2); }

  /// Uniform over the numbers first .. first + count - 1 that are not in the set, and now is: draws until one is new. Even
  /// taking all of them needs only count * (ln count + 1) draws on average.
  static std::uint64_t draw_new(detail::TaskDraws& draws, detail::SmallSet& taken, Index count, std::uint64_t first) {
    for (;;) {
      const std::uint64_t drawn = first + draws.below(static_cast<std::uint64_t>(count));
      if (taken.insert(drawn)) return drawn;
    }
  }

  /// Sequential draws without replacement, over a Fenwick tree of the weights that are left: the law of drawing gap after gap
  /// with probability proportional to the remaining weights, in O(log space) each.
  void draw_gaps(detail::TaskDraws& draws, std::uint64_t* left, std::span<Index> gaps) const {
    std::copy(tree_.begin(), tree_.end(), left);
    std::uint64_t total = total_;
    const auto space = static_cast<std::size_t>(space_);
    for (Index& gap : gaps) {
      std::uint64_t rest = draws.below(total);
      std::size_t before = 0;  // gaps whose weights lie wholly below the drawn number
      for (std::size_t step = std::bit_floor(space); step > 0; step >>= 1)
        if (before + step <= space && left[before + step] <= rest) {
          before += step;
          rest -= left[before];
        }
      gap = static_cast<Index>(before);
      total -= weights_[before];
      for (std::size_t i = before + 1; i <= space; i += i & (~i + 1)) left[i] -= weights_[before];
    }
  }

  /// Writes pairs, queries and labels, and `blank` everywhere else.
  void lay_out(std::span<const Token> keys, std::span<const Token> values, std::span<const Index> gaps,
               TokenSequence& out) const {
    const auto pairs = static_cast<std::size_t>(options_.pairs), passes = static_cast<std::size_t>(options_.passes);
    const auto length = static_cast<std::size_t>(options_.length), queries = 2 * pairs * passes;
    out.clear();
    out.tokens.assign(length, blank);
    Token* row = out.tokens.data();
    for (std::size_t pass = 0; pass < passes; ++pass)
      for (std::size_t i = 0; i < pairs; ++i) {
        *row++ = keys[i];
        *row++ = values[i];
      }
    for (std::size_t i = 0; i < pairs; ++i) {
      out.tokens[queries + 2 * static_cast<std::size_t>(gaps[i])] = keys[i];
      out.tokens[queries + 2 * static_cast<std::size_t>(gaps[i]) + 1] = values[i];
    }
    // Labels in the order of rows; the answer beside the query is there for this scan.
    const bool answered = options_.layout == MqarLayout::answered;
    for (std::size_t r = queries; r + 1 < length; r += 2) {
      if (out.tokens[r] == blank) continue;
      out.label_rows.push_back(static_cast<Index>(r));
      out.labels.push_back(out.tokens[r + 1]);
      if (!answered) out.tokens[r + 1] = blank;
    }
  }

  Options options_;
  Seed seed_;
  Index space_ = 0;
  std::uint64_t total_ = 0;
  std::vector<std::uint64_t> weights_;  ///< of gap g, in units of 2^-40 of the largest
  std::vector<std::uint64_t> tree_;     ///< Fenwick tree over weights_, 1-based
};

/// Several (length, pairs, ...) settings with weights, one per sequence.
using MqarMixture = Mixture<Mqar>;

}  // namespace coyote::inline v0

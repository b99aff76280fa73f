// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>

#include "coyote/operations/pattern.hpp"

namespace coyote::inline v0 {

// Attention patterns: which (query i, key j <= i) pairs of a sequence attend. operations/pattern.hpp says what a pattern
// has; Attention asks for three more members, which its cost is made of:
//     static constexpr Index max_pairs(Index length);       // pairs of a sequence, at most
//     static constexpr Index max_rows(Index length);        // rows with at least one key, at most
//     (window)                                              // optional: only the latest `window` keys are ever needed

namespace detail {

/// 1 + 2 + ... + n
constexpr Index triangle(Index n) { return n * (n + 1) / 2; }

/// What patterns that look at no tokens share.
struct PositionPattern {
  static constexpr bool uses_tokens = false;
  static constexpr Index index_size(Index) { return 0; }
  static constexpr void append(std::span<std::int32_t>, std::span<const Token>, Index) {}
};

/// An index that finds, for every row, the latest earlier row with the same token: a table of rows hashed by token, twice
/// as large as the sequence, and one link per row. Entering a row takes constant expected time.
struct TokenPattern {
  static constexpr bool uses_tokens = true;
  static constexpr Index table_size(Index capacity) {
    return 2 * static_cast<Index>(std::bit_ceil(static_cast<std::size_t>(capacity)));
  }
  static constexpr Index index_size(Index capacity) { return capacity + table_size(capacity); }

  static constexpr void append(std::span<std::int32_t> index, std::span<const Token> tokens, Index i) {
    const auto capacity = capacity_of(index.size());
    const std::span<std::int32_t> table = index.subspan(capacity);
    const Token token = tokens[static_cast<std::size_t>(i)];
    std::size_t slot = (static_cast<std::uint32_t>(token) * 2654435769u) & (table.size() - 1);
    while (table[slot] >= 0 && tokens[static_cast<std::size_t>(table[slot])] != token) slot = (slot + 1) & (table.size() - 1);
    index[static_cast<std::size_t>(i)] = table[slot];
    table[slot] = static_cast<std::int32_t>(i);
  }
  /// Rows of one token are a group: those whose table slots lie in the same run of `slots`.
  static constexpr Index slots = 256;
  static constexpr Index groups(Index capacity) { return (table_size(capacity) + slots - 1) / slots; }
  template <class F>
  static constexpr void for_each_row(std::span<const std::int32_t> index, Index capacity, Index group, F&& f) {
    const Index last = (group + 1) * slots < table_size(capacity) ? (group + 1) * slots : table_size(capacity);
    for (Index slot = group * slots; slot < last; ++slot) {
      for (Index i = index[static_cast<std::size_t>(capacity + slot)]; i >= 0; i = previous(index, i)) f(i);
    }
  }

  /// The latest row before i with i's token, or -1.
  static constexpr Index previous(std::span<const std::int32_t> index, Index i) { return index[static_cast<std::size_t>(i)]; }

 private:
  /// size = capacity + 2 bit_ceil(capacity), so the table is the largest power of two below size, or that one's half.
  static constexpr std::size_t capacity_of(std::size_t size) {
    std::size_t table = std::bit_floor(size);
    while (2 * std::bit_ceil(size - table) != table) table /= 2;
    return size - table;
  }
};

}  // namespace detail

/// Every key j <= i.
struct Dense : detail::PositionPattern {
  static constexpr Index first_key(std::span<const std::int32_t>, Index, Index) { return 0; }
  static constexpr Index max_pairs(Index length) { return detail::triangle(length); }
  static constexpr Index max_rows(Index length) { return length; }
};

/// The W latest keys, i's own included: i - W < j <= i.
template <Index W>
struct Window : detail::PositionPattern {
  static_assert(W >= 1, "coyote: a Window holds at least one key");
  static constexpr Index window = W;
  static constexpr Index first_key(std::span<const std::int32_t>, Index, Index i) { return i < W ? 0 : i - W + 1; }
  static constexpr Index max_pairs(Index length) {
    const Index w = W < length ? W : length;
    return w * length - w * (w - 1) / 2;
  }
  static constexpr Index max_rows(Index length) { return length; }
};

/// The tokens that followed earlier occurrences of the current one: keys 1 <= j <= i with token[j-1] = token[i], the latest
/// K of them, or all for K = 0. Rows with no such key output 0. Newest first.
template <Index K = 0>
struct RepeatedBigrams : detail::TokenPattern {
  static_assert(K >= 0, "coyote: RepeatedBigrams<K> keeps the latest K keys, all for K = 0");
  template <class F>
  static constexpr void for_each_key(std::span<const std::int32_t> index, Index, Index i, F&& f) {
    Index left = K;
    for (Index p = previous(index, i); p >= 0; p = previous(index, p)) {
      f(p + 1);
      if (K > 0 && --left == 0) break;
    }
  }
  /// Row p brings its follower in; every row of its token, and no other, may use it.
  static constexpr Index own_key(Index p) { return p + 1; }
  static constexpr Index max_pairs(Index length) {
    return K == 0 || K >= length ? detail::triangle(length - 1) : detail::triangle(K - 1) + (length - K) * K;
  }
  static constexpr Index max_rows(Index length) { return length - 1; }
};

/// Rows whose token occurred before attend to all keys j <= i, the others output 0: the programmatic rule of
/// Zoology (arXiv 2312.04927), section 5.
struct RepeatedTokens : detail::TokenPattern {
  static constexpr Index first_key(std::span<const std::int32_t> index, Index, Index i) {
    return previous(index, i) >= 0 ? 0 : i + 1;
  }
  static constexpr Index max_pairs(Index length) { return detail::triangle(length) - 1; }
  static constexpr Index max_rows(Index length) { return length - 1; }
};

/// K keys drawn at random for every row (all of them while i < K), one in each of K equal parts of 0 .. i: a control for
/// patterns that choose their keys. The draws depend on the position alone.
template <Index K>
struct RandomEdges : detail::PositionPattern {
  static_assert(K >= 1, "coyote: RandomEdges<K> draws at least one key");
  template <class F>
  static constexpr void for_each_key(std::span<const std::int32_t>, Index, Index i, F&& f) {
    if (i < K) {
      for (Index j = 0; j <= i; ++j) f(j);
      return;
    }
    const Stream draws(Seed{}, Purpose::pattern, static_cast<std::uint64_t>(i));
    for (Index k = 0; k < K; ++k) {
      const Index begin = k * (i + 1) / K, end = (k + 1) * (i + 1) / K;
      f(begin + static_cast<Index>(draws.below(static_cast<std::uint64_t>(k), static_cast<std::uint64_t>(end - begin))));
    }
  }
  static constexpr Index max_pairs(Index length) {
    return K >= length ? detail::triangle(length) : detail::triangle(K - 1) + (length - K + 1) * K;
  }
  static constexpr Index max_rows(Index length) { return length; }
};

}  // namespace coyote::inline v0

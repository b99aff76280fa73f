// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/pattern.hpp"

namespace coyote::inline v0 {

// Attention patterns: which (query i, key j <= i) pairs of a sequence attend. operations/pattern.hpp says what a pattern
// has; Attention asks for three more members, which its cost is made of:
//     static constexpr Index max_pairs(Index length);       // pairs of a sequence, at most
//     static constexpr Index max_rows(Index length);        // rows with at least one key, at most
//     (window)                                              // optional: only the latest `window` keys are ever needed
//     (uses_every_key)                                      // optional: true when first_key is 0 everywhere

namespace detail {

/// 1 + 2 + ... + n
COYOTE_HOST_DEVICE constexpr Index triangle(Index n) { return n * (n + 1) / 2; }

/// What patterns that look at no tokens share.
struct PositionPattern {
  static constexpr bool uses_tokens = false;
  COYOTE_HOST_DEVICE static constexpr Index index_size(Index) { return 0; }
  COYOTE_HOST_DEVICE static constexpr void append(Entries<std::int32_t>, Entries<const Token>, Index) {}
};

/// An index that finds, for every row, the latest earlier row with the same token: a table of rows hashed by token, twice
/// as large as the sequence, and one link per row. Entering a row takes constant expected time. The links come first, and
/// patterns read nothing else through first_key and for_each_key: a backend that finds them otherwise has no table.
struct TokenPattern {
  static constexpr bool uses_tokens = true, is_linked = true;
  COYOTE_HOST_DEVICE static constexpr Index table_size(Index capacity) { return 2 * power_of_two(capacity); }
  COYOTE_HOST_DEVICE static constexpr Index index_size(Index capacity) { return capacity + table_size(capacity); }

  COYOTE_HOST_DEVICE static constexpr void append(Entries<std::int32_t> index, Entries<const Token> tokens, Index i) {
    const Index capacity = capacity_of(index.size()), mask = index.size() - capacity - 1;
    const Entries<std::int32_t> table = index.behind(capacity);
    const Token token = tokens[i];
    Index slot = (static_cast<std::uint32_t>(token) * 2654435769u) & mask;
    while (table[slot] >= 0 && tokens[table[slot]] != token) slot = (slot + 1) & mask;
    index[i] = table[slot];
    table[slot] = static_cast<std::int32_t>(i);
  }
  /// Rows of one token are a group: those whose table slots lie in the same run of `slots`.
  static constexpr Index slots = 256;
  COYOTE_HOST_DEVICE static constexpr Index groups(Index capacity) { return (table_size(capacity) + slots - 1) / slots; }
  COYOTE_CALLS_BACK
  template <class F>
  COYOTE_HOST_DEVICE static constexpr void for_each_row(Entries<const std::int32_t> index, Index capacity, Index group, F&& f) {
    const Index last = (group + 1) * slots < table_size(capacity) ? (group + 1) * slots : table_size(capacity);
    for (Index slot = group * slots; slot < last; ++slot) {
      for (Index i = index[capacity + slot]; i >= 0; i = previous(index, i)) f(i);
    }
  }

  /// The latest row before i with i's token, or -1.
  COYOTE_HOST_DEVICE static constexpr Index previous(Entries<const std::int32_t> index, Index i) { return index[i]; }

 private:
  /// The smallest power of two that is at least n.
  COYOTE_HOST_DEVICE static constexpr Index power_of_two(Index n) {
    Index power = 1;
    while (power < n) power *= 2;
    return power;
  }
  /// size = capacity + 2 power_of_two(capacity), so the table is the largest power of two below size, or that one's half.
  COYOTE_HOST_DEVICE static constexpr Index capacity_of(Index size) {
    Index table = power_of_two(size + 1) / 2;
    while (2 * power_of_two(size - table) != table) table /= 2;
    return size - table;
  }
};

}  // namespace detail

/// Every key j <= i.
struct Dense : detail::PositionPattern {
  static constexpr bool uses_every_key = true;
  COYOTE_HOST_DEVICE static constexpr Index first_key(Entries<const std::int32_t>, Index, Index) { return 0; }
  static constexpr Index max_pairs(Index length) { return detail::triangle(length); }
  static constexpr Index max_rows(Index length) { return length; }
};

/// The W latest keys, i's own included: i - W < j <= i.
template <Index W>
struct Window : detail::PositionPattern {
  static_assert(W >= 1, "coyote: a Window holds at least one key");
  static constexpr Index window = W;
  COYOTE_HOST_DEVICE static constexpr Index first_key(Entries<const std::int32_t>, Index, Index i) {
    return i < W ? 0 : i - W + 1;
  }
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
  COYOTE_CALLS_BACK
  template <class F>
  COYOTE_HOST_DEVICE static constexpr void for_each_key(Entries<const std::int32_t> index, Index, Index i, F&& f) {
    Index left = K;
    for (Index p = previous(index, i); p >= 0; p = previous(index, p)) {
      f(p + 1);
      if (K > 0 && --left == 0) break;
    }
  }
  COYOTE_CALLS_BACK
  template <class F>
  COYOTE_HOST_DEVICE static constexpr void for_each_user(Entries<const std::int32_t> next, Index, Index j, F&& f) {
    Index left = K;
    for (Index i = j > 0 ? next[j - 1] : -1; i >= 0; i = next[i]) {
      f(i);
      if (K > 0 && --left == 0) break;
    }
  }
  /// Row p brings its follower in; every row of its token, and no other, may use it.
  COYOTE_HOST_DEVICE static constexpr Index own_key(Index p) { return p + 1; }
  static constexpr Index max_pairs(Index length) {
    return K == 0 || K >= length ? detail::triangle(length - 1) : detail::triangle(K - 1) + (length - K) * K;
  }
  static constexpr Index max_rows(Index length) { return length - 1; }
};

/// Rows whose token occurred before attend to all keys j <= i, the others output 0: the programmatic rule of
/// Zoology (arXiv 2312.04927), section 5.
struct RepeatedTokens : detail::TokenPattern {
  COYOTE_HOST_DEVICE static constexpr Index first_key(Entries<const std::int32_t> index, Index, Index i) {
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
  COYOTE_CALLS_BACK
  template <class F>
  COYOTE_HOST_DEVICE static constexpr void for_each_key(Entries<const std::int32_t>, Index, Index i, F&& f) {
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

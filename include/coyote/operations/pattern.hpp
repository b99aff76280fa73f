// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/core/entries.hpp"

namespace coyote::inline v0 {

namespace detail {
/// Stands for any function of a key in the concepts.
struct AnyKeyFunction {
  COYOTE_HOST_DEVICE constexpr void operator()(Index) const {}
};

/// Members that every pattern has. An index of `index_size(capacity)` integers serves one sequence of at most
/// `capacity` rows (0 = the pattern needs none). It is filled with -1, then `append(index, tokens, i)` enters the rows
/// i = 0, 1, ... in order, where `tokens` are the sequence's tokens, at least those up to i. Index and tokens come as Entries;
/// a pattern for the host alone may take a std::span, one for Cuda marks its functions COYOTE_HOST_DEVICE.
template <class P>
concept PatternBase = requires(Entries<std::int32_t> index, Entries<const Token> tokens, Index i) {
  { P::uses_tokens } -> std::convertible_to<bool>;
  { P::index_size(i) } -> std::convertible_to<Index>;
  P::append(index, tokens, i);
};
}  // namespace detail

/// A pattern whose query i uses the keys first_key(index, capacity, i) .. i; above i means none. With i counted inside
/// the sequence.
template <class P>
concept IntervalPattern = detail::PatternBase<P> && requires(Entries<const std::int32_t> index, Index i) {
  { P::first_key(index, i, i) } -> std::convertible_to<Index>;
};

/// A pattern that calls f(j) for each key j <= i of query i, once, in a fixed order.
template <class P>
concept WalkedPattern = detail::PatternBase<P> && requires(Entries<const std::int32_t> index, Index i) {
  P::for_each_key(index, i, i, detail::AnyKeyFunction{});
};

/// A walked pattern whose rows fall into groups that share no key: `groups(capacity)` of them; for_each_row(index, capacity,
/// g, f) calls f(i) for the rows of group g, those that share keys close together, and the keys of its rows are among
/// own_key(i) of its rows i. Groups then run in parallel, and a key is read while it is in the cache.
template <class P>
concept GroupedPattern = WalkedPattern<P> && requires(Entries<const std::int32_t> index, Index i) {
  { P::groups(i) } -> std::convertible_to<Index>;
  { P::own_key(i) } -> std::convertible_to<Index>;
  P::for_each_row(index, i, i, detail::AnyKeyFunction{});
};

/// A pattern that knows its pairs from the other side too, for gradients that the owner of a key sums up: for_each_user(next,
/// capacity, j, f) calls f(i), ascending, for each row i that uses key j, where next[p] is the first row after p with p's
/// token, or -1.
template <class P>
concept LinkedPattern = WalkedPattern<P> && P::is_linked && requires(Entries<const std::int32_t> next, Index j) {
  P::for_each_user(next, j, j, detail::AnyKeyFunction{});
};

/// Which pairs (query, key) attention uses: an empty type. Edges are walked over an index of linear size, never stored.
template <class P>
concept AttentionPattern = IntervalPattern<P> || WalkedPattern<P>;

/// The indices of all sequences of a batch, one after another: a view.
struct PatternIndex {
  const std::int32_t* data = nullptr;
  const Index* starts = nullptr;  ///< sequences + 1 positions in data; absent when the pattern needs no index

  /// The index of sequence s.
  constexpr Entries<const std::int32_t> operator[](Index s) const {
    if (starts == nullptr) return {};
    return {data + starts[s], starts[s + 1] - starts[s]};
  }
};

/// Fills the index of one sequence with its rows 0 .. rows - 1.
template <AttentionPattern Pattern>
COYOTE_HOST_DEVICE constexpr void fill_index(Entries<std::int32_t> index, Entries<const Token> tokens, Index rows) {
  for (Index n = 0; n < index.size(); ++n) index[n] = -1;
  if (index.size() == 0) return;
  for (Index i = 0; i < rows; ++i) Pattern::append(index, tokens, i);
}

/// Builds the indices of a batch, sequences in parallel; the result lives in the context's current frame. The capacity
/// of a sequence is its size. Throws when the pattern uses tokens and the batch has none.
template <AttentionPattern Pattern>
PatternIndex build_index(Context<Cpu>& ctx, const Batch& batch) {
  if (Pattern::uses_tokens && static_cast<Index>(batch.tokens.size()) != batch.rows()) {
    throw Error("attention", "a batch with one token per row, because its pattern looks at tokens",
                words(batch.tokens.size(), " tokens"));
  }
  if (Pattern::index_size(batch.length) == 0) return {};
  const Rows<Index> starts = ctx.make<Index>(1, batch.sequences + 1);
  starts.data[0] = 0;
  for (Index s = 0; s < batch.sequences; ++s) starts.data[s + 1] = starts.data[s] + Pattern::index_size(batch.size(s));
  const Rows<std::int32_t> data = ctx.make<std::int32_t>(1, starts.data[batch.sequences]);
  // Several short sequences make a block, so that handing it out costs little.
  const Index together = std::max<Index>(1, 2048 / std::max<Index>(1, batch.length));
  ctx.parallel(ceil_div(batch.sequences, together), [&](Index block, Arena&) {
    for (Index s = block * together; s < std::min(batch.sequences, (block + 1) * together); ++s) {
      const Entries<std::int32_t> index(data.data + starts.data[s], starts.data[s + 1] - starts.data[s]);
      fill_index<Pattern>(index, batch.tokens.empty() ? std::span<const Token>{} : batch.tokens_of(s), batch.size(s));
    }
  });
  return {data.data, starts.data};
}

}  // namespace coyote::inline v0

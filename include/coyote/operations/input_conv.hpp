// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <span>

#include "coyote/core/batch.hpp"
#include "coyote/core/entries.hpp"
#include "coyote/operations/activation.hpp"
#include "coyote/operations/decoding.hpp"

namespace coyote::inline v0 {

/// Where an input-dependent convolution's lags come from: an empty type. Row i of a sequence uses at most `count` distinct
/// lags, each in 0 .. i. Members of every source:
///
///     static constexpr Index count;
///     static constexpr bool is_causal, uses_tokens;
///     static constexpr Index max_pairs(Index length);       // pairs (row, lag) of a sequence, at most
///     static constexpr Cost cost(Dimensions);               // of finding the lags
///
/// A causal source meets the rows i = 0, 1, ... in order, with an index of `index_size(capacity)` integers per sequence that
/// begins as -1 everywhere; it writes the lags of row i to lags[0 ..], -1 behind the last. `tokens` are those up to i:
///
///     static constexpr Index index_size(Index capacity);
///     static constexpr void append(Entries<std::int32_t> index, Entries<const Token> tokens, Index i,
///                                  Entries<std::int32_t> lags);
///
/// One that is not causal sees a whole sequence, its queries and keys, and fills row i of `lags` for every i; `scratch` is
/// scratch_size(rows, width) numbers:
///
///     static constexpr Index scratch_size(Index rows, Index width);
///     static constexpr void find(std::span<const Token> tokens, Rows<const S> q, Rows<const S> k, std::span<S> scratch,
///                                Rows<std::int32_t> lags);
template <class L>
concept LagSource = std::is_empty_v<L> && requires(Index n, Dimensions dims) {
  { L::count } -> std::convertible_to<Index>;
  { L::is_causal } -> std::convertible_to<bool>;
  { L::uses_tokens } -> std::convertible_to<bool>;
  { L::max_pairs(n) } -> std::convertible_to<Index>;
  { L::cost(dims) } -> std::convertible_to<Cost>;
};

/// A causal source whose row i uses the newest distinct lags of the rows up to i, where every row p with an earlier row `before`
/// of its token, the latest such, names the lag `lag_of(p, before)`, which `enter` brings to the front of the list. Lists of
/// neighbouring runs of rows then compose, so that a backend need not meet the rows one by one.
template <class L>
concept LinkedLags = LagSource<L> && L::is_linked && requires(Entries<std::int32_t> list, Index i, std::int32_t lag) {
  { L::lag_of(i, i) } -> std::convertible_to<std::int32_t>;
  L::enter(list, lag);
};

/// A source that takes the `count` lags t >= 1 with the largest autocorrelation R[t] of queries and keys, of equal ones the
/// smaller, for all rows alike. A backend may find them by kernels of its own.
template <class L>
concept AutocorrelationLags = LagSource<L> && L::is_autocorrelation;

/// The lags of one sequence.
template <class S, LagSource L>
constexpr void find_lags(std::span<const Token> tokens, Rows<const S> q, Rows<const S> k, std::span<std::int32_t> index,
                         std::span<S> scratch, Rows<std::int32_t> lags) {
  if constexpr (L::is_causal) {
    for (std::int32_t& entry : index) entry = -1;
    for (Index i = 0; i < q.rows; ++i) L::append(index, tokens, i, Entries<std::int32_t>(lags.row(i), lags.width));
  } else {
    L::find(tokens, q, k, scratch, lags);
  }
}
/// How many integers and numbers of scratch that takes.
template <LagSource L>
constexpr Index lag_index_size([[maybe_unused]] Index rows) {
  if constexpr (L::is_causal) {
    return L::index_size(rows);
  } else {
    return 0;
  }
}
template <LagSource L>
constexpr Index lag_scratch_size([[maybe_unused]] Index rows, [[maybe_unused]] Index width) {
  if constexpr (L::is_causal) {
    return 0;
  } else {
    return L::scratch_size(rows, width);
  }
}

/// Row i of a sequence: with the scores s_t = <q, k_(i - lags[t])>, weights w = softmax(s) or s itself, y = sum_t w_t
/// v_(i - lags[t]); 0 without lags. `inner(a, b, n)` is the inner product of n numbers.
template <class S, bool Softmax, class Inner>
constexpr void input_convolution_row(Inner&& inner, std::span<const std::int32_t> lags, Index i, const S* q, Rows<const S> k,
                                     Rows<const S> v, S* weights, S* y) {
  const auto count = static_cast<Index>(lags.size());
  Index present = 0;
  while (present < count && lags[static_cast<std::size_t>(present)] >= 0) ++present;
  const auto row = [&](Index t) { return i - static_cast<Index>(lags[static_cast<std::size_t>(t)]); };
  for (Index t = 0; t < present; ++t) weights[t] = inner(q, k.row(row(t)), k.width);
  if constexpr (Softmax) {
    if (present > 0) {
      S highest = weights[0];
      for (Index t = 1; t < present; ++t) highest = highest < weights[t] ? weights[t] : highest;
      S sum = weights[0] = shifted_exponential(weights[0], highest);
      for (Index t = 1; t < present; ++t) sum += weights[t] = shifted_exponential(weights[t], highest);
      for (Index t = 0; t < present; ++t) weights[t] = weights[t] / sum;
    }
  }
  for (Index t = 0; t < present; ++t) {
    const S* value = v.row(row(t));
    const S w = weights[t];
    if (t == 0) {
      for (Index c = 0; c < v.width; ++c) y[c] = w * value[c];
    } else {
      for (Index c = 0; c < v.width; ++c) y[c] += w * value[c];
    }
  }
  if (present == 0) {
    for (Index c = 0; c < v.width; ++c) y[c] = S{};
  }
}

/// Its gradients by q and by the scores: dq = sum_t ds_t k_(i - lags[t]).
template <class S, bool Softmax, class Inner>
constexpr void input_convolution_row_backward(Inner&& inner, std::span<const std::int32_t> lags, Index i, const S* dy,
                                              Rows<const S> k, Rows<const S> v, const S* weights, S* ds, S* dq) {
  const auto count = static_cast<Index>(lags.size());
  Index present = 0;
  while (present < count && lags[static_cast<std::size_t>(present)] >= 0) ++present;
  const auto row = [&](Index t) { return i - static_cast<Index>(lags[static_cast<std::size_t>(t)]); };
  for (Index t = 0; t < present; ++t) ds[t] = inner(dy, v.row(row(t)), v.width);
  if constexpr (Softmax) {
    S mean{};
    for (Index t = 0; t < present; ++t) mean += weights[t] * ds[t];
    for (Index t = 0; t < present; ++t) ds[t] = weights[t] * (ds[t] - mean);
  }
  for (Index c = 0; c < k.width; ++c) dq[c] = S{};
  for (Index t = 0; t < present; ++t) {
    const S* key = k.row(row(t));
    for (Index c = 0; c < k.width; ++c) dq[c] += ds[t] * key[c];
  }
}

/// One decoding step: q, k, v and y [sequences, width] belong to the step's row. k and v go into keys and values, [sequences *
/// capacity, width], the step's tokens into `tokens` [sequences, capacity] where the lags come from them, and the row into
/// `index` [sequences, index_size(capacity)], which began as -1; then y is the row's output.
template <class S, bool Softmax, LagSource L, RowContext C>
constexpr void input_convolution_decode(C& context, const Step& at, Rows<const S> q, Rows<const S> k, Rows<const S> v,
                                        Rows<parameter_t<S>> keys, Rows<parameter_t<S>> values, Rows<Token> tokens,
                                        Rows<std::int32_t> index, Rows<S> y) {
  const auto frame = context.frame();
  auto scratch = context.template make<S>(1, L::count);
  const Rows<S> weights = scratch;
  const Index capacity = keys.rows / q.rows;
  store_rows<S>(context, at, k, keys);
  store_rows<S>(context, at, v, values);
  for (Index s = 0; s < q.rows; ++s) {
    if constexpr (L::uses_tokens) tokens(s, at.position) = at.tokens[static_cast<std::size_t>(s)];
    std::int32_t lags[L::count] = {};
    L::append(Entries<std::int32_t>(index.row(s), index.width), Entries<const Token>(tokens.row(s), tokens.width), at.position,
              lags);
    input_convolution_step<S, Softmax>(context, lags, at.position, q.row(s), Rows<const S>(keys.slice(s * capacity, capacity)),
                                       Rows<const S>(values.slice(s * capacity, capacity)), weights.row(0), y.row(s));
  }
}

/// What row i gives to earlier rows: dk_(i - lags[t]) += ds_t q, dv_(i - lags[t]) += w_t dy.
template <class S>
constexpr void input_convolution_row_scatter(std::span<const std::int32_t> lags, Index i, const S* weights, const S* ds,
                                             Rows<const S> q, Rows<const S> dy, Rows<S> dk, Rows<S> dv) {
  for (std::size_t t = 0; t < lags.size() && lags[t] >= 0; ++t) {
    const Index j = i - static_cast<Index>(lags[t]);
    const S *query = q.row(i), *gradient = dy.row(i);
    S *key = dk.row(j), *value = dv.row(j);
    const S s = ds[t], w = weights[t];
    for (Index c = 0; c < dk.width; ++c) {
      key[c] += s * query[c];
      value[c] += w * gradient[c];
    }
  }
}

}  // namespace coyote::inline v0

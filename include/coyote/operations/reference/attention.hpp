// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/scalar.hpp"
#include "coyote/operations/dropout.hpp"
#include "coyote/operations/pattern.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// exp(scale * (score - highest)): one special function of the textbook softmax, as far as counting goes.
template <class S>
S softmax_exponential(S score, S highest, S scale) {
  using std::exp;
  return exp(scale * (score - highest));
}

namespace reference {

/// Calls f(j) for each key of row i, of either kind of pattern.
template <AttentionPattern Pattern, class F>
void for_each_key(Entries<const std::int32_t> index, Index capacity, Index i, F&& f) {
  if constexpr (IntervalPattern<Pattern>) {
    for (Index j = Pattern::first_key(index, capacity, i); j <= i; ++j) f(j);
  } else {
    Pattern::for_each_key(index, capacity, i, f);
  }
}

/// One head of one row: the keys, their scores and their probabilities.
template <class S>
struct Row {
  Array<Index> keys;
  Array<S> scores, p;
  Index count = 0;
  S log_sum{};

  template <AttentionPattern Pattern>
  static Row of(Entries<const std::int32_t> index, Index capacity, Index i, const S* q, Rows<const S> k, S scale) {
    Row row{Array<Index>(i + 1), Array<S>(i + 1), Array<S>(i + 1)};
    for_each_key<Pattern>(index, capacity, i, [&](Index j) { row.keys[row.count++] = j; });
    if (row.count == 0) return row;
    for (Index n = 0; n < row.count; ++n) {
      const S* key = k.row(row.keys[n]);
      row.scores[n] = q[0] * key[0];
      for (Index c = 1; c < k.width; ++c) row.scores[n] += q[c] * key[c];
    }
    S highest = row.scores[0];
    for (Index n = 1; n < row.count; ++n) {
      if (highest < row.scores[n]) highest = row.scores[n];
    }
    S sum = row.p[0] = softmax_exponential(row.scores[0], highest, scale);
    for (Index n = 1; n < row.count; ++n) sum += row.p[n] = softmax_exponential(row.scores[n], highest, scale);
    for (Index n = 0; n < row.count; ++n) row.p[n] = row.p[n] / sum;
    return row;
  }
};

}  // namespace reference

/// Indices are made inside the operations here.
struct NoIndex {};
template <AttentionPattern Pattern>
NoIndex build_index(Context<Reference>&, const Batch& batch) {
  if (Pattern::uses_tokens && static_cast<Index>(batch.tokens.size()) != batch.rows()) {
    throw Error("attention", "a batch with one token per row, because its pattern looks at tokens",
                words(batch.tokens.size(), " tokens"));
  }
  return {};
}

/// For every head: y_i = sum_j p_ij v_j, p_i = softmax over the pattern's keys j of scale * <q_i, k_j>; rows without keys
/// output 0. dropout keeps or drops each p_ij. log_sum_exp is written by backends whose backward asks for it.
template <class S, AttentionPattern Pattern>
void attention(Context<Reference>&, const Batch& batch, NoIndex, Index heads, S scale, const AttentionDropout& dropout,
               Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<S> y, Rows<S> /*log_sum_exp*/) {
  const Index width = q.width / heads;
  const DropoutRule rule = dropout.rule();
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s), n = batch.size(s);
    Array<std::int32_t> index(Pattern::index_size(n));
    fill_index<Pattern>({index.data(), index.size()}, batch.tokens.empty() ? batch.tokens : batch.tokens_of(s), n);
    for (Index h = 0; h < heads; ++h) {
      const Rows<const S> keys = k.slice(first, n).columns(h * width, width),
                          values = v.slice(first, n).columns(h * width, width);
      for (Index i = 0; i < n; ++i) {
        const auto row = reference::Row<S>::template of<Pattern>({index.data(), index.size()}, n, i, q.row(first + i) + h * width,
                                                                 keys, scale);
        for (Index c = 0; c < width; ++c) {
          S& out = y(first + i, h * width + c);
          out = S{};
          bool any = false;
          for (Index m = 0; m < row.count; ++m) {
            S p = row.p[m];
            if (rule.active()) {
              const bool keep =
                  rule.keeps(AttentionDropout::rule_row(first + i, h, heads), static_cast<std::uint64_t>(first + row.keys[m]));
              p = keep ? p * static_cast<S>(rule.scale()) : S{};
            }
            out = any ? out + p * values(row.keys[m], c) : p * values(row.keys[m], c);
            any = true;
          }
        }
      }
    }
  }
}

/// Gradients of attention; dq, dk and dv are overwritten.
template <class S, AttentionPattern Pattern>
void attention_backward(Context<Reference>& context, const Batch& batch, NoIndex, Index heads, S scale,
                        const AttentionDropout& dropout, Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<const S> /*y*/,
                        Rows<const S> /*log_sum_exp*/, Rows<const S> dy, Rows<S> dq, Rows<S> dk, Rows<S> dv) {
  const Index width = q.width / heads;
  const DropoutRule rule = dropout.rule();
  clear<S>(context, dq);
  clear<S>(context, dk);
  clear<S>(context, dv);
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s), n = batch.size(s);
    Array<std::int32_t> index(Pattern::index_size(n));
    fill_index<Pattern>({index.data(), index.size()}, batch.tokens.empty() ? batch.tokens : batch.tokens_of(s), n);
    for (Index h = 0; h < heads; ++h) {
      const Index at = h * width;
      for (Index i = 0; i < n; ++i) {
        const auto row = reference::Row<S>::template of<Pattern>({index.data(), index.size()}, n, i, q.row(first + i) + at,
                                                                 k.slice(first, n).columns(at, width), scale);
        Array<S> dp(row.count);
        S mean{};
        for (Index m = 0; m < row.count; ++m) {
          const Index j = first + row.keys[m];
          S kept = static_cast<S>(1);
          if (rule.active()) {
            kept = rule.keeps(AttentionDropout::rule_row(first + i, h, heads), static_cast<std::uint64_t>(j))
                       ? static_cast<S>(rule.scale())
                       : S{};
          }
          for (Index c = 0; c < width; ++c) {
            dp[m] += dy(first + i, at + c) * v(j, at + c) * kept;
            dv(j, at + c) += row.p[m] * kept * dy(first + i, at + c);
          }
          mean += row.p[m] * dp[m];
        }
        for (Index m = 0; m < row.count; ++m) {
          const Index j = first + row.keys[m];
          const S ds = scale * row.p[m] * (dp[m] - mean);
          for (Index c = 0; c < width; ++c) {
            dq(first + i, at + c) += ds * k(j, at + c);
            dk(j, at + c) += ds * q(first + i, at + c);
          }
        }
      }
    }
  }
}

/// One row: query [sequences, width], keys and values [sequences * capacity, width], sequence s at rows s * capacity and on,
/// of which 0 .. position hold keys.
template <class S, AttentionPattern Pattern>
void attention_step(Context<Reference>&, PatternIndex index, Index capacity, Index position, Index heads, S scale,
                    Rows<const S> q, Rows<const S> keys, Rows<const S> values, Rows<S> y) {
  const Index width = q.width / heads;
  for (Index s = 0; s < q.rows; ++s) {
    for (Index h = 0; h < heads; ++h) {
      const Index at = h * width;
      const auto row = reference::Row<S>::template of<Pattern>(index[s], capacity, position, q.row(s) + at,
                                                               keys.slice(s * capacity, capacity).columns(at, width), scale);
      for (Index c = 0; c < width; ++c) {
        y(s, at + c) = S{};
        for (Index m = 0; m < row.count; ++m) y(s, at + c) += row.p[m] * values(s * capacity + row.keys[m], at + c);
      }
    }
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/contract.hpp"
#include "coyote/combinators/outer.hpp"
#include "coyote/filters/shared.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/reference/operations.hpp"
#include "coyote/theory/mqar.hpp"

namespace coyote::inline v0::theory {

// Recall by attention with weights written down: without softmax, exactly; with softmax, as sharp as a bound on the miss asks
// for. The miss is the share of the softmax that does not go to the right row. It moves an output by at most miss * max_j ||v_j -
// v||, so values in bits round to the right ones while it is below 1/2.

/// The most that rows without a match get of the softmax, when n rows are attended, r of them match, scores are beta <e_q, e_k>
/// of unit codes and different codes have products of at most mu: (n - r) E / (r + (n - r) E), E = exp(-beta (1 - mu)). Equality
/// for one-hot codes (mu = 0).
inline double attention_miss(double beta, Index attended, double mu = 0, Index matches = 1) {
  const double others = static_cast<double>(attended - matches) * std::exp(-beta * (1 - mu));
  return others / (static_cast<double>(matches) + others);
}
/// The least beta with an attention_miss of at most `miss`: ln((n - r) (1 - miss) / (r miss)) / (1 - mu), at least 0.
/// Errors: a miss that is not between 0 and 1; mu of 1 or more; not 1 <= r <= n.
inline double attention_sharpness(Index attended, double miss, double mu = 0, Index matches = 1) {
  constexpr const char* where = "theory::attention_sharpness";
  if (!(0 < miss && miss < 1)) throw Error(where, "a miss between 0 and 1", words(miss));
  if (!(mu < 1)) throw Error(where, "codes with products below 1", words(mu));
  if (matches < 1 || matches > attended) throw Error(where, words("1 to ", attended, " matches"), words(matches));
  const double odds = static_cast<double>(attended - matches) / static_cast<double>(matches) * (1 - miss) / miss;
  return odds > 1 ? std::log(odds) / (1 - mu) : 0;
}

/// Scores beta <e_q, e_k> + alpha j prefer the latest of several rows with the key.
struct LatestSharpness {
  double beta = 0, alpha = 0;
  /// The miss is at most e^-alpha / (1 - e^-alpha) + (n - 1) exp(-beta (1 - mu) + alpha (n - 1)) for n attended rows.
  double miss(Index attended, double mu = 0) const {
    const double others = static_cast<double>(attended - 1);
    return 1 / std::expm1(alpha) + others * std::exp(-beta * (1 - mu) + alpha * others);
  }
  /// Half of the miss for older matches, half for other keys: beta grows like n. Errors: as attention_sharpness.
  static LatestSharpness of(Index attended, double miss, double mu = 0) {
    attention_sharpness(attended, miss, mu);  // for its errors
    const double others = static_cast<double>(std::max(attended - 1, Index{1})), alpha = std::log1p(2 / miss);
    return {(alpha * others + std::log(2 * others / miss)) / (1 - mu), alpha};
  }
};

/// What a construction by attention takes.
struct AttentionSize {
  Index layers = 0, width = 0, length = 0, parameters = 0;
  bool is_causal_step_by_step = true;
  friend bool operator==(const AttentionSize&, const AttentionSize&) = default;
};

/// y_i = sum_{j<i} <q_i, k_j> v_j for u = (k, v, q), C channels each: attention without softmax and with a strict mask, as an
/// outer product, a sum over earlier rows and a contraction. Degree 3.
template <Index C>
using ExactAttention = Contract<C, Narrow<3, NoBias>,                                  // q
                                Chain<Outer<C, Narrow<3, NoBias>, Narrow<3, NoBias>>,  // k, v
                                      LongConv<SharedFilter<C * C, FreeFilter>, Causal, NoBias>>>;

/// One-hot keys, values and queries over C tokens, unique keys: equals aligned MQAR over every ring; repeated keys are summed.
/// 1 layer, width 3C, 9 C^2 parameters and the N taps of the mask.
template <Index C, Ring S>
constexpr Model<ExactAttention<C>, Reference, S> exact_attention(Index rows) {
  auto model = Model<ExactAttention<C>, Reference, S>::blank({.width = 3 * C, .length = rows});
  auto set = [](const Path& path, Parameter<S>& p) {
    const bool keys = path.view() == "right.0.left.weight", values = path.view() == "right.0.right.weight",
               taps = path.view() == "right.1.filter.taps";
    const Index first = keys ? 0 : values ? C : 2 * C;
    for (Index i = 0; i < p.rows; ++i) {
      for (Index c = 0; c < p.columns; ++c) p.value(i, c) = S((taps ? i > 0 : i == first + c) ? 1 : 0);
    }
  };
  model.visit(set);
  return model;
}
template <Index C>
constexpr AttentionSize exact_attention_size(Index rows) {
  return {1, 3 * C, rows, cost<ExactAttention<C>>(3 * C, rows).parameters, true};
}

/// Softmax attention over rows that a short convolution has prepared: it delays the columns of keys (and values) by a row.
using RecallAttention = Chain<ShortConv<2, NoBias>, Attention<>>;

/// Which row answers where several have the key.
enum class AttentionRule {
  unique,  ///< none has: keys are unique
  latest   ///< the latest one; one column of ones and one of positions more
};

/// A softmax attention that solves aligned MQAR up to a miss, and how an instance becomes its input.
template <class Backend, Real T>
struct AttentionRecall {
  Model<RecallAttention, Backend, T> model;
  AttentionSize size;
  Index key_bits = 0, value_bits = 0;
  AttentionRule rule = AttentionRule::unique;
  double miss = 0;  ///< every answer bit of a row with a match is at most this far from the right one

  Index answer_column() const { return 2 * key_bits; }
  /// [N, width]: queries and keys as signs, values as bits. Errors: tokens that have more bits; another length.
  Matrix<T> embed(const Aligned& x) const {
    const auto n = static_cast<std::size_t>(size.length);
    if (x.keys.size() != n || x.values.size() != n || x.queries.size() != n) {
      throw Error("theory::AttentionRecall", words(n, " keys, values and queries"), words(x.keys.size()));
    }
    Matrix<T> u(size.length, size.width);
    for (Index i = 0; i < u.rows(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      const auto put = [&](Index c, Token value) { u(i, c) = static_cast<T>(value); };
      Slot{Code::signs, 0, key_bits}.write(x.queries[at], put);
      Slot{Code::signs, key_bits, key_bits}.write(x.keys[at], put);
      Slot{Code::bits, 2 * key_bits, value_bits}.write(x.values[at], put);
      if (rule == AttentionRule::latest) {
        u(i, size.width - 2) = T(1);
        u(i, size.width - 1) = static_cast<T>(i + 1);
      }
    }
    return u;
  }
};

namespace detail {
/// `delayed` columns come from the row before; score and value columns as they say. Attention divides scores by the root of the
/// width.
template <class Backend, Real T, class Delayed, class Query, class Key, class Value>
Model<RecallAttention, Backend, T> recall_attention(Index width, Index rows, Delayed&& delayed, Query&& query, Key&& key,
                                                    Value&& value) {
  auto model = Model<RecallAttention, Backend, T>::blank({.width = width, .length = rows});
  const double root = std::sqrt(static_cast<double>(width));
  auto set = [&](const Path& path, auto& p) {
    for (Index i = 0; i < p.rows; ++i) {
      for (Index c = 0; c < p.columns; ++c) {
        double number = 0;
        if (path.view() == "0.taps") number = i == (delayed(c) ? 1 : 0) ? 1 : 0;
        if (path.view() == "1.query.weight") number = root * query(i, c);
        if (path.view() == "1.key.weight") number = key(i, c);
        if (path.view() == "1.value.weight") number = value(i, c);
        if (path.view() == "1.out.weight") number = i == c ? 1 : 0;
        p.value(i, c) = static_cast<T>(number);
      }
    }
  };
  model.visit(set);
  return model;
}
}  // namespace detail

/// Aligned MQAR of N rows with keys of l bits as signs (products of unit codes of at most 1 - 2/l, and 0 with the zero row that
/// the delay puts before the first key) and values of mv bits: 2 layers, width 2l + mv, and 2 more by the `latest` rule; no part
/// of it but the sharpness depends on N. Causal step by step. Rows without a match get a mixture: nothing is said of them.
/// Errors: sizes below 1; a miss that is not between 0 and 1.
template <class Backend, Real T>
AttentionRecall<Backend, T> attention_recall(Index rows, Index key_bits, Index value_bits, double miss,
                                             AttentionRule rule = AttentionRule::unique) {
  constexpr const char* where = "theory::attention_recall";
  detail::at_least(where, "rows", rows, 1);
  detail::at_least(where, "key bits", key_bits, 1);
  detail::at_least(where, "value bits", value_bits, 1);
  const bool latest = rule == AttentionRule::latest;
  const Index l = key_bits, width = 2 * l + value_bits + (latest ? 2 : 0);
  const double mu = std::max(0.0, 1 - 2 / static_cast<double>(l));
  const LatestSharpness sharp =
      latest ? LatestSharpness::of(rows, miss, mu) : LatestSharpness{attention_sharpness(rows, miss, mu), 0};
  auto model = detail::recall_attention<Backend, T>(
      width, rows, [=](Index c) { return c >= l && !(latest && c == width - 2); },
      [=](Index i, Index c) {
        if (latest && i == width - 2 && c == width - 1) return sharp.alpha;
        return i == c && c < l ? sharp.beta / static_cast<double>(l) : 0.0;
      },
      [=](Index i, Index c) { return (c < l && i == c + l) || (latest && c == width - 1 && i == c) ? 1.0 : 0.0; },
      [=](Index i, Index c) { return i == c && c >= 2 * l && c < 2 * l + value_bits ? 1.0 : 0.0; });
  return {
      std::move(model), {2, width, rows, cost<RecallAttention>(width, rows).parameters, true}, key_bits, value_bits, rule, miss};
}

/// Raw tokens of l bits: row i answers with what followed the earlier row with its token. Rows come in as (e(x), e(x)), signs
/// over the root of l; the convolution makes (current, previous) of them; attention asks with the current token for the row
/// whose previous one it is, and reads that row's current token, in columns 0 .. l - 1, off by at most miss times the largest
/// distance of two codes, 2. 2 layers, width 2l; one earlier occurrence. Errors: as attention_recall.
template <class Backend, Real T>
Model<RecallAttention, Backend, T> token_attention(Index rows, Index bits, double miss) {
  constexpr const char* where = "theory::token_attention";
  detail::at_least(where, "rows", rows, 1);
  detail::at_least(where, "bits", bits, 1);
  const Index l = bits;
  const double beta = attention_sharpness(rows, miss, std::max(0.0, 1 - 2 / static_cast<double>(l)));
  return detail::recall_attention<Backend, T>(
      2 * l, rows, [=](Index c) { return c >= l; }, [=](Index i, Index c) { return i == c && c < l ? beta : 0.0; },
      [=](Index i, Index c) { return c < l && i == c + l ? 1.0 : 0.0; },
      [=](Index i, Index c) { return i == c && c < l ? 1.0 : 0.0; });
}
inline AttentionSize token_attention_size(Index rows, Index bits) {
  return {2, 2 * bits, rows, cost<RecallAttention>(2 * bits, rows).parameters, true};
}

}  // namespace coyote::inline v0::theory

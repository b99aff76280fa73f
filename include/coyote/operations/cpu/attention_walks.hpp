// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <limits>

#include "coyote/operations/cpu/attention_blocks.hpp"

namespace coyote::inline v0::cpu::inline COYOTE_ISA {

// Walked patterns go row by row: the keys of a query are gathered in chunks, one head at a time.

/// Keys that are scored together in a row-by-row walk.
inline constexpr Index walk_chunk = 64;

/// a . b over `width` elements.
template <class S>
inline S dot(const S* a, const S* b, Index width) {
  Vec<S> sum = {};
  Index c = 0;
  for (; c + lanes<S> <= width; c += lanes<S>) sum += load(a + c) * load(b + c);
  S result = horizontal_sum<S>(sum);
  for (; c < width; ++c) result += a[c] * b[c];
  return result;
}
/// Keys of one query, handed on in chunks: flush(keys, count) is called with at most walk_chunk of them.
template <class Pattern, class Flush>
inline void walk(Entries<const std::int32_t> index, Index capacity, Index i, Flush&& flush) {
  Index keys[walk_chunk], count = 0;
  const auto enter = [&](Index j) {
    keys[count++] = j;
    if (count == walk_chunk) {
      flush(keys, count);
      count = 0;
    }
  };
  if constexpr (IntervalPattern<Pattern>) {
    for (Index j = std::max<Index>(0, Pattern::first_key(index, capacity, i)); j <= i; ++j) enter(j);
  } else {
    Pattern::for_each_key(index, capacity, i, enter);
  }
  if (count > 0) flush(keys, count);
}

/// The running softmax of one query and head.
template <class S>
struct RunningSoftmax {
  S most = -std::numeric_limits<S>::infinity(), total = 0;
  bool begun = false;
};

/// Calls f(std::integral_constant<int, n>) with the number n of registers in a head, or 0 when it is not whole or above 4:
/// then rows of a head stay in registers while their keys go by.
template <class S, class F>
inline void with_registers(Index width, F&& f) {
  const Index n = width % lanes<S> == 0 ? width / lanes<S> : 0;
  if (n == 4) return f(std::integral_constant<int, 4>{});
  if (n == 2) return f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 0>{});
}

/// One row of a head, held in registers when their number is known (Registers > 0), in memory otherwise.
template <class S, int Registers>
struct HeldRow {
  Vec<S> part[Registers];

  static HeldRow read(const S* from, Index) {
    HeldRow row;
    COYOTE_UNROLL for (int r = 0; r < Registers; ++r) row.part[r] = load(from + r * lanes<S>);
    return row;
  }
  S dot(const S* other, Index) const {
    Vec<S> sum = part[0] * load(other);
    COYOTE_UNROLL for (int r = 1; r < Registers; ++r) sum += part[r] * load(other + r * lanes<S>);
    return horizontal_sum<S>(sum);
  }
  /// to += factor * row.
  void add_to(S* to, S factor, Index) const {
    COYOTE_UNROLL for (int r = 0; r < Registers; ++r) store<S>(to + r * lanes<S>, load(to + r * lanes<S>) + factor * part[r]);
  }
};
template <class S>
struct HeldRow<S, 0> {
  const S* data;

  static HeldRow read(const S* from, Index) { return {from}; }
  S dot(const S* other, Index width) const { return cpu::dot(data, other, width); }
  void add_to(S* to, S factor, Index width) const { add_scaled(factor, data, to, width); }
};

/// A row of a head that grows by multiples of other rows: starts as what `to` holds, ends there.
template <class S, int Registers>
class Sum {
 public:
  Sum(S* to, Index, bool fresh) : to_(to) {
    COYOTE_UNROLL for (int r = 0; r < Registers; ++r) part_[r] = fresh ? Vec<S>{} : load(to + r * lanes<S>);
  }
  void scale(S factor) { COYOTE_UNROLL for (int r = 0; r < Registers; ++r) part_[r] *= factor; }
  void add(S factor, const S* x) {
    COYOTE_UNROLL for (int r = 0; r < Registers; ++r) part_[r] += factor * load(x + r * lanes<S>);
  }
  void finish() { COYOTE_UNROLL for (int r = 0; r < Registers; ++r) store<S>(to_ + r * lanes<S>, part_[r]); }

 private:
  Vec<S> part_[Registers];
  S* to_;
};
template <class S>
class Sum<S, 0> {
 public:
  Sum(S* to, Index width, bool fresh) : to_(to), width_(width) {
    if (fresh) std::fill_n(to, width, S{});
  }
  void scale(S factor) {
    for (Index c = 0; c < width_; ++c) to_[c] *= factor;
  }
  void add(S factor, const S* x) { add_scaled(factor, x, to_, width_); }
  void finish() {}

 private:
  S* to_;
  Index width_;
};

/// Adds a chunk of keys to a query's running softmax: out is the sum of v weighted relative to softmax.most, undefined
/// before the first chunk.
template <class S, int Registers>
inline void attend_keys(const S* q, Rows<const S> k, Rows<const S> v, const Index* keys, Index count, S scale,
                        const DropoutRule& rule, std::uint64_t rule_row, Index begin, RunningSoftmax<S>& softmax, S* out) {
  constexpr S nothing = -std::numeric_limits<S>::infinity();
  alignas(64) S p[walk_chunk];
  const Index padded = round_up(count, lanes<S>);
  for (Index n = padded - lanes<S>; n < padded; n += lanes<S>) store<S>(p + n, broadcast<S>(nothing));
  const auto query = HeldRow<S, Registers>::read(q, k.width);
  S most = softmax.most;
  for (Index n = 0; n < count; ++n) {
    const S score = scale * query.dot(k.row(keys[n]), k.width);
    p[n] = score;
    most = score > most ? score : most;
  }
  const S shift = most == nothing ? S{} : most;
  Vec<S> total = {};
  for (Index n = 0; n < padded; n += lanes<S>) {
    const Vec<S> e = vector_exp_negative<S>(load(p + n) - shift);
    total += e;
    store<S>(p + n, e);
  }
  Sum<S, Registers> sum(out, v.width, !softmax.begun);
  if (softmax.begun && most != softmax.most) {
    const S shrink = softmax.total == S(0) ? S(0) : std::exp(softmax.most - shift);
    softmax.total *= shrink;
    sum.scale(shrink);
  }
  softmax.total += horizontal_sum<S>(total);
  softmax.most = most;
  softmax.begun = true;
  for (Index n = 0; n < count; ++n) {
    S weight = p[n];
    if (rule.active())
      weight *= rule.keeps(rule_row, static_cast<std::uint64_t>(begin + keys[n])) ? static_cast<S>(rule.scale()) : S{};
    sum.add(weight, v.row(keys[n]));
  }
  sum.finish();
}

/// Ends a row: out becomes the attended value; returns the logarithm of the sum.
template <class S>
inline S finish_row(const RunningSoftmax<S>& softmax, S* out, Index width) {
  if (softmax.total == S(0)) {
    std::fill_n(out, width, S{});
    return -std::numeric_limits<S>::infinity();
  }
  const S inverse = 1 / softmax.total;
  copy_scaled<S>(inverse, out, out, width);
  return softmax.most + std::log(softmax.total);
}

/// A block multiplies every value by a probability, 0 where a query does not see it, and 0 * NaN is NaN: a row that came out
/// as NaN is done again from its own keys alone, so that NaN never travels back in time.
template <class S, class Pattern>
inline void repair_row(const Head<S>& head, Index i, Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<S> y) {
  S* const out = head.of(y).row(i);
  bool is_number = true;
  for (Index c = 0; c < head.width; ++c) is_number = is_number && out[c] == out[c];
  if (is_number) return;
  RunningSoftmax<S> softmax;
  walk<Pattern>(head.index, head.size, i, [&](const Index* keys, Index count) {
    attend_keys<S, 0>(head.of(q).row(i), head.of(k), head.of(v), keys, count, head.scale, *head.rule,
                      AttentionDropout::rule_row(head.begin + i, head.head, head.heads), head.begin, softmax, out);
  });
  finish_row(softmax, out, head.width);
}

/// One row of a walked pattern backwards, for one head. dk and dv are added to.
template <class S, class Pattern, int Registers>
inline void attend_row_backward(const Head<S>& head, Index i, const S* q, Rows<const S> k, Rows<const S> v, const S* y, S log,
                                const S* dy, S* dq, Rows<S> dk, Rows<S> dv) {
  const Index width = head.width;
  const auto query = HeldRow<S, Registers>::read(q, width), error = HeldRow<S, Registers>::read(dy, width);
  Sum<S, Registers> dquery(dq, width, true);
  const S delta = error.dot(y, width);
  const std::uint64_t rule_row = AttentionDropout::rule_row(head.begin + i, head.head, head.heads);
  walk<Pattern>(head.index, head.size, i, [&](const Index* keys, Index count) {
    alignas(64) S p[walk_chunk];
    const Index padded = round_up(count, lanes<S>);
    for (Index n = padded - lanes<S>; n < padded; n += lanes<S>) store<S>(p + n, Vec<S>{});
    for (Index n = 0; n < count; ++n) p[n] = head.scale * query.dot(k.row(keys[n]), width) - log;
    for (Index n = 0; n < padded; n += lanes<S>) store<S>(p + n, vector_exp_negative<S>(load(p + n)));
    for (Index n = 0; n < count; ++n) {
      const Index j = keys[n];
      S kept = 1;
      if (head.rule->active()) {
        kept = head.rule->keeps(rule_row, static_cast<std::uint64_t>(head.begin + j)) ? static_cast<S>(head.rule->scale()) : S{};
      }
      const S slope = p[n] * (kept * error.dot(v.row(j), width) - delta);
      error.add_to(dv.row(j), p[n] * kept, width);
      query.add_to(dk.row(j), head.scale * slope, width);
      dquery.add(slope, k.row(j));
    }
  });
  dquery.scale(head.scale);
  dquery.finish();
}

}  // namespace coyote::inline v0::cpu::inline COYOTE_ISA

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/operations/cpu/gemm.hpp"
#include "coyote/operations/cpu/math.hpp"
#include "coyote/operations/dropout.hpp"
#include "coyote/operations/pattern.hpp"

namespace coyote::inline v0 {
namespace cpu::inline COYOTE_ISA {

// Interval patterns work on blocks of one panel of queries against chunks of keys, with scores transposed, [keys,
// queries]: then a query is a lane, the softmax needs no sums across lanes, and of all operands of the five products
// only q and dy must be transposed, once per block.

/// Keys of one chunk: scores of a block stay in the first-level cache.
inline constexpr Index key_chunk = 96;
/// Keys that are scored together in a row-by-row walk.
inline constexpr Index walk_chunk = 64;

template <class S>
inline S* take(Arena& scratch, Index count) {
  return static_cast<S*>(scratch.allocate(static_cast<std::size_t>(count) * sizeof(S)));
}

/// x itself when its rows are close together and whole registers wide; otherwise a copy that is, filled with zeros.
template <class S>
inline Rows<const S> near(Arena& scratch, Rows<const S> x) {
  const Index width = round_up(x.width, lanes<S>);
  if (width == x.width && x.stride * static_cast<Index>(sizeof(S)) <= 1024) return x;
  const Rows<S> copy(take<S>(scratch, x.rows * width), x.rows, width);
  for (Index i = 0; i < x.rows; ++i) {
    copy_scaled(S(1), x.row(i), copy.row(i), x.width);
    for (Index c = x.width; c < width; ++c) copy(i, c) = S{};
  }
  return copy;
}

/// A sequence's head: where its rows lie and which block of queries is at work.
struct HeadTask {
  Index sequence, head, part;
};

/// The first key of each query of a block (as lanes), their least and greatest.
template <class S>
struct FirstKeys {
  alignas(64) detail::Bits<S> of[tile_columns<S>];
  Index least, greatest;

  template <class Pattern>
  static FirstKeys make(std::span<const std::int32_t> index, Index capacity, Index first, Index count) {
    FirstKeys keys;
    keys.least = first + count;
    keys.greatest = 0;
    for (Index i = 0; i < tile_columns<S>; ++i) {
      const Index key = i < count ? std::clamp<Index>(Pattern::first_key(index, capacity, first + i), 0, first + i + 1) : 0;
      keys.of[i] = static_cast<detail::Bits<S>>(key);
      if (i < count) {
        keys.least = std::min(keys.least, key);
        keys.greatest = std::max(keys.greatest, key);
      }
    }
    return keys;
  }
};

/// Puts -infinity where query `first_query + lane` does not use key `first_key + row` of scores [keys, queries].
template <class S>
inline void mask_scores(S* scores, Index keys, Index first_key, Index first_query, const FirstKeys<S>& first) {
  using I = detail::Bits<S>;
  if (first_key + keys - 1 <= first_query && first.greatest <= first_key) return;
  const Vec<S> nothing = broadcast<S>(-std::numeric_limits<S>::infinity());
  for (int r = 0; r < tile_registers; ++r) {
    Vec<I> query = {}, least = load(first.of + r * lanes<S>);
    for (int l = 0; l < lanes<S>; ++l) query[l] = static_cast<I>(first_query + r * lanes<S> + l);
    for (Index j = 0; j < keys; ++j) {
      S* at = scores + j * tile_columns<S> + r * lanes<S>;
      const Vec<I> key = broadcast<I>(static_cast<I>(first_key + j));
      const Vec<S> x = load(at);
      store<S>(at, ((key > query) | (key < least)) ? nothing : x);
    }
  }
}

/// The multipliers of dropout, 0 or rule.scale(), for scores [keys, queries] of a head; rows of the batch.
template <class S>
inline void dropout_multipliers(const DropoutRule& rule, Index query_row, Index head, Index heads, Index key_row, Index keys,
                                S* to) {
  constexpr int width = static_cast<int>(tile_columns<S>);
  std::uint32_t low[width], middle[width], draws[4][width];
  const S scale = static_cast<S>(rule.scale());
  const std::uint64_t step = rule.stream().step();
  for (int l = 0; l < width; ++l) {
    middle[l] = static_cast<std::uint32_t>(AttentionDropout::rule_row(query_row + l, head, heads));
  }
  for (Index j = 0; j < keys;) {
    const Index key = key_row + j;
    std::fill_n(low, width, static_cast<std::uint32_t>(key / 4));
    philox_lanes<width>(low, middle, static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32),
                        rule.stream().key(), draws);
    for (Index word = key % 4; word < 4 && j < keys; ++word, ++j) {
      for (int l = 0; l < width; ++l) to[j * width + l] = draws[word][l] >= rule.threshold() ? scale : S{};
    }
  }
}

/// to = scale * x^T as a panel [x.width, tile_columns], the columns behind x.rows zero.
template <class S>
inline void transpose_scaled(Rows<const S> x, S scale, S* to) {
  transpose(x.data, x.stride, x.rows, x.width, to, tile_columns<S>, tile_columns<S>);
  for (Index i = 0; i < x.width * tile_columns<S>; i += lanes<S>) store<S>(to + i, scale * load(to + i));
}

/// What one sequence and head of an attention looks like to its tasks.
template <class S>
struct Head {
  Index begin, size, head, heads;
  S scale;
  const DropoutRule* rule;
  std::span<const std::int32_t> index;
  Index width;

  template <class T>
  Rows<T> of(Rows<T> x) const {
    return x.slice(begin, size).columns(head * width, width);
  }
};

/// Queries first .. first + count - 1 of an interval pattern.
template <class S, class Pattern>
void attend_block(const Head<S>& head, Index first, Index count, Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<S> y,
                  Rows<S> log_sum_exp, Arena& scratch) {
  constexpr Index wide = tile_columns<S>, step = lanes<S>;
  constexpr S nothing = -std::numeric_limits<S>::infinity();
  const Context<Cpu>::Frame frame(scratch);
  const FirstKeys<S> keys = FirstKeys<S>::template make<Pattern>(head.index, head.size, first, count);
  S* queries = take<S>(scratch, head.width * wide);
  S* scores = take<S>(scratch, key_chunk * wide);
  const bool drops = head.rule->active();
  S* multipliers = drops ? take<S>(scratch, key_chunk * wide) : nullptr;
  const Rows<S> sums(take<S>(scratch, wide * v.width), count, v.width);
  transpose_scaled(q.slice(first, count), head.scale, queries);

  Vec<S> most[tile_registers], total[tile_registers];
  alignas(64) S factor[wide];
  for (int r = 0; r < tile_registers; ++r) {
    most[r] = broadcast<S>(nothing);
    total[r] = Vec<S>{};
  }
  bool begun = false;
  for (Index j = keys.least; j < first + count; j += key_chunk) {
    const Index n = std::min(key_chunk, first + count - j);
    product_packed<S>(k.slice(j, n), queries, head.width, nullptr, 0, Rows<S>(scores, n, wide));
    mask_scores(scores, n, j, first, keys);
    bool rescale = false;
    for (int r = 0; r < tile_registers; ++r) {
      S* at = scores + r * step;
      Vec<S> peak = most[r];
      for (Index i = 0; i < n; ++i) peak = vector_max<S>(peak, load(at + i * wide));
      const Vec<S> shift = peak == nothing ? Vec<S>{} : peak;  // no key yet: every score is -infinity
      const Vec<S> shrink = vector_exp_negative<S>(most[r] - shift);
      Vec<S> sum = total[r] * shrink;
      for (Index i = 0; i < n; ++i) {
        const Vec<S> p = vector_exp_negative<S>(load(at + i * wide) - shift);
        sum += p;
        store<S>(at + i * wide, p);
      }
      most[r] = peak;
      total[r] = sum;
      store<S>(factor + r * step, shrink);
    }
    for (Index i = 0; i < count; ++i) rescale |= factor[i] != S(1);
    if (begun && rescale) {
      for (Index i = 0; i < count; ++i) {
        for (Index c = 0; c < sums.width; c += step) store<S>(sums.row(i) + c, factor[i] * load(sums.row(i) + c));
      }
    }
    if (drops) {
      dropout_multipliers(*head.rule, head.begin + first, head.head, head.heads, head.begin + j, n, multipliers);
      for (Index i = 0; i < n * wide; i += step) store<S>(scores + i, load(scores + i) * load(multipliers + i));
    }
    product_tn<S>(Rows<const S>(scores, n, count, wide), v.slice(j, n), sums, begun ? Write::add : Write::overwrite);
    begun = true;
  }
  alignas(64) S peaks[wide], totals[wide];
  for (int r = 0; r < tile_registers; ++r) {
    store<S>(peaks + r * step, most[r]);
    store<S>(totals + r * step, total[r]);
  }
  for (Index i = 0; i < count; ++i) {
    const bool none = totals[i] == S(0);
    const S inverse = none ? S{} : 1 / totals[i];
    if (none || !begun) {
      std::fill_n(y.row(first + i), head.width, S{});
    } else {
      copy_scaled(inverse, sums.row(i), y.row(first + i), head.width);
    }
    if (log_sum_exp.rows > 0) log_sum_exp(head.begin + first + i, head.head) = none ? nothing : peaks[i] + std::log(totals[i]);
  }
}

/// Gradients of a block of queries: dq is written, dk (without the factor scale) and dv are added to.
template <class S, class Pattern>
void attend_block_backward(const Head<S>& head, Index first, Index count, Rows<const S> q, Rows<const S> k, Rows<const S> v,
                           Rows<const S> y, Rows<const S> log_sum_exp, Rows<const S> dy, Rows<S> dq, Rows<S> dk, Rows<S> dv,
                           Arena& scratch) {
  constexpr Index wide = tile_columns<S>, step = lanes<S>;
  const Context<Cpu>::Frame frame(scratch);
  const FirstKeys<S> keys = FirstKeys<S>::template make<Pattern>(head.index, head.size, first, count);
  S* queries = take<S>(scratch, head.width * wide);
  S* errors = take<S>(scratch, head.width * wide);
  S* scores = take<S>(scratch, key_chunk * wide);
  S* slopes = take<S>(scratch, key_chunk * wide);
  const bool drops = head.rule->active();
  S* multipliers = drops ? take<S>(scratch, key_chunk * wide) : nullptr;
  const Rows<const S> query = near(scratch, q.slice(first, count)), error = near(scratch, dy.slice(first, count));
  const Rows<S> dquery(take<S>(scratch, wide * k.width), count, k.width);
  transpose_scaled(q.slice(first, count), head.scale, queries);
  transpose_scaled(dy.slice(first, count), S(1), errors);

  alignas(64) S logs[wide] = {}, deltas[wide] = {};
  for (Index i = 0; i < count; ++i) {
    const S value = log_sum_exp(head.begin + first + i, head.head);
    logs[i] = value == -std::numeric_limits<S>::infinity() ? S{} : value;
    const S *a = dy.row(first + i), *b = y.row(first + i);
    Vec<S> sum = {};
    Index c = 0;
    for (; c + step <= head.width; c += step) sum += load(a + c) * load(b + c);
    deltas[i] = horizontal_sum<S>(sum);
    for (; c < head.width; ++c) deltas[i] += a[c] * b[c];
  }
  bool begun = false;
  for (Index j = keys.least; j < first + count; j += key_chunk) {
    const Index n = std::min(key_chunk, first + count - j);
    product_packed<S>(k.slice(j, n), queries, head.width, nullptr, 0, Rows<S>(scores, n, wide));
    product_packed<S>(v.slice(j, n), errors, head.width, nullptr, 0, Rows<S>(slopes, n, wide));
    mask_scores(scores, n, j, first, keys);
    if (drops) dropout_multipliers(*head.rule, head.begin + first, head.head, head.heads, head.begin + j, n, multipliers);
    for (int r = 0; r < tile_registers; ++r) {
      const Vec<S> log = load(logs + r * step), delta = load(deltas + r * step);
      for (Index i = r * step; i < n * wide; i += wide) {
        const Vec<S> p = vector_exp_negative<S>(load(scores + i) - log);
        if (drops) {
          const Vec<S> kept = load(multipliers + i);
          store<S>(scores + i, p * kept);
          store<S>(slopes + i, p * (load(slopes + i) * kept - delta));
        } else {
          store<S>(scores + i, p);
          store<S>(slopes + i, p * (load(slopes + i) - delta));
        }
      }
    }
    product<S>(Rows<const S>(scores, n, count, wide), error, dv.slice(j, n), Write::add);
    product<S>(Rows<const S>(slopes, n, count, wide), query, dk.slice(j, n), Write::add);
    product_tn<S>(Rows<const S>(slopes, n, count, wide), k.slice(j, n), dquery, begun ? Write::add : Write::overwrite);
    begun = true;
  }
  for (Index i = 0; i < count; ++i) {
    if (begun) {
      copy_scaled(head.scale, dquery.row(i), dq.row(first + i), head.width);
    } else {
      std::fill_n(dq.row(first + i), head.width, S{});
    }
  }
}

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
inline void walk(std::span<const std::int32_t> index, Index capacity, Index i, Flush&& flush) {
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
  if (n == 1) return f(std::integral_constant<int, 1>{});
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

/// Tasks of an attention: parts of each (sequence, head). Their number depends on the sizes alone.
struct Parts {
  Index heads, parts;
  constexpr Index count(Index sequences) const { return sequences * heads * parts; }
  constexpr HeadTask operator[](Index task) const { return {task / (heads * parts), task / parts % heads, task % parts}; }
};

}  // namespace cpu::inline COYOTE_ISA

/// y[i] = sum_j p_ij v[j], p_i = softmax over the keys j of row i that Pattern names, of scale * <q_i, k_j>; head by head,
/// sequence by sequence. q, k, v, y: [rows, heads * head width]. log_sum_exp [rows, heads] receives the logarithm of the
/// softmax's denominator (0 rows: not wanted). Rows without keys give 0. Dropout acts on p.
template <class S, AttentionPattern Pattern>
void attention(Context<Cpu>& ctx, const Batch& batch, PatternIndex index, Index heads, S scale, const AttentionDropout& dropout,
               Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<S> y, Rows<S> log_sum_exp) {
  const DropoutRule rule = dropout.rule();
  const Index width = q.width / heads;
  const auto head_of = [&](const cpu::HeadTask& task) {
    const Index s = task.sequence;
    return cpu::Head<S>{batch.begin(s), batch.size(s), task.head, heads, scale, &rule, index[s], width};
  };
  if constexpr (IntervalPattern<Pattern>) {
    constexpr Index block = cpu::tile_columns<S>, group = 256;
    const cpu::Parts parts{heads, ceil_div(batch.length, group)};
    ctx.parallel(parts.count(batch.sequences), [&](Index task, Arena& scratch) {
      const cpu::HeadTask t = parts[task];
      const cpu::Head<S> head = head_of(t);
      const Index first = t.part * group, last = std::min(head.size, first + group);
      if (first >= last) return;
      // Only the keys that this part of the queries may use.
      const Rows<const S> keys = cpu::near(scratch, head.of(k).slice(0, last)),
                          values = cpu::near(scratch, head.of(v).slice(0, last));
      for (Index i = first; i < last; i += block) {
        cpu::attend_block<S, Pattern>(head, i, std::min(block, last - i), head.of(q), keys, values, head.of(y), log_sum_exp,
                                      scratch);
      }
    });
  } else {
    const auto attend_row = [&](Index s, Index i, cpu::RunningSoftmax<S>* softmax) {
      const Index begin = batch.begin(s);
      std::fill_n(softmax, heads, cpu::RunningSoftmax<S>{});
      S* out = y.row(begin + i);
      cpu::walk<Pattern>(index[s], batch.size(s), i, [&](const Index* keys, Index count) {
        cpu::with_registers<S>(width, [&](auto registers) {
          for (Index h = 0; h < heads; ++h) {
            const cpu::Head<S> head = head_of({s, h, 0});
            cpu::attend_keys<S, decltype(registers)::value>(head.of(q).row(i), head.of(k), head.of(v), keys, count, scale, rule,
                                                            AttentionDropout::rule_row(begin + i, h, heads), begin, softmax[h],
                                                            out + h * width);
          }
        });
      });
      for (Index h = 0; h < heads; ++h) {
        const S log = cpu::finish_row(softmax[h], out + h * width, width);
        if (log_sum_exp.rows > 0) log_sum_exp(begin + i, h) = log;
      }
    };
    constexpr Index rows = 128;
    const Index groups = ceil_div(batch.length, rows);
    ctx.parallel(batch.sequences * groups, [&](Index task, Arena& scratch) {
      const Index s = task / groups, first = task % groups * rows;
      auto* softmax = cpu::take<cpu::RunningSoftmax<S>>(scratch, heads);
      for (Index i = first; i < std::min(batch.size(s), first + rows); ++i) attend_row(s, i, softmax);
    });
  }
}

/// Gradients of `attention`, from its inputs, its y and its log_sum_exp. dq, dk and dv are overwritten.
template <class S, AttentionPattern Pattern>
void attention_backward(Context<Cpu>& ctx, const Batch& batch, PatternIndex index, Index heads, S scale,
                        const AttentionDropout& dropout, Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<const S> y,
                        Rows<const S> log_sum_exp, Rows<const S> dy, Rows<S> dq, Rows<S> dk, Rows<S> dv) {
  const DropoutRule rule = dropout.rule();
  const Index width = q.width / heads;
  const auto head_of = [&](const cpu::HeadTask& task) {
    const Index s = task.sequence;
    return cpu::Head<S>{batch.begin(s), batch.size(s), task.head, heads, scale, &rule, index[s], width};
  };
  if constexpr (IntervalPattern<Pattern>) {
    // Few sequences and heads are cut further: part p takes every parts-th block of queries, which balances the
    // triangle, and has sums of its own for dk and dv, added in order afterwards.
    constexpr Index block = cpu::tile_columns<S>;
    const Index wanted = ceil_div(16, batch.sequences * heads);
    const cpu::Parts parts{heads, std::clamp<Index>(ceil_div(batch.length, 256), 1, wanted)};
    const Index padded = round_up(width, cpu::lanes<S>);
    const auto frame = ctx.frame();
    const Index rows = batch.rows();
    const bool split = parts.parts > 1;
    // [part][head][row] of sums; key gradients first.
    const Rows<S> sums = ctx.template make<S>(split ? 2 * parts.parts * heads * rows : 0, padded);
    const auto sums_of = [&](const cpu::HeadTask& t, Index which) {
      return sums.slice(((which * parts.parts + t.part) * heads + t.head) * rows + batch.begin(t.sequence),
                        batch.size(t.sequence));
    };
    const auto write = [&](const cpu::Head<S>& head, Index first, Index count, S factor, Rows<const S> from, Rows<S> to) {
      for (Index i = first; i < first + count; ++i) cpu::copy_scaled(factor, from.row(i), head.of(to).row(i), head.width);
    };
    ctx.parallel(parts.count(batch.sequences), [&](Index task, Arena& scratch) {
      const cpu::HeadTask t = parts[task];
      const cpu::Head<S> head = head_of(t);
      const Rows<const S> keys = cpu::near(scratch, head.of(k)), values = cpu::near(scratch, head.of(v));
      const Rows<S> dkeys = split ? sums_of(t, 0) : Rows<S>(cpu::take<S>(scratch, head.size * padded), head.size, padded);
      const Rows<S> dvalues = split ? sums_of(t, 1) : Rows<S>(cpu::take<S>(scratch, head.size * padded), head.size, padded);
      std::fill_n(dkeys.data, head.size * padded, S{});
      std::fill_n(dvalues.data, head.size * padded, S{});
      for (Index i = t.part * block; i < head.size; i += parts.parts * block) {
        cpu::attend_block_backward<S, Pattern>(head, i, std::min(block, head.size - i), head.of(q), keys, values, head.of(y),
                                               log_sum_exp, head.of(dy), head.of(dq), dkeys, dvalues, scratch);
      }
      if (!split) {
        write(head, 0, head.size, scale, dkeys, dk);
        write(head, 0, head.size, S(1), dvalues, dv);
      }
    });
    if (split) {
      const cpu::Parts pieces{heads, ceil_div(batch.length, 256)};
      ctx.parallel(pieces.count(batch.sequences), [&](Index task, Arena&) {
        const cpu::HeadTask t = pieces[task];
        const cpu::Head<S> head = head_of({t.sequence, t.head, 0});
        const Index first = t.part * 256, count = std::min<Index>(256, head.size - first);
        if (count <= 0) return;
        for (Index which = 0; which < 2; ++which) {
          const Rows<S> total = sums_of({t.sequence, t.head, 0}, which);
          for (Index part = 1; part < parts.parts; ++part) {
            cpu::add_rows<S>(sums_of({t.sequence, t.head, part}, which).row(first), padded, total.slice(first, count));
          }
          write(head, first, count, which == 0 ? scale : S(1), total, which == 0 ? dk : dv);
        }
      });
    }
  } else {
    if constexpr (GroupedPattern<Pattern>) {
      // A sequence that a core's cache holds needs no order of rows.
      if (batch.length * dk.width > (Index{1} << 17)) {
        const Index groups = Pattern::groups(batch.length);
        ctx.parallel(batch.sequences * groups, [&](Index task, Arena&) {
          const Index s = task / groups, group = task % groups, begin = batch.begin(s), size = batch.size(s);
          if (group >= Pattern::groups(size)) return;
          if (group == 0) {
            std::fill_n(dk.row(begin), dk.width, S{});
            std::fill_n(dv.row(begin), dv.width, S{});
          }
          Pattern::for_each_row(index[s], size, group, [&](Index i) {
            const Index key = Pattern::own_key(i);
            if (key >= size) return;
            std::fill_n(dk.row(begin + key), dk.width, S{});
            std::fill_n(dv.row(begin + key), dv.width, S{});
          });
          cpu::with_registers<S>(width, [&](auto registers) {
            Pattern::for_each_row(index[s], size, group, [&](Index i) {
              for (Index h = 0; h < heads; ++h) {
                const cpu::Head<S> head = head_of({s, h, 0});
                cpu::attend_row_backward<S, Pattern, decltype(registers)::value>(
                    head, i, head.of(q).row(i), head.of(k), head.of(v), head.of(y).row(i), log_sum_exp(begin + i, h),
                    head.of(dy).row(i), head.of(dq).row(i), head.of(dk), head.of(dv));
              }
            });
          });
        });
        return;
      }
    }
    const cpu::Parts parts{heads, 1};
    ctx.parallel(parts.count(batch.sequences), [&](Index task, Arena& scratch) {
      const cpu::Head<S> head = head_of(parts[task]);
      // Gathered and scattered rows lie side by side: the keys of neighbouring queries then stay in the caches.
      const Rows<const S> queries = head.of(q), errors = head.of(dy), outputs = head.of(y);
      const Rows<const S> keys = cpu::near(scratch, head.of(k)), values = cpu::near(scratch, head.of(v));
      const Rows<S> dkeys(cpu::take<S>(scratch, head.size * width), head.size, width), dqueries = head.of(dq);
      const Rows<S> dvalues(cpu::take<S>(scratch, head.size * width), head.size, width);
      std::fill_n(dkeys.data, head.size * width, S{});
      std::fill_n(dvalues.data, head.size * width, S{});
      cpu::with_registers<S>(width, [&](auto registers) {
        for (Index i = 0; i < head.size; ++i) {
          const Index ahead = std::min(i + 8, head.size - 1);
          for (Index c = 0; c < width; c += 64 / static_cast<Index>(sizeof(S))) {
            __builtin_prefetch(queries.row(ahead) + c);
            __builtin_prefetch(errors.row(ahead) + c);
            __builtin_prefetch(outputs.row(ahead) + c);
            __builtin_prefetch(dqueries.row(ahead) + c, 1);
          }
          cpu::attend_row_backward<S, Pattern, decltype(registers)::value>(head, i, queries.row(i), keys, values, outputs.row(i),
                                                                           log_sum_exp(head.begin + i, head.head), errors.row(i),
                                                                           dqueries.row(i), dkeys, dvalues);
        }
      });
      for (Index i = 0; i < head.size; ++i) {
        std::copy_n(dkeys.row(i), width, head.of(dk).row(i));
        std::copy_n(dvalues.row(i), width, head.of(dv).row(i));
      }
    });
  }
}

/// One decoding step: row `position` of each sequence. q, y: [sequences, heads * head width]; keys and values are caches
/// of `capacity` rows per sequence, sequence s at rows s * capacity .., filled up to and with `position`; index[s] was
/// built with that capacity and holds the rows up to `position`.
template <class S, AttentionPattern Pattern>
void attention_step(Context<Cpu>& ctx, PatternIndex index, Index capacity, Index position, Index heads, S scale, Rows<const S> q,
                    Rows<const S> keys, Rows<const S> values, Rows<S> y) {
  const DropoutRule none;
  const Index width = q.width / heads;
  const auto attend = [&](Index s, Index h) {
    cpu::RunningSoftmax<S> softmax;
    S* out = y.row(s) + h * width;
    const Rows<const S> k = keys.slice(s * capacity, capacity).columns(h * width, width);
    const Rows<const S> v = values.slice(s * capacity, capacity).columns(h * width, width);
    cpu::walk<Pattern>(index[s], capacity, position, [&](const Index* chosen, Index count) {
      cpu::with_registers<S>(width, [&](auto registers) {
        cpu::attend_keys<S, decltype(registers)::value>(q.row(s) + h * width, k, v, chosen, count, scale, none, 0, 0, softmax,
                                                        out);
      });
    });
    cpu::finish_row(softmax, out, width);
  };
  // Threads are woken for much work only; a walked pattern rarely has any.
  const bool much = IntervalPattern<Pattern> && q.rows * heads * width * (position + 1) > (Index{1} << 18);
  if (much) {
    ctx.parallel(q.rows * heads, [&](Index task, Arena&) { attend(task / heads, task % heads); });
  } else {
    for (Index s = 0; s < q.rows; ++s) {
      for (Index h = 0; h < heads; ++h) attend(s, h);
    }
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/operations/cpu/gemm.hpp"
#include "coyote/operations/cpu/math.hpp"
#include "coyote/operations/dropout.hpp"
#include "coyote/operations/pattern.hpp"

namespace coyote::inline v0::cpu::inline COYOTE_ISA {

// Interval patterns work on blocks of one panel of queries against chunks of keys, with scores transposed, [keys,
// queries]: then a query is a lane, the softmax needs no sums across lanes, and of all operands of the five products
// only q and dy must be transposed, once per block.

/// Keys of one chunk: scores of a block stay in the first-level cache.
inline constexpr Index key_chunk = 96;

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
  static FirstKeys make(Entries<const std::int32_t> index, Index capacity, Index first, Index count) {
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
    std::fill_n(low, width, static_cast<std::uint32_t>(key / 8));
    philox_lanes<width>(low, middle, static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32),
                        rule.stream().key(), draws);
    for (Index n = key % 8; n < 8 && j < keys; ++n, ++j) {
      const Index shift = n % 2 * 16;
      for (int l = 0; l < width; ++l) {
        to[j * width + l] = (draws[n / 2][l] >> shift & 0xFFFF) >= rule.threshold() ? scale : S{};
      }
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
  Entries<const std::int32_t> index;
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

}  // namespace coyote::inline v0::cpu::inline COYOTE_ISA

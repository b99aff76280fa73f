// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cpu/attention_blocks.hpp"
#include "coyote/operations/cpu/attention_walks.hpp"

namespace coyote::inline v0 {
namespace cpu::inline COYOTE_ISA {

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
        for (Index row = i; row < std::min(last, i + block); ++row) cpu::repair_row<S, Pattern>(head, row, q, k, v, y);
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

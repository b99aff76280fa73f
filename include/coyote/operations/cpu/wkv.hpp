// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/operations/cpu/activation.hpp"
#include "coyote/operations/rowwise.hpp"
#include "coyote/operations/wkv.hpp"

namespace coyote::inline v0 {
namespace cpu::inline COYOTE_ISA {

/// Rows between two checkpoints of the recurrence: backward works the states between them out again.
inline constexpr Index wkv_chunk = 16;
/// Strips (registers of channels) that walk through a sequence together: neighbours in memory.
inline constexpr Index wkv_together = 4;

/// The recurrence of one register of channels (operations/wkv.hpp).
template <class S>
struct WkvStrip {
  Vec<S> numerator, denominator, highest;

  static WkvStrip empty() { return {Vec<S>{}, Vec<S>{}, broadcast<S>(static_cast<S>(empty_exponent))}; }

  /// e^(a - max(a, b)) and e^(b - max(a, b)): one of them is 1.
  struct Weights {
    Vec<S> a, b;
  };
  static Weights weights(Vec<S> a, Vec<S> b) {
    const Vec<S> one = broadcast<S>(S(1)), difference = a - b;
    const Vec<S> smaller = vector_exp_negative<S>(difference > S(0) ? -difference : difference);
    return {difference > S(0) ? one : smaller, difference > S(0) ? smaller : one};
  }
  struct Output {
    Vec<S> highest, current, denominator, value;
  };
  Output output(Vec<S> bonus, Vec<S> k, Vec<S> v) const {
    const Vec<S> key = bonus + k;
    const Weights e = weights(highest, key);
    const Vec<S> below = e.a * denominator + e.b;
    return {highest > key ? highest : key, e.b, below, (e.a * numerator + e.b * v) / below};
  }
  void advance(Vec<S> w, Vec<S> k, Vec<S> v) {
    const Vec<S> decayed = highest - w;
    const Weights e = weights(decayed, k);
    numerator = e.a * numerator + e.b * v;
    denominator = e.a * denominator + e.b;
    highest = decayed > k ? decayed : k;
  }
  static WkvStrip load_from(const S* from, Index width, Index count) {
    return {load_some(from, count), load_some(from + width, count), load_some(from + 2 * width, count)};
  }
  void store_to(S* to, Index width, Index count) const {
    store_some(to, numerator, count);
    store_some(to + width, denominator, count);
    store_some(to + 2 * width, highest, count);
  }
};

/// The adjoint of a strip, running backwards, and the gradients by w and the bonus.
template <class S>
struct WkvAdjoint {
  Vec<S> p, q, highest, sum_w, sum_b;
};

/// The row of the checkpoint in front of a sequence's rows chunk * wkv_chunk and on. No two share a row.
inline Index wkv_checkpoint(const Batch& batch, Index sequence, Index chunk) {
  return batch.begin(sequence) / wkv_chunk + sequence + chunk;
}

/// Cuts the work in (sequence, group of strips) and calls f(sequence, first strip, strips).
template <class S, class F>
inline void for_each_wkv_group(Context<Cpu>& context, const Batch& batch, Index width, F&& f) {
  const Index strips = ceil_div(width, lanes<S>);
  // Few sequences: a strip by itself, so that there is work for all threads. Results do not depend on it.
  const Index together = batch.sequences < 8 ? 1 : wkv_together;
  const Index groups = ceil_div(strips, together);
  context.parallel(batch.sequences * groups, [&](Index block, Arena&) {
    const Index first = block % groups * together;
    f(block / groups, first, std::min(together, strips - first));
  });
}

}  // namespace cpu::inline COYOTE_ISA

inline Index wkv_checkpoints(const Context<Cpu>&, const Batch& batch) {
  return batch.rows() / cpu::wkv_chunk + batch.sequences + 1;
}

/// See the Reference implementation. A register holds neighbouring channels; time is sequential.
template <class S>
void wkv(Context<Cpu>& context, const Batch& batch, Rows<const S> decay, Rows<const S> bonus, Rows<const S> k, Rows<const S> v,
         Rows<S> y, Rows<S> checkpoints) {
  using Strip = cpu::WkvStrip<S>;
  using Vec = cpu::Vec<S>;
  constexpr Index lanes = cpu::lanes<S>;
  const Index width = y.width;
  cpu::for_each_wkv_group<S>(context, batch, width, [&](Index sequence, Index first_strip, Index strips) {
    const Index first = batch.begin(sequence), n = batch.size(sequence);
    Strip states[cpu::wkv_together];
    Vec w[cpu::wkv_together], b[cpu::wkv_together];
    for (Index strip = 0; strip < strips; ++strip) {
      const Index c = (first_strip + strip) * lanes, count = std::min(lanes, width - c);
      states[strip] = Strip::empty();
      w[strip] = cpu::vector_exp<S>(cpu::load_some(decay.row(0) + c, count));
      b[strip] = cpu::load_some(bonus.row(0) + c, count);
    }
    for (Index begin = 0; begin < n; begin += cpu::wkv_chunk) {
      const Index end = std::min(n, begin + cpu::wkv_chunk);
      for (Index strip = 0; strip < strips; ++strip) {
        const Index c = (first_strip + strip) * lanes, count = std::min(lanes, width - c);
        Strip state = states[strip];
        if (checkpoints.rows > 0) {
          state.store_to(checkpoints.row(cpu::wkv_checkpoint(batch, sequence, begin / cpu::wkv_chunk)) + c, width, count);
        }
        for (Index i = first + begin; i < first + end; ++i) {
          const Vec key = cpu::load_some(k.row(i) + c, count), value = cpu::load_some(v.row(i) + c, count);
          cpu::store_some(y.row(i) + c, state.output(b[strip], key, value).value, count);
          state.advance(w[strip], key, value);
        }
        states[strip] = state;
      }
    }
  });
}

/// See the Reference implementation.
template <class S>
void wkv_backward(Context<Cpu>& context, const Batch& batch, Rows<const S> decay, Rows<const S> bonus, Rows<const S> k,
                  Rows<const S> v, Rows<const S> checkpoints, Rows<const S> dy, Rows<S> dk, Rows<S> dv, Rows<S> ddecay,
                  Rows<S> dbonus) {
  using Strip = cpu::WkvStrip<S>;
  using Vec = cpu::Vec<S>;
  constexpr Index lanes = cpu::lanes<S>;
  const Index width = dy.width;
  const auto frame = context.frame();
  // One row per sequence: gradients by w, then by the bonus.
  const Rows<S> sums = context.template make<S>(batch.sequences, 2 * width);
  cpu::for_each_wkv_group<S>(context, batch, width, [&](Index sequence, Index first_strip, Index strips) {
    const Index first = batch.begin(sequence), n = batch.size(sequence);
    cpu::WkvAdjoint<S> adjoints[cpu::wkv_together];
    Vec w[cpu::wkv_together], b[cpu::wkv_together];
    for (Index strip = 0; strip < strips; ++strip) {
      const Index c = (first_strip + strip) * lanes, count = std::min(lanes, width - c);
      adjoints[strip] = {Vec{}, Vec{}, cpu::broadcast<S>(static_cast<S>(empty_exponent)), Vec{}, Vec{}};
      w[strip] = cpu::vector_exp<S>(cpu::load_some(decay.row(0) + c, count));
      b[strip] = cpu::load_some(bonus.row(0) + c, count);
    }
    for (Index chunk = ceil_div(n, cpu::wkv_chunk) - 1; chunk >= 0; --chunk) {
      const Index begin = chunk * cpu::wkv_chunk, rows = std::min(cpu::wkv_chunk, n - begin);
      for (Index strip = 0; strip < strips; ++strip) {
        const Index c = (first_strip + strip) * lanes, count = std::min(lanes, width - c);
        cpu::WkvAdjoint<S> a = adjoints[strip];
        Strip states[cpu::wkv_chunk];
        states[0] = Strip::load_from(checkpoints.row(cpu::wkv_checkpoint(batch, sequence, chunk)) + c, width, count);
        for (Index i = 0; i + 1 < rows; ++i) {
          states[i + 1] = states[i];
          const Index row = first + begin + i;
          states[i + 1].advance(w[strip], cpu::load_some(k.row(row) + c, count), cpu::load_some(v.row(row) + c, count));
        }
        for (Index i = rows - 1; i >= 0; --i) {
          const Index row = first + begin + i;
          const Vec key = cpu::load_some(k.row(row) + c, count), value = cpu::load_some(v.row(row) + c, count);
          const Strip& state = states[i];
          const auto out = state.output(b[strip], key, value);
          const Vec later = cpu::vector_exp<S>(key + a.highest);
          const Vec decayed = a.highest - w[strip];
          a.sum_w -= cpu::vector_exp<S>(state.highest + decayed) * (a.p * state.numerator + a.q * state.denominator);
          const Vec g = cpu::load_some(dy.row(row) + c, count) / out.denominator;
          const Vec direct = out.current * g, through_bonus = direct * (value - out.value);
          a.sum_b += through_bonus;
          cpu::store_some(dk.row(row) + c, later * (a.p * value + a.q) + through_bonus, count);
          cpu::store_some(dv.row(row) + c, later * a.p + direct, count);
          const auto e = Strip::weights(decayed, -out.highest);
          const Vec current = e.b * g;
          a.p = e.a * a.p + current;
          a.q = e.a * a.q - current * out.value;
          a.highest = decayed > -out.highest ? decayed : -out.highest;
        }
        adjoints[strip] = a;
      }
    }
    for (Index strip = 0; strip < strips; ++strip) {
      const Index c = (first_strip + strip) * lanes, count = std::min(lanes, width - c);
      // A decay so fast that w overflows has no slope left: not 0 * infinity.
      const Vec zero = {};
      const Vec slope = adjoints[strip].sum_w == zero ? zero : adjoints[strip].sum_w * w[strip];
      cpu::store_some(sums.row(sequence) + c, slope, count);
      cpu::store_some(sums.row(sequence) + width + c, adjoints[strip].sum_b, count);
    }
  });
  const auto add = [&](Rows<S> part, Rows<S> total) {
    if (total.rows == 0) return;
    context.sum_rows(part.rows, total, [&](Index s, S* to) {
      for (Index c = 0; c < width; ++c) to[c] += part(s, c);
    });
  };
  add(sums.columns(0, width), ddecay);
  add(sums.columns(width, width), dbonus);
}

/// See the Reference implementation.
template <class S>
void wkv_step(Context<Cpu>& context, Rows<S> state, Rows<const S> decay, Rows<const S> bonus, Rows<const S> k, Rows<const S> v,
              Rows<S> y) {
  using Strip = cpu::WkvStrip<S>;
  const Index width = y.width;
  context.for_rows(y.rows, 64 * width, [&](Index s) {
    cpu::for_each_register<S>(width, [&](Index c, Index count) {
      Strip strip = Strip::load_from(state.row(s) + c, width, count);
      const auto key = cpu::load_some(k.row(s) + c, count), value = cpu::load_some(v.row(s) + c, count);
      cpu::store_some(y.row(s) + c, strip.output(cpu::load_some(bonus.row(0) + c, count), key, value).value, count);
      strip.advance(cpu::vector_exp<S>(cpu::load_some(decay.row(0) + c, count)), key, value);
      strip.store_to(state.row(s) + c, width, count);
    });
  });
}

}  // namespace coyote::inline v0

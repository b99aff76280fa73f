// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/array.hpp"
#include "coyote/operations/rowwise.hpp"
#include "coyote/operations/wkv.hpp"

namespace coyote::inline v0 {

namespace reference {

/// The recurrence of one channel.
template <class P>
struct WkvState {
  P numerator{}, denominator{}, highest = static_cast<P>(empty_exponent);

  struct Output {
    P highest, current, denominator, value;  // the shift, e^(b + k - shift), the sum below, the ratio
  };
  Output output(P bonus, P k, P v) const {
    const P key = bonus + k;
    const P shift = highest < key ? key : highest;
    const P past = shifted_exponential(highest, shift), current = shifted_exponential(key, shift);
    const P above = past * numerator + current * v;
    const P below = past * denominator + current;
    return {shift, current, below, above / below};
  }
  void advance(P w, P k, P v) {
    const P decayed = highest - w;
    const P shift = decayed < k ? k : decayed;
    const P past = shifted_exponential(decayed, shift), current = shifted_exponential(k, shift);
    numerator = past * numerator + current * v;
    denominator = past * denominator + current;
    highest = shift;
  }
};

}  // namespace reference

/// y_i = (sum_{j<i} e^(-(i-1-j) w + k_j) v_j + e^(b + k_i) v_i) / (the same without v), w = exp(decay), b = bonus, per channel.
/// decay and bonus [1, width]; k, v, y [rows, width]. `checkpoints`, when present, is what wkv_backward wants.
template <class S>
void wkv(Context<Reference>&, const Batch& batch, Rows<const parameter_t<S>> decay, Rows<const parameter_t<S>> bonus,
         Rows<const S> k, Rows<const S> v, Rows<S> y, Rows<parameter_t<S>> /*checkpoints*/) {
  using P = parameter_t<S>;
  using std::exp;
  for (Index c = 0; c < y.width; ++c) {
    const P w = exp(decay(0, c));
    for (Index s = 0; s < batch.sequences; ++s) {
      reference::WkvState<P> state;
      for (Index i = batch.begin(s); i < batch.end(s); ++i) {
        const P key = static_cast<P>(k(i, c)), value = static_cast<P>(v(i, c));
        y(i, c) = static_cast<S>(state.output(bonus(0, c), key, value).value);
        state.advance(w, key, value);
      }
    }
  }
}

/// Gradients of wkv: dk and dv are overwritten, ddecay and dbonus (absent: not wanted) added to. Backwards in time runs the
/// adjoint of the recurrence, P = dL/dN and Q = dL/dD, kept as p e^highest and q e^highest like the sums themselves.
template <class S>
void wkv_backward(Context<Reference>&, const Batch& batch, Rows<const parameter_t<S>> decay, Rows<const parameter_t<S>> bonus,
                  Rows<const S> k, Rows<const S> v, Rows<const parameter_t<S>> /*checkpoints*/, Rows<const S> dy, Rows<S> dk,
                  Rows<S> dv, Rows<parameter_t<S>> ddecay, Rows<parameter_t<S>> dbonus) {
  using P = parameter_t<S>;
  using std::exp;
  for (Index c = 0; c < dy.width; ++c) {
    const P w = exp(decay(0, c));
    P sum_w{}, sum_b{};
    for (Index s = 0; s < batch.sequences; ++s) {
      const Index first = batch.begin(s), n = batch.size(s);
      Array<reference::WkvState<P>> before(n);
      for (Index i = 0; i + 1 < n; ++i) {
        before[i + 1] = before[i];
        before[i + 1].advance(w, static_cast<P>(k(first + i, c)), static_cast<P>(v(first + i, c)));
      }
      P p{}, q{}, highest = static_cast<P>(empty_exponent);
      for (Index i = n - 1; i >= 0; --i) {
        const P key = static_cast<P>(k(first + i, c)), value = static_cast<P>(v(first + i, c));
        const auto& state = before[i];
        const auto out = state.output(bonus(0, c), key, value);
        // Through the state after this row.
        const P later = exp(key + highest);
        P dvalue = later * p, dkey = later * (p * value + q);
        const P decayed = highest - w;
        sum_w -= exp(state.highest + decayed) * (p * state.numerator + q * state.denominator);
        // Through this row's output; its gradients by N and D are g e^(-shift) and -y g e^(-shift).
        const P g = static_cast<P>(dy(first + i, c)) / out.denominator;
        const P through_bonus = out.current * g * (value - out.value);
        dvalue += out.current * g;
        dkey += through_bonus;
        sum_b += through_bonus;
        dk(first + i, c) = static_cast<S>(dkey);
        dv(first + i, c) = static_cast<S>(dvalue);
        const P shift = decayed < -out.highest ? -out.highest : decayed;
        const P past = exp(decayed - shift), current = exp(-out.highest - shift) * g;
        p = past * p + current;
        q = past * q - current * out.value;
        highest = shift;
      }
    }
    // A decay so fast that w overflows has no slope left: not 0 * infinity.
    if (ddecay.rows > 0 && !(sum_w == P{})) ddecay(0, c) += sum_w * w;
    if (dbonus.rows > 0) dbonus(0, c) += sum_b;
  }
}

/// One row of every sequence. state [sequences, 3 * width]: numerators, denominators, highest exponents.
template <class S>
void wkv_step(Context<Reference>&, Rows<parameter_t<S>> state, Rows<const parameter_t<S>> decay, Rows<const parameter_t<S>> bonus,
              Rows<const S> k, Rows<const S> v, Rows<S> y) {
  using P = parameter_t<S>;
  using std::exp;
  const Index width = y.width;
  for (Index s = 0; s < y.rows; ++s) {
    for (Index c = 0; c < width; ++c) {
      reference::WkvState<P> channel{state(s, c), state(s, width + c), state(s, 2 * width + c)};
      const P key = static_cast<P>(k(s, c)), value = static_cast<P>(v(s, c));
      y(s, c) = static_cast<S>(channel.output(bonus(0, c), key, value).value);
      channel.advance(exp(decay(0, c)), key, value);
      state(s, c) = channel.numerator;
      state(s, width + c) = channel.denominator;
      state(s, 2 * width + c) = channel.highest;
    }
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/combine.hpp"
#include "coyote/core/storage.hpp"
#include "coyote/operations/reference/wkv.hpp"

namespace coyote::inline v0 {

/// How keys and values become one in RWKV-4 (see Wkv).
struct WkvRecurrence {
  struct Options {
    Init decay = Init::constant(0), bonus = Init::constant(0);
  };
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree(Degree, Degree) { return infinite_degree; }
  static constexpr Index output_width(Index a, Index b) { return a == b ? a : 0; }
  static constexpr Cost cost(Dimensions dims, Index a, Index) {
    const Index all = dims.length * a;
    return {.parameters = 2 * a, .multiplications = 6 * all, .additions = 6 * all, .functions = 5 * all, .state_scalars = 3 * a};
  }
};

/// Wkv<K, V>: with k = K(u), v = V(u), w = exp(decay) and b = bonus, per channel:
///
///     y_i = (sum_{j<i} e^(-(i-1-j) w + k_j) v_j + e^(b + k_i) v_i) / (sum_{j<i} e^(-(i-1-j) w + k_j) + e^(b + k_i)),
///
/// a mean of the values so far, weighted by their keys and their age. Computed as a recurrence, linear in the length, with a
/// running maximum of the exponents: nothing overflows, whatever the keys.
/// Saves the branches' outputs (and on Cpu a sixteenth of the states). Real scalars. Not a polynomial. State: numerator,
/// denominator and maximum, 3*D scalars. Cost beyond its branches: 6*L*D multiplications and additions, 5*L*D functions (the
/// subtraction of the maximum and the constant e^decay are not counted). Errors: branches of different widths.
/// Parameters: decay [D] and bonus [D], 0 unless said otherwise. Source: RWKV (arXiv 2305.13048), eq. 16 and appendix D.
template <class K, class V>
using Wkv = Combine<WkvRecurrence, K, V>;

template <class Backend, class S>
requires is_real<S>
class Junction<WkvRecurrence, Backend, S> {
  using P = parameter_t<S>;

 public:
  struct Saved {
    Tensor<Backend, P> checkpoints;
  };
  struct State {
    Storage<Backend, P> sums;  // per sequence: numerators, denominators, highest exponents
    constexpr StateSize size() const { return {.scalars = sums.width()}; }
  };

  Junction(Dimensions, Index width, Index, const WkvRecurrence::Options& options, Path path)
      : path_(path), decay_(1, width, options.decay, false), bonus_(1, width, options.bonus, false) {}

  template <class V>
  void visit(V& v) {
    visit_parameter(v, path_ / "decay", decay_);
    visit_parameter(v, path_ / "bonus", bonus_);
  }

  Rows<const P> decay() const { return decay_.view(); }
  Rows<const P> bonus() const { return bonus_.view(); }

  void forward(Context<Backend>& context, const Batch& batch, Rows<const S> k, Rows<const S> v, Rows<S> y, Saved& saved) const {
    if (context.training()) {
      saved.checkpoints = context.template make<P>(wkv_checkpoints(context, batch), 3 * y.width);
      wkv<S>(context, batch, decay_.view(), bonus_.view(), k, v, y, saved.checkpoints);
    } else {
      wkv<S>(context, batch, decay_.view(), bonus_.view(), k, v, y, {});
    }
  }
  void backward(Context<Backend>& context, const Batch& batch, Rows<const S> k, Rows<const S> v, Rows<const S> dy, Rows<S> dk,
                Rows<S> dv, Saved& saved) const {
    wkv_backward<S>(context, batch, decay_.view(), bonus_.view(), k, v, saved.checkpoints, dy, dk, dv, decay_.gradient,
                    bonus_.gradient);
  }
  State make_state(StateBounds bounds) const {
    const Index width = decay_.columns;
    Matrix<P> sums(bounds.sequences, 3 * width);
    for (Index s = 0; s < bounds.sequences; ++s) {
      for (Index c = 0; c < width; ++c) sums(s, 2 * width + c) = static_cast<P>(empty_exponent);
    }
    return {to_backend<Backend>(std::move(sums))};
  }
  void step(Context<Backend>& context, State& state, const Step&, Rows<const S> k, Rows<const S> v, Rows<S> y) const {
    if (y.rows != state.sums.rows()) {
      throw Error(std::string(path_.view()), words("one row for each of the state's ", state.sums.rows(), " sequences"),
                  words(y.rows));
    }
    wkv_step<S>(context, state.sums.view(), decay_.view(), bonus_.view(), k, v, y);
  }

 private:
  Path path_;
  Parameter<P> decay_, bonus_;
};

}  // namespace coyote::inline v0

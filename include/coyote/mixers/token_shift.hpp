// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "coyote/core/mixer.hpp"
#include "coyote/core/storage.hpp"
#include "coyote/operations/decoding.hpp"
#include "coyote/operations/norm.hpp"
#include "coyote/operations/token_shift.hpp"

namespace coyote::inline v0 {

/// y[b,l,c] = m[c] * u[b,l,c] + (1 - m[c]) * u[b,l-1,c], with 0 before a sequence's first row. With Copies > 1 there are
/// several such mixtures of the same input side by side: y is [batch, length, Copies * width], mixture n in columns n * width
/// and on (Part<n, Copies> picks it), and one remembered row serves them all. Over any ring.
/// Saves u. Cost of a copy: 2*L*D multiplications, L*D additions (1 - m is a constant, not counted). State: D scalars.
/// Parameters: mix.n [D], one per copy, 1/2 unless said otherwise. Errors: width mismatch.
/// Source: RWKV (arXiv 2305.13048), eq. 11 to 13.
template <Index Copies = 1>
struct TokenShift {
  static_assert(Copies >= 1, "coyote: a TokenShift makes at least one mixture");
  using Parts = Types<>;
  struct Options {
    Init mix[Copies];
    constexpr Options() {
      for (Init& init : mix) init = Init::constant(0.5);
    }
  };
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = 1;
  static constexpr Index output_width(Index width) { return Copies * width; }
  static constexpr Cost cost(Dimensions dims, const Options&, Index) {
    const Index all = Copies * dims.length * dims.width;
    return {.parameters = Copies * dims.width, .multiplications = 2 * all, .additions = all, .state_scalars = dims.width};
  }
};

template <Index Copies, class Backend, class S>
class Layer<TokenShift<Copies>, Backend, S> {
  using P = parameter_t<S>;

 public:
  struct Saved {
    Rows<const S> u;
  };
  /// The row before the next one, of every sequence.
  struct State {
    Storage<Backend, P> before;
    constexpr StateSize size() const { return {.scalars = before.width()}; }
  };

  constexpr Layer(Dimensions dims, const typename TokenShift<Copies>::Options& options, Path path)
      : path_(path), width_(dims.width) {
    require_dimensions(path, dims);
    for (Index n = 0; n < Copies; ++n) mix_[n] = Parameter<P>(1, dims.width, options.mix[n], false);
  }

  template <class V>
  constexpr void visit(V& v) {
    for (Index n = 0; n < Copies; ++n) visit_parameter(v, path_ / "mix" / n, mix_[n]);
  }
  constexpr Index output_width() const { return Copies * width_; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, width_, y, output_width());
    saved.u = u;
    const auto frame = context.frame();
    Tensor<Backend, P> rest = context.template make<P>(Copies, width_);
    complements(context, rest);
    for (Index n = 0; n < Copies; ++n) {
      token_shift<S>(context, batch, u, mix_[n].view(), Rows<P>(rest).slice(n, 1), y.columns(n * width_, width_));
    }
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, P> rest = context.template make<P>(Copies, width_);
    complements(context, rest);
    for (Index n = 0; n < Copies; ++n) {
      token_shift_backward<S>(context, batch, saved.u, mix_[n].view(), Rows<P>(rest).slice(n, 1), dy.columns(n * width_, width_),
                              du, n > 0 && write == Write::overwrite ? Write::add : write, mix_[n].gradient);
    }
  }

  constexpr State make_state(StateBounds bounds) const { return {{bounds.sequences, width_}}; }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    require_views(path_, state.before.rows(), u, width_, y, output_width());
    for (Index n = 0; n < Copies; ++n) {
      token_shift_step<S>(context, mix_[n].view(), state.before, u, y.columns(n * width_, width_));
    }
    store_rows<S>(context, at, u, state.before);
  }
  /// Of the input normalised by a rule: all mixtures, and what is remembered, in one operation.
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip,
                      const NormRule<P>& norm) const requires(steps_normalise<Backend, S>) {
    require_views(path_, state.before.rows(), u, width_, y, output_width());
    std::array<Rows<const P>, Copies> mixes;
    for (Index n = 0; n < Copies; ++n) mixes[static_cast<std::size_t>(n)] = mix_[n].view();
    token_shifts_step<S>(context, at, norm, mixes, state.before, u, y);
    if (skip.rows > 0) assign<S>(context, skip, y, Write::add);
  }

 private:
  /// 1 - mix, of every copy.
  constexpr void complements(Context<Backend>& context, Rows<P> rest) const {
    for (Index n = 0; n < Copies; ++n) complement<P>(context, mix_[n].view(), rest.slice(n, 1));
  }

  Path path_;
  Index width_;
  Parameter<P> mix_[Copies];
};

}  // namespace coyote::inline v0

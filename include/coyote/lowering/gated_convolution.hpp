// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/gate.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/operations/norm.hpp"

namespace coyote::inline v0::internal {

/// Gate<A, C> with C a convolution, whose epilogue adds the bias and applies the gate: the convolution's value never makes
/// a pass through memory of its own. Saves A's output, and for a long convolution its value before the gate.
template <class A, class C>
struct GatedConvolution : Gate<A, C> {};

}  // namespace coyote::inline v0::internal

namespace coyote::inline v0 {

template <class A, class C, class Backend, class S>
class Layer<internal::GatedConvolution<A, C>, Backend, S> {
  using P = parameter_t<S>;
  using Left = Layer<A, Backend, S>;
  using Right = Layer<C, Backend, S>;

 public:
  struct Saved {
    Tensor<Backend, S> gate;
    typename Left::Saved left;
    typename Right::Saved right;
  };
  struct State {
    typename Left::State left;
    typename Right::State right;
    constexpr StateSize size() const { return left.size() + right.size(); }
  };

  constexpr Layer(Dimensions dims, const typename Gate<A, C>::Options& options, Path path)
      : path_(path), left_(dims, options.left, path / "left"), right_(dims, options.right, path / "right") {
    if (left_.output_width() != right_.output_width()) {
      throw Error(std::string(path.view()), "two branches whose widths fit together",
                  words(left_.output_width(), " and ", right_.output_width()));
    }
  }

  template <class V>
  constexpr void visit(V& v) {
    left_.visit(v);
    right_.visit(v);
  }
  constexpr Index output_width() const { return right_.output_width(); }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    saved.gate = context.template make<S>(u.rows, output_width());
    left_.forward(context, batch, u, saved.gate, saved.left);
    right_.forward_gated(context, batch, u, saved.gate, y, saved.right);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> dgate = context.template make<S>(dy.rows, output_width());
    right_.backward_gated(context, batch, saved.gate, dy, du, write, dgate, saved.right);
    left_.backward(context, batch, dgate, du, write == Write::none ? write : Write::add, saved.left);
  }

  constexpr State make_state(StateBounds bounds) const { return {left_.make_state(bounds), right_.make_state(bounds)}; }
  /// `skip`, if it is there, is added to the output.
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y,
                      Rows<const S> skip = {}) const {
    const auto frame = context.frame();
    Tensor<Backend, S> gate = context.template make<S>(u.rows, output_width());
    left_.step(context, state.left, at, u, gate);
    if constexpr (requires { right_.step_gated(context, state.right, at, u, gate, y, skip); }) {
      right_.step_gated(context, state.right, at, u, gate, y, skip);
    } else {
      right_.step(context, state.right, at, u, y);
      multiply<S>(context, y, gate, y, Write::overwrite);
      if (skip.rows > 0) assign<S>(context, skip, y, Write::add);
    }
  }
  /// Of the input normalised by a rule: a linear map and a short convolution are one operation then.
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip,
                      const NormRule<P>& norm) const
      requires(steps_normalise<Backend, S>&& requires(const Left& left, const Right& right) {
        left.weight();
        right.taps();
      }) {
    require_views(path_, state.right.sequences, u, left_.weight().rows, y, output_width());
    for (const Rows<const P> bias : {left_.bias(), right_.bias()}) {
      if (bias.rows > 1) require_length(path_, at.position + 1, bias.rows);
    }
    gated_convolution_step<S>(context, at, norm, left_.weight(), left_.bias(), right_.taps(), right_.bias(), state.right.history,
                              u, y, skip);
  }

 private:
  Path path_;
  Left left_;
  Right right_;
};

}  // namespace coyote::inline v0

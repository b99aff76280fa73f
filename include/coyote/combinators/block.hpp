// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/residual.hpp"
#include "coyote/mixers/norm.hpp"
#include "coyote/operations/skip.hpp"

namespace coyote::inline v0 {

/// The options of the norm and of the mixer.
template <class N, class A>
struct BlockOptions {
  N norm = {};
  A mixer = {};
};

/// y = u + A(Norm(u)): pre-norm and residual around a mixer. Its parts are named `norm` and `mixer`.
template <class A, class Norm = LayerNorm>
struct Block {
  static_assert(detail::require_mixer<A>() && detail::require_mixer<Norm>());
  using Parts = Types<Norm, A>;
  using Options = BlockOptions<typename Norm::Options, typename A::Options>;
  using Expanded = Residual<Chain<Norm, A>>;
  static constexpr bool is_causal = Expanded::is_causal, is_input_dependent = Expanded::is_input_dependent;
  static constexpr bool state_is_bounded = Expanded::state_is_bounded;
  static constexpr Degree degree = Expanded::degree;
  static constexpr Index output_width(Index width) { return Expanded::output_width(width); }
  static constexpr Cost cost(Dimensions dims, const Options& options, Index pairs) {
    return Expanded::cost(dims, {{options.norm, options.mixer}}, pairs);
  }
};

template <class A, class Norm, class Backend, class S>
class Layer<Block<A, Norm>, Backend, S> {
  using First = Layer<Norm, Backend, S>;
  using Second = Layer<A, Backend, S>;

 public:
  struct Saved {
    Tensor<Backend, S> normed;
    typename First::Saved norm;
    typename Second::Saved mixer;
  };
  struct State {
    typename First::State norm;
    typename Second::State mixer;
    constexpr StateSize size() const { return norm.size() + mixer.size(); }
  };

  constexpr Layer(Dimensions dims, const typename Block<A, Norm>::Options& options, Path path)
      : norm_(dims, options.norm, path / "norm"), mixer_({norm_.output_width(), dims.length}, options.mixer, path / "mixer") {
    if (mixer_.output_width() != dims.width) {
      throw Error(std::string(path.view()), words("a mixer that keeps the width ", dims.width, " inside a block"),
                  words(mixer_.output_width()));
    }
  }

  template <class V>
  constexpr void visit(V& v) {
    norm_.visit(v);
    mixer_.visit(v);
  }
  constexpr Index output_width() const { return mixer_.output_width(); }
  constexpr const Second& mixer() const { return mixer_; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    if (context.training()) {
      run(context, batch, u, y, saved);
    } else {
      const auto frame = context.frame();
      run(context, batch, u, y, saved);
    }
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> dnormed = context.template make<S>(dy.rows, norm_.output_width());
    mixer_.backward(context, batch, dy, dnormed, Write::overwrite, saved.mixer);
    if constexpr (requires { norm_.backward(context, batch, dnormed, du, write, saved.norm, dy); }) {
      norm_.backward(context, batch, dnormed, du, write, saved.norm, dy);
    } else {
      norm_.backward(context, batch, dnormed, du, write, saved.norm);
      assign<S>(context, dy, du, write == Write::none ? write : Write::add);
    }
  }
  constexpr State make_state(StateBounds bounds) const { return {norm_.make_state(bounds), mixer_.make_state(bounds)}; }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    detail::step_normed<First, Second, Context<Backend>, S>(norm_, state.norm, mixer_, context, state.mixer, at, u, y, u);
  }

 private:
  constexpr void run(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    saved.normed = context.template make<S>(u.rows, norm_.output_width());
    norm_.forward(context, batch, u, saved.normed, saved.norm);
    detail::forward_onto<Second, Context<Backend>, S>(mixer_, context, batch, saved.normed, y, saved.mixer, u);
  }

  First norm_;
  Second mixer_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// How many copies, and the options that they share.
template <class A, Index N = 0>
struct RepeatOptions {
  Index count = N == 0 ? 1 : N;
  A each = {};
};

/// Copies of A one after another, each with weights of its own: N of them, or, for N = 0, as many as the option `count`
/// says. Facts of a run-time count hold for any count. Parts are named 0, 1, 2, ...
/// Errors: count < 1 or different from N; A changes the width.
template <class A, Index N = 0>
struct Repeat {
  static_assert(N >= 0, "coyote: Repeat<A, N> has at least one copy; Repeat<A> takes its count from the options");
  static_assert(detail::require_mixer<A>());
  using Parts = Types<A>;
  using Options = RepeatOptions<typename A::Options, N>;
  static constexpr bool is_causal = A::is_causal, is_input_dependent = A::is_input_dependent,
                        state_is_bounded = A::state_is_bounded;
  static constexpr Degree degree = [] {
    if (N == 0) return A::degree.value <= 1 ? A::degree : infinite_degree;
    Degree d = 1;
    for (Index i = 0; i < N; ++i) d = d * A::degree;
    return d;
  }();
  static constexpr Index output_width(Index width) { return A::output_width(width); }
  static constexpr Cost cost(Dimensions dims, const Options& options, Index pairs) {
    return options.count * A::cost(dims, options.each, pairs);
  }
};

template <class A, Index N, class Backend, class S>
class Layer<Repeat<A, N>, Backend, S> {
  using Inner = Layer<A, Backend, S>;

 public:
  struct Saved {
    List<Tensor<Backend, S>> between;
    List<typename Inner::Saved> each;
  };
  struct State {
    List<typename Inner::State> each;
    constexpr StateSize size() const {
      StateSize total;
      for (const auto& state : each) total = total + state.size();
      return total;
    }
  };

  constexpr Layer(Dimensions dims, const typename Repeat<A, N>::Options& options, Path path) : width_(dims.width) {
    if (options.count < 1 || (N > 0 && options.count != N)) {
      throw Error(std::string(path.view()),
                  N > 0 ? words("the ", N, " copies of its type") : words("at least one copy to repeat"), words(options.count));
    }
    for (Index i = 0; i < options.count; ++i) {
      if (layers_.emplace(dims, options.each, path / i).output_width() != dims.width) {
        throw Error(std::string(path.view()), words("a mixer that keeps the width ", dims.width, " to repeat"),
                    words(layers_[0].output_width()));
      }
    }
  }

  template <class V>
  constexpr void visit(V& v) {
    for (Inner& layer : layers_) layer.visit(v);
  }
  constexpr Index output_width() const { return width_; }
  constexpr Index count() const { return layers_.size(); }
  constexpr const Inner& layer(Index i) const { return layers_[i]; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    if (!context.training()) return run_through(context, batch, u, y);
    saved.between.ensure(count() - 1);
    saved.each.ensure(count());
    for (Index i = 0; i + 1 < count(); ++i) saved.between[i] = context.template make<S>(u.rows, width_);
    for (Index i = 0; i < count(); ++i) {
      const Rows<const S> in = i == 0 ? u : Rows<const S>(saved.between[i - 1]);
      const Rows<S> out = i + 1 == count() ? y : Rows<S>(saved.between[i]);
      layers_[i].forward(context, batch, in, out, saved.each[i]);
    }
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> turns[2] = {};  // gradients travel back through two buffers in turn
    if (count() > 1) turns[0] = context.template make<S>(dy.rows, width_);
    if (count() > 2) turns[1] = context.template make<S>(dy.rows, width_);
    for (Index i = count() - 1; i >= 0; --i) {
      const Rows<const S> in = i + 1 == count() ? dy : Rows<const S>(turns[i % 2]);
      if (i == 0) {
        layers_[i].backward(context, batch, in, du, write, saved.each[i]);
      } else {
        layers_[i].backward(context, batch, in, turns[(i - 1) % 2], Write::overwrite, saved.each[i]);
      }
    }
  }
  constexpr State make_state(StateBounds bounds) const {
    State state;
    for (const Inner& layer : layers_) state.each.emplace(layer.make_state(bounds));
    return state;
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    const auto frame = context.frame();
    Tensor<Backend, S> turns[2] = {};
    if (count() > 1) turns[0] = context.template make<S>(u.rows, width_);
    if (count() > 2) turns[1] = context.template make<S>(u.rows, width_);
    for (Index i = 0; i < count(); ++i) {
      const Rows<const S> in = i == 0 ? u : Rows<const S>(turns[(i - 1) % 2]);
      layers_[i].step(context, state.each[i], at, in, i + 1 == count() ? y : Rows<S>(turns[i % 2]));
    }
  }

 private:
  /// Forward when nobody comes back for what is between the copies: two buffers in turn, whatever the count.
  constexpr void run_through(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y) const {
    const auto frame = context.frame();
    Tensor<Backend, S> turns[2] = {};
    if (count() > 1) turns[0] = context.template make<S>(u.rows, width_);
    if (count() > 2) turns[1] = context.template make<S>(u.rows, width_);
    for (Index i = 0; i < count(); ++i) {
      const auto inner = context.frame();
      typename Inner::Saved saved;
      const Rows<const S> in = i == 0 ? u : Rows<const S>(turns[(i - 1) % 2]);
      layers_[i].forward(context, batch, in, i + 1 == count() ? y : Rows<S>(turns[i % 2]), saved);
    }
  }

  Index width_;
  List<Inner> layers_;
};

}  // namespace coyote::inline v0

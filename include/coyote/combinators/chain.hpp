// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tuple>

#include "coyote/combinators/outputs.hpp"
#include "coyote/core/mixer.hpp"
#include "coyote/operations/rowwise.hpp"
#include "coyote/operations/skip.hpp"

namespace coyote::inline v0 {

/// The options of each part, in order.
template <class... Options>
struct ChainOptions {
  std::tuple<Options...> parts = {};
};

/// First A, then B, and so on: y = ... C(B(A(u))). Saves the rows between its parts. Parts are named 0, 1, 2, ...
template <class... Ms>
struct Chain {
  static_assert(sizeof...(Ms) > 0, "coyote: a Chain has at least one part");
  static_assert((detail::require_mixer<Ms>() && ...));
  using Parts = Types<Ms...>;
  using Options = ChainOptions<typename Ms::Options...>;
  static constexpr bool is_causal = (Ms::is_causal && ...);
  static constexpr bool is_input_dependent = (Ms::is_input_dependent || ...);
  static constexpr bool state_is_bounded = (Ms::state_is_bounded && ...);
  static constexpr Degree degree = (Degree(1) * ... * Ms::degree);

  static constexpr Index output_width(Index width) {
    ((width = Ms::output_width(width)), ...);
    return width;
  }
  static constexpr Cost cost(Dimensions dims, const Options& options, Index pairs) {
    Cost total;
    std::apply(
        [&](const auto&... part) { ((total += Ms::cost(dims, part, pairs), dims.width = Ms::output_width(dims.width)), ...); },
        options.parts);
    return total;
  }
};

namespace detail {

/// The layers of a chain from part `At` on.
template <class Backend, class S, Index At, class M, class... Rest>
class Links {
  using P = parameter_t<S>;
  using First = Layer<M, Backend, S>;
  using Next = Links<Backend, S, At + 1, Rest...>;

 public:
  struct Saved {
    OutputOf<First, Backend, S> between;
    typename First::Saved first;
    typename Next::Saved next;
  };
  struct State {
    typename First::State first;
    typename Next::State next;
    constexpr StateSize size() const { return first.size() + next.size(); }
  };

  template <class Options>
  constexpr Links(Dimensions dims, const Options& options, const Path& path)
      : first_(dims, std::get<At>(options.parts), path / At), next_({first_.output_width(), dims.length}, options, path) {}

  template <class V>
  constexpr void visit(V& v) {
    first_.visit(v);
    next_.visit(v);
  }
  constexpr Index output_width() const { return next_.output_width(); }
  template <Index I>
  constexpr const auto& part() const {
    if constexpr (I == 0) {
      return first_;
    } else {
      return next_.template part<I - 1>();
    }
  }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    forward(context, batch, u, y, saved, {});
  }
  /// The last part adds `skip` to its output, unless it is absent.
  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved,
                         Rows<const S> skip) const {
    if (context.training()) {
      run(context, batch, u, y, saved, skip);
    } else {
      const auto frame = context.frame();  // nobody comes back for what is between the parts
      run(context, batch, u, y, saved, skip);
    }
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    auto between = output_gradient<First, Backend, S>(first_, context, dy.rows, du);
    next_.backward(context, batch, dy, between, Write::overwrite, saved.next);
    input_gradient<First, Backend, S>(first_, context, batch, between, du, write, saved.first);
  }
  constexpr State make_state(StateBounds bounds) const { return {first_.make_state(bounds), next_.make_state(bounds)}; }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y,
                      Rows<const S> skip = {}) const {
    const auto frame = context.frame();
    const auto between = step_output<First, Backend, S>(first_, context, state.first, at, u);
    if (skip.rows == 0) {
      next_.step(context, state.next, at, between, y);
    } else {
      detail::step_onto<Next, Context<Backend>, S>(next_, context, state.next, at, between, y, skip);
    }
  }
  /// The first part normalises its input.
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip,
                      const NormRule<P>& norm) const requires requires(const First& first, typename First::State& own) {
    first.step(context, own, at, u, y, skip, norm);
  }
  {
    const auto frame = context.frame();
    Tensor<Backend, S> between = context.template make<S>(u.rows, first_.output_width());
    first_.step(context, state.first, at, u, between, {}, norm);
    detail::step_onto<Next, Context<Backend>, S>(next_, context, state.next, at, between, y, skip);
  }

 private:
  constexpr void run(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved,
                     Rows<const S> skip) const {
    saved.between = output<First, Backend, S>(first_, context, batch, u, saved.first);
    if (skip.rows == 0) {
      next_.forward(context, batch, saved.between, y, saved.next);
    } else {
      detail::forward_onto<Next, Context<Backend>, S>(next_, context, batch, saved.between, y, saved.next, skip);
    }
  }

  First first_;
  Next next_;
};

/// The last part.
template <class Backend, class S, Index At, class M>
class Links<Backend, S, At, M> : public Layer<M, Backend, S> {
  using Base = Layer<M, Backend, S>;

 public:
  using Saved = typename Base::Saved;
  using State = typename Base::State;
  template <class Options>
  constexpr Links(Dimensions dims, const Options& options, const Path& path)
      : Base(dims, std::get<At>(options.parts), path / At) {}
  template <Index I>
  constexpr const Base& part() const {
    static_assert(I == 0, "coyote: this Chain has fewer parts");
    return *this;
  }
};

}  // namespace detail

template <class... Ms, class Backend, class S>
class Layer<Chain<Ms...>, Backend, S> : public detail::Links<Backend, S, 0, Ms...> {
 public:
  constexpr Layer(Dimensions dims, const typename Chain<Ms...>::Options& options, Path path)
      : detail::Links<Backend, S, 0, Ms...>(dims, options, path) {
    require_dimensions(path, dims);
  }
};

}  // namespace coyote::inline v0

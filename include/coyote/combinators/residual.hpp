// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/rowwise.hpp"
#include "coyote/operations/skip.hpp"

namespace coyote::inline v0 {

/// y = A(u) + u. Saves what A saves. Cost: B*L*D additions beyond A. Errors: A changes the width.
template <class A>
struct Residual {
  static_assert(detail::require_mixer<A>());
  using Parts = Types<A>;
  using Options = typename A::Options;
  static constexpr bool is_causal = A::is_causal, is_input_dependent = A::is_input_dependent,
                        state_is_bounded = A::state_is_bounded;
  static constexpr Degree degree = max(A::degree, 1);
  static constexpr Index output_width(Index width) { return A::output_width(width); }
  static constexpr Cost cost(Dimensions dims, const Options& options, Index pairs) {
    return A::cost(dims, options, pairs) + Cost{.additions = dims.length * dims.width};
  }
};

template <class A, class Backend, class S>
class Layer<Residual<A>, Backend, S> {
  using Inner = Layer<A, Backend, S>;

 public:
  using Saved = typename Inner::Saved;
  using State = typename Inner::State;

  constexpr Layer(Dimensions dims, const typename A::Options& options, Path path) : Layer(dims, options, path, path / "inner") {}
  /// With the inner mixer named otherwise.
  constexpr Layer(Dimensions dims, const typename A::Options& options, Path path, Path inner) : inner_(dims, options, inner) {
    if (inner_.output_width() != dims.width) {
      throw Error(std::string(path.view()), words("a mixer that keeps the width ", dims.width, " inside a residual"),
                  words(inner_.output_width()));
    }
  }

  template <class V>
  constexpr void visit(V& v) {
    inner_.visit(v);
  }
  constexpr Index output_width() const { return inner_.output_width(); }
  constexpr const Inner& inner() const { return inner_; }

  /// `skip`, if it is there, is added to the output: a residual around this one.
  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved,
                         Rows<const S> skip = {}) const {
    if (skip.rows == 0) return detail::forward_onto<Inner, Context<Backend>, S>(inner_, context, batch, u, y, saved, u);
    inner_.forward(context, batch, u, y, saved);
    accumulate<S>(context, u, skip, y);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    inner_.backward(context, batch, dy, du, write, saved);
    assign<S>(context, dy, du, write == Write::none ? write : Write::add);
  }
  constexpr State make_state(StateBounds bounds) const { return inner_.make_state(bounds); }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    detail::step_onto<Inner, Context<Backend>, S>(inner_, context, state, at, u, y, u);
  }

 private:
  Inner inner_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/filters/filter.hpp"
#include "coyote/operations/shared_channels.hpp"

namespace coyote::inline v0 {

/// Heads of `Share` neighbouring channels with the same taps: taps[t, c] = F's taps[t, c / Share], F for D / Share channels.
/// Parameters: F's, named as F names them. State: Share times F's. Cost of making taps: F's. Errors: a width that Share does
/// not divide.
template <Index Share, class F>
struct SharedFilter {
  static_assert(Filter<F>, "coyote: the second argument of SharedFilter is a filter (filters/filter.hpp says what one has)");
  static_assert(Share >= 1, "coyote: a SharedFilter shares taps between at least one channel");
  using Options = typename F::Options;
  static constexpr bool state_is_bounded = F::state_is_bounded;
  static constexpr Index state_scalars(Index channels, Index length, const Options& options) {
    return Share * F::state_scalars(channels / Share, length, options);
  }
  static constexpr Cost cost(Index channels, Index length, const Options& options) {
    return F::cost(channels / Share, length, options);
  }
  static constexpr Cost recurrence(Index channels, Index length, const Options& options) requires detail::Recurs<F> {
    return Share * F::recurrence(channels / Share, length, options);
  }
};

namespace detail {

/// SharedFilter without decoding.
template <Index Share, class F, class Backend, class S>
class SharedTaps {
  using P = parameter_t<S>;

 protected:
  using Inner = Taps<F, Backend, S>;

 public:
  struct Saved {
    Tensor<Backend, P> taps;
    typename Inner::Saved inner;
  };

  constexpr SharedTaps(Index channels, Index length, const typename F::Options& options, Path path)
      : inner_(channels / Share, length, options, path) {
    if (channels % Share != 0) {
      throw Error(std::string(path.view()), words("a width that ", Share, " divides"), words(channels));
    }
  }

  template <class V>
  constexpr void visit(V& v) {
    inner_.visit(v);
  }

  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved& saved) const {
    saved.taps = context.template make<P>(taps.rows, taps.width / Share);
    const Rows<P> made = saved.taps;
    generate_taps(inner_, context, made, saved.inner);
    repeat_channels<P>(context, Share, made, taps);
  }
  constexpr void backward(Context<Backend>& context, Rows<const P> dtaps, Saved& saved) const {
    const auto frame = context.frame();
    auto sums_ = context.template make<P>(dtaps.rows, dtaps.width / Share);
    const Rows<P> sums = sums_;
    sum_channels<P>(context, Share, dtaps, sums);
    backward_taps(inner_, context, sums, saved.inner);
  }

 protected:
  Inner inner_;
};

}  // namespace detail

template <Index Share, class F, class Backend, class S>
requires detail::HasTaps<F, Backend, S>
class Taps<SharedFilter<Share, F>, Backend, S> : public detail::SharedTaps<Share, F, Backend, S> {
 public:
  using detail::SharedTaps<Share, F, Backend, S>::SharedTaps;
};

/// The inner filter sees the channels of a head as sequences side by side.
template <Index Share, class F, class Backend, class S>
requires(detail::HasTaps<F, Backend, S>&& detail::StepsTaps<Taps<F, Backend, S>>) class Taps<SharedFilter<Share, F>, Backend, S>
    : public detail::SharedTaps<Share, F, Backend, S> {
  using Base = detail::SharedTaps<Share, F, Backend, S>;

 public:
  using Base::Base;
  struct State {
    typename Base::Inner::State inner;
    constexpr StateSize size() const { return {Share * inner.size().scalars, Share * inner.size().integers}; }
  };

  constexpr State make_state(StateBounds bounds) const {
    return {this->inner_.make_state({bounds.sequences * Share, bounds.capacity})};
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    const auto frame = context.frame();
    auto in_ = context.template make<S>(u.rows * Share, u.width / Share);
    auto out_ = context.template make<S>(u.rows * Share, u.width / Share);
    const Rows<S> in = in_, out = out_;
    split_channels<S>(context, Share, u, in);
    this->inner_.step(context, state.inner, at, in, out);
    join_channels<S>(context, Share, out, y);
  }
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/filters/filter.hpp"
#include "coyote/operations/decoding.hpp"

namespace coyote::inline v0 {

/// The options of a filter and of the skip around it.
template <class Filter>
struct SkipOptions {
  Filter filter = {};
  Init skip = Init::normal(1);
};

/// h * z + skip z as one filter: F's taps with skip[c] added to tap 0.
/// Parameters: F's, and skip [1, D], N(0, 1). State: F's. Cost: F's, and D multiplications and additions a row (textbook; one
/// addition a channel where taps are made). (A skip of weight 1 that does not train is Sum<LongConv<F>, Identity>.)
template <class F>
struct WithSkip {
  static_assert(Filter<F>, "coyote: the argument of WithSkip is a filter (filters/filter.hpp says what one has)");
  using Options = SkipOptions<typename F::Options>;
  static constexpr bool state_is_bounded = F::state_is_bounded;
  static constexpr Index state_scalars(Index channels, Index length, const Options& options) {
    return F::state_scalars(channels, length, options.filter);
  }
  static constexpr Cost cost(Index channels, Index length, const Options& options) {
    Cost cost = F::cost(channels, length, options.filter) + Cost{.parameters = channels};
    if constexpr (!detail::Recurs<F>) cost += products(channels, length);
    return cost;
  }
  static constexpr Cost recurrence(Index channels, Index length, const Options& options) requires detail::Recurs<F> {
    return F::recurrence(channels, length, options.filter) + products(channels, length);
  }

 private:
  static constexpr Cost products(Index channels, Index length) {
    return {.multiplications = channels * length, .additions = channels * length};
  }
};

namespace detail {

/// WithSkip without decoding.
template <class F, class Backend, class S>
class SkipTaps {
  using P = parameter_t<S>;

 public:
  using Inner = Taps<F, Backend, S>;
  struct Saved {
    typename Inner::Saved inner;
  };

  constexpr SkipTaps(Index channels, Index length, const typename WithSkip<F>::Options& options, Path path)
      : path_(path), inner_(channels, length, options.filter, path), skip_(1, channels, options.skip) {}

  template <class V>
  constexpr void visit(V& v) {
    inner_.visit(v);
    visit_parameter(v, path_ / "skip", skip_);
  }

  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved& saved) const {
    generate_taps(inner_, context, taps, saved.inner);
    assign<P>(context, skip_.view(), taps.slice(0, 1), Write::add);
  }
  constexpr void backward(Context<Backend>& context, Rows<const P> dtaps, Saved& saved) const {
    if (skip_.trains()) assign<P>(context, dtaps.slice(0, 1), skip_.gradient, Write::add);
    backward_taps(inner_, context, dtaps, saved.inner);
  }
  constexpr void step_more(Context<Backend>& context, Rows<const S> u, Rows<S> y) const {
    add_scaled<S>(context, skip_.view(), u, y);
  }

 protected:
  Path path_;
  Inner inner_;
  Parameter<P> skip_;
};

}  // namespace detail

template <class F, class Backend, class S>
requires detail::HasTaps<F, Backend, S>
class Taps<WithSkip<F>, Backend, S> : public detail::AroundTaps<detail::SkipTaps<F, Backend, S>, Backend, S> {
 public:
  using detail::AroundTaps<detail::SkipTaps<F, Backend, S>, Backend, S>::AroundTaps;
};

}  // namespace coyote::inline v0

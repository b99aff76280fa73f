// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/sum.hpp"
#include "coyote/mixers/identity.hpp"
#include "coyote/mixers/long_conv.hpp"

namespace coyote::inline v0::internal {

/// h * z + z as one filter: F's taps with 1 added to tap 0. A filter like any other, of F's parameters, state and cost.
template <class F>
struct WithInput : F {};

/// Sum<LongConv<F>, Identity> as one convolution.
template <class F, class Ends, class Bias>
struct ConvolutionWithInput : Sum<LongConv<F, Ends, Bias>, Identity> {};

/// The maker of WithInput<F>'s taps without decoding.
template <class F, class Backend, class S>
class InputTaps {
  using P = parameter_t<S>;

 public:
  using Inner = Taps<F, Backend, S>;
  using Saved = typename Inner::Saved;

  constexpr InputTaps(Index channels, Index length, const typename F::Options& options, Path path)
      : inner_(channels, length, options, path) {}

  template <class V>
  constexpr void visit(V& v) {
    inner_.visit(v);
  }
  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved& saved) const {
    detail::generate_taps(inner_, context, taps, saved);
    add_number<P>(context, static_cast<P>(1), taps.slice(0, 1));
  }
  constexpr void backward(Context<Backend>& context, Rows<const P> dtaps, Saved& saved) const {
    detail::backward_taps(inner_, context, dtaps, saved);
  }
  constexpr void step_more(Context<Backend>& context, Rows<const S> u, Rows<S> y) const { assign<S>(context, u, y, Write::add); }

 protected:
  Inner inner_;
};

}  // namespace coyote::inline v0::internal

namespace coyote::inline v0 {

template <class F, class Backend, class S>
requires detail::HasTaps<F, Backend, S>
class Taps<internal::WithInput<F>, Backend, S> : public detail::AroundTaps<internal::InputTaps<F, Backend, S>, Backend, S> {
 public:
  using detail::AroundTaps<internal::InputTaps<F, Backend, S>, Backend, S>::AroundTaps;
};

template <class F, class Ends, class Bias, class Backend, class S>
class Layer<internal::ConvolutionWithInput<F, Ends, Bias>, Backend, S>
    : public Layer<LongConv<internal::WithInput<F>, Ends, Bias>, Backend, S> {
 public:
  constexpr Layer(Dimensions dims, const typename internal::ConvolutionWithInput<F, Ends, Bias>::Options& options, Path path)
      : Layer<LongConv<internal::WithInput<F>, Ends, Bias>, Backend, S>(dims, {options.left.filter}, path / "left") {}
};

}  // namespace coyote::inline v0

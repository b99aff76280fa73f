// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"

namespace coyote::inline v0 {

/// A type that says where a long convolution's taps come from. Like a mixer it holds no data; its members are
///
///     struct Options { ... };
///     static constexpr bool state_is_bounded;            // it decodes by a recurrence of fixed size
///     static constexpr Index state_scalars(Index channels, Index length, const Options&);
///     static constexpr Cost cost(Index channels, Index length, const Options&);   // of making the taps
///
/// and its maker, Taps<Filter, Backend, Scalar>, is what the filter's owner specialises.
template <class F>
concept Filter = std::is_empty_v<F> && requires(Index n, const typename F::Options& options) {
  { F::state_is_bounded } -> std::convertible_to<bool>;
  { F::state_scalars(n, n, options) } -> std::convertible_to<Index>;
  { F::cost(n, n, options) } -> std::convertible_to<Cost>;
};

/// The maker of a filter's taps, with its parameters:
///
///     Taps(Index channels, Index length, const Options&, Path);
///     struct Saved;
///     void visit(V&);
///     void generate(Context&, Rows<P> taps, Saved&) const;             // writes taps 0 .. taps.rows - 1, [n, channels]
///     void backward(Context&, Rows<const P> dtaps, Saved&) const;      // adds to its parameters' gradients
///     Rows<const P> stored() const;                                    // optional: the taps are the parameter itself,
///     Rows<P> stored_gradient() const;                                 //   then generate and backward are not needed
///     struct State;                                                    // optional: decoding by a recurrence
///     State make_state(StateBounds) const;
///     void step(Context&, State&, const Step&, Rows<const S> u, Rows<S> y) const;
template <class F, class Backend, class S>
class Taps;

namespace detail {
template <class T>
concept StoresTaps = requires(const T& taps) {
  taps.stored();
};
template <class T>
concept StepsTaps = requires {
  typename T::State;
};
}  // namespace detail

}  // namespace coyote::inline v0

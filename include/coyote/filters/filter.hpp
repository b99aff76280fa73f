// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/core/storage.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// A type that says where a long convolution's taps come from. Like a mixer it holds no data; its members are
///
///     struct Options { ... };
///     static constexpr bool state_is_bounded;            // it decodes by a recurrence of fixed size
///     static constexpr Index state_scalars(Index channels, Index length, const Options&);
///     static constexpr Cost cost(Index channels, Index length, const Options&);   // of making the taps
///     static constexpr Cost recurrence(Index channels, Index length, const Options&);
///         // optional: multiplications and additions by its recurrence over one sequence, which then count instead of those
///         // of the products of all taps with all rows; `cost` is that of what happens once a pass
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

/// The decoding state of a recurrence: as many rows of numbers for every sequence.
template <class Backend, class P>
struct RecurrenceState {
  Storage<Backend, P> rows;
  Index sequences = 1;
  constexpr StateSize size() const { return {.scalars = rows.size() / sequences}; }
};

namespace detail {
template <class T>
concept StoresTaps = requires(const T& taps) {
  taps.stored();
};
template <class T>
concept StepsTaps = requires {
  typename T::State;
};
/// The filter counts by a recurrence.
template <class F>
concept Recurs = requires(Index n, const typename F::Options& options) {
  { F::recurrence(n, n, options) } -> std::convertible_to<Cost>;
};
/// The filter has a maker on this backend and scalar.
template <class F, class B, class S>
concept HasTaps = requires {
  sizeof(Taps<F, B, S>);
};

/// Writes the first taps.rows taps of a filter inside another one, whether it makes or stores them.
template <class T, class C, class P>
constexpr void generate_taps(const T& maker, C& context, Rows<P> taps, typename T::Saved& saved) {
  if constexpr (StoresTaps<T>) {
    copy<P>(context, maker.stored().slice(0, taps.rows), taps);
  } else {
    maker.generate(context, taps, saved);
  }
}
/// Its adjoint: adds to the gradients of the inner filter's parameters.
template <class T, class C, class P>
constexpr void backward_taps(const T& maker, C& context, Rows<P> dtaps, typename T::Saved& saved) {
  if constexpr (StoresTaps<T>) {
    const auto gradient = maker.stored_gradient();
    if (gradient.data == nullptr) return;
    assign<std::remove_const_t<P>>(context, dtaps, gradient.slice(0, dtaps.rows), Write::add);
  } else {
    maker.backward(context, dtaps, saved);
  }
}

/// Base, the maker of a filter around another one's, whose maker is Base::Inner inner_; it decodes where that does, by its step
/// and what Base::step_more(context, u, y) adds.
template <class Base, class Backend, class S>
class AroundTaps : public Base {
 public:
  using Base::Base;
};
template <class Base, class Backend, class S>
requires StepsTaps<typename Base::Inner>
class AroundTaps<Base, Backend, S> : public Base {
 public:
  using Base::Base;
  using State = typename Base::Inner::State;

  constexpr State make_state(StateBounds bounds) const { return this->inner_.make_state(bounds); }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    this->inner_.step(context, state, at, u, y);
    this->step_more(context, u, y);
  }
};
}  // namespace detail

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/filters/filter.hpp"
#include "coyote/operations/decoding.hpp"

namespace coyote::inline v0 {

/// taps[t, c] = 1: the sum of all rows so far. What linear attention without decay carries. Over any ring.
/// No parameters. Decoding: x <- x + u, y = x; state D scalars; cost D additions a row.
struct SumFilter {
  struct Options {};
  static constexpr bool state_is_bounded = true;
  static constexpr Index state_scalars(Index channels, Index, const Options&) { return channels; }
  static constexpr Cost cost(Index, Index, const Options&) { return {}; }
  static constexpr Cost recurrence(Index channels, Index length, const Options&) { return {.additions = channels * length}; }
};

template <class Backend, class S>
class Taps<SumFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;
  using State = RecurrenceState<Backend, P>;

  constexpr Taps(Index channels, Index, const SumFilter::Options&, Path) : channels_(channels) {}

  template <class V>
  constexpr void visit(V&) {}

  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved&) const { set_all<P>(context, static_cast<P>(1), taps); }
  constexpr void backward(Context<Backend>&, Rows<const P>, Saved&) const {}

  constexpr State make_state(StateBounds bounds) const { return {{bounds.sequences, channels_}, bounds.sequences}; }
  constexpr void step(Context<Backend>& context, State& state, const Step&, Rows<const S> u, Rows<S> y) const {
    sum_step<S>(context, u, state.rows, y);
  }

 private:
  Index channels_;
};

}  // namespace coyote::inline v0

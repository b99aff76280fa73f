// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/storage.hpp"
#include "coyote/filters/filter.hpp"
#include "coyote/operations/modes.hpp"

namespace coyote::inline v0 {

/// taps[t, c] = gain[c] * decay[c]^t: an exponential moving sum per channel. Over any ring.
/// Parameters: gain [1, D], 1; decay [1, D], by default with memories of 2 to 256 rows, spread evenly on a logarithmic scale
/// over the channels. Decoding: x <- decay * x + u, y = gain * x; state D scalars; cost 2*D multiplications and D additions a
/// row. Stable for |decay| <= 1, which training does not enforce.
struct DecayFilter {
  struct Options {
    Init gain = Init::constant(1);
    Init decay = Init::from(
        [](Index, Index c, Index, Index channels, const double (&memory)[4], const Stream&) {
          const double place = channels > 1 ? static_cast<double>(c) / static_cast<double>(channels - 1) : 0.0;
          return 1 - 1 / (memory[0] * std::pow(memory[1] / memory[0], place));
        },
        2, 256);
  };
  static constexpr bool state_is_bounded = true;
  static constexpr Index state_scalars(Index channels, Index, const Options&) { return channels; }
  static constexpr Cost cost(Index channels, Index, const Options&) { return {.parameters = 2 * channels}; }
  static constexpr Cost recurrence(Index channels, Index length, const Options&) {
    return {.multiplications = 2 * channels * length, .additions = channels * length};
  }
};

template <class Backend, class S>
class Taps<DecayFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;
  using State = RecurrenceState<Backend, P>;

  constexpr Taps(Index channels, Index, const DecayFilter::Options& options, Path path)
      : path_(path), gain_(1, channels, options.gain), decay_(1, channels, options.decay, false) {}

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "gain", gain_);
    visit_parameter(v, path_ / "decay", decay_);
  }

  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved&) const {
    exponential_taps<P>(context, decay_.view(), gain_.view(), taps);
  }
  constexpr void backward(Context<Backend>& context, Rows<const P> dtaps, Saved&) const {
    if (!gain_.trains()) return;
    const auto frame = context.frame();
    auto value = context.template make<P>(1, dtaps.width);
    auto slope = context.template make<P>(1, dtaps.width);
    exponential_taps_backward<P>(context, decay_.view(), dtaps, value, slope);
    assign<P>(context, value, gain_.gradient, Write::add);
    multiply<P>(context, gain_.view(), slope, decay_.gradient, Write::add);
  }

  constexpr State make_state(StateBounds bounds) const { return {{bounds.sequences, gain_.columns}, bounds.sequences}; }
  constexpr void step(Context<Backend>& context, State& state, const Step&, Rows<const S> u, Rows<S> y) const {
    modes_step<S>(context, decay_.view(), {}, gain_.view(), state.rows, u, y);
  }

 private:
  Path path_;
  Parameter<P> gain_, decay_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/filters/filter.hpp"

namespace coyote::inline v0 {

/// The taps are the parameters: taps[t, d] for every lag t < length. Over any ring.
/// Parameters: length * channels, N(0, 1) unless said otherwise. State: the inputs so far. Source: Zoology, Def. 4.1.
struct FreeFilter {
  struct Options {
    Init taps = Init::normal(1);
  };
  static constexpr bool state_is_bounded = false;
  static constexpr Index state_scalars(Index channels, Index length, const Options&) { return channels * length; }
  static constexpr Cost cost(Index channels, Index length, const Options&) { return {.parameters = channels * length}; }
};

template <class Backend, class S>
class Taps<FreeFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;

  constexpr Taps(Index channels, Index length, const FreeFilter::Options& options, Path path)
      : path_(path), taps_(length, channels, options.taps) {}

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "taps", taps_);
  }
  constexpr Rows<const P> stored() const { return taps_.value; }
  constexpr Rows<P> stored_gradient() const { return taps_.gradient; }

 private:
  Path path_;
  Parameter<P> taps_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// y = u. Saves nothing, costs nothing but the copy. Errors: width mismatch.
struct Identity {
  using Parts = Types<>;
  struct Options {};
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = 1;
  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions, const Options&, Index) { return {}; }
};

template <class Backend, class S>
class Layer<Identity, Backend, S> {
 public:
  using Saved = NothingSaved;
  using State = NoState;

  constexpr Layer(Dimensions dims, const Identity::Options&, Path path) : path_(path), width_(dims.width) {
    require_dimensions(path, dims);
  }

  template <class V>
  constexpr void visit(V&) {}
  constexpr Index output_width() const { return width_; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved&) const {
    require_views(path_, batch.rows(), u, width_, y, width_);
    copy<S>(context, u, y);
  }
  constexpr void backward(Context<Backend>& context, const Batch&, Rows<const S> dy, Rows<S> du, Write write, Saved&) const {
    assign<S>(context, dy, du, write);
  }
  constexpr State make_state(StateBounds) const { return {}; }
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> u, Rows<S> y) const {
    require_views(path_, u.rows, u, width_, y, width_);
    copy<S>(context, u, y);
  }

 private:
  Path path_;
  Index width_;
};

}  // namespace coyote::inline v0

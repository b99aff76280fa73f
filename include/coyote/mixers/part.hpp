// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// Part number I of N equal parts of the channels: y[b,l,c] = u[b,l,I*D/N + c] for c < D/N. How the branches of a combinator
/// take different columns of what a common layer before them made. Costs nothing but the copy. Over any ring.
/// Errors: a width that N does not divide; width mismatch.
template <Index I, Index N>
struct Part {
  static_assert(0 <= I && I < N, "coyote: Part<I, N> is one of the parts 0 .. N - 1");
  using Parts = Types<>;
  struct Options {};
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = 1;
  static constexpr Index output_width(Index width) { return width / N; }
  static constexpr Cost cost(Dimensions, const Options&, Index) { return {}; }
};

template <Index I, Index N, class Backend, class S>
class Layer<Part<I, N>, Backend, S> {
 public:
  using Saved = NothingSaved;
  using State = NoState;

  constexpr Layer(Dimensions dims, const typename Part<I, N>::Options&, Path path)
      : path_(path), width_(dims.width), part_(dims.width / N) {
    require_dimensions(path, dims);
    if (dims.width % N != 0) throw Error(std::string(path.view()), words("a width that ", N, " divides"), words(dims.width));
  }

  template <class V>
  constexpr void visit(V&) {}
  constexpr Index output_width() const { return part_; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved&) const {
    require_views(path_, batch.rows(), u, width_, y, part_);
    copy<S>(context, u.columns(I * part_, part_), y);
  }
  constexpr void backward(Context<Backend>& context, const Batch&, Rows<const S> dy, Rows<S> du, Write write, Saved&) const {
    if (write == Write::none) return;
    if (write == Write::overwrite) {
      clear<S>(context, du.columns(0, I * part_));
      clear<S>(context, du.columns((I + 1) * part_, (N - 1 - I) * part_));
    }
    assign<S>(context, dy, du.columns(I * part_, part_), write);
  }
  constexpr State make_state(StateBounds) const { return {}; }
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> u, Rows<S> y) const {
    require_views(path_, u.rows, u, width_, y, part_);
    copy<S>(context, u.columns(I * part_, part_), y);
  }

 private:
  Path path_;
  Index width_, part_;
};

}  // namespace coyote::inline v0

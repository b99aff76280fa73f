// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/reference/activation.hpp"

namespace coyote::inline v0 {

/// y[b,l,c] = f(u[b,l,c]) for a pointwise function f (operations/activation.hpp says what one has).
/// Saves u. Real scalars. Not a polynomial. Cost: f's for every number. Errors: width mismatch.
template <class Function>
struct Activation {
  using Parts = Types<>;
  struct Options {};
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = infinite_degree;
  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions dims, const Options&, Index) { return dims.length * dims.width * Function::cost; }
};

/// y = u / (1 + exp(-u)). Source: Elfwing et al. (arXiv 1702.03118).
using Silu = Activation<functions::Silu>;
/// y = u / 2 (1 + tanh(sqrt(2 / pi) (u + 0.044715 u^3))): the tanh form, which differs from u Phi(u) by less than 5e-4.
/// Source: Hendrycks, Gimpel (arXiv 1606.08415), section 2.
using Gelu = Activation<functions::Gelu>;
/// y = 1 / (1 + exp(-u))
using Sigmoid = Activation<functions::Sigmoid>;
/// y = max(u, 0); the gradient at 0 is 0.
using Relu = Activation<functions::Relu>;

template <class Function, class Backend, class S>
requires is_real<S>
class Layer<Activation<Function>, Backend, S> {
 public:
  struct Saved {
    Rows<const S> u;
  };
  using State = NoState;

  constexpr Layer(Dimensions dims, const typename Activation<Function>::Options&, Path path) : path_(path), width_(dims.width) {
    require_dimensions(path, dims);
  }

  template <class V>
  constexpr void visit(V&) {}
  constexpr Index output_width() const { return width_; }

  void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, width_, y, width_);
    saved.u = u;
    activate<S, Function>(context, u, y);
  }
  void backward(Context<Backend>& context, const Batch&, Rows<const S> dy, Rows<S> du, Write write, Saved& saved) const {
    activate_backward<S, Function>(context, saved.u, dy, du, write);
  }
  State make_state(StateBounds) const { return {}; }
  void step(Context<Backend>& context, State&, const Step&, Rows<const S> u, Rows<S> y) const {
    require_views(path_, u.rows, u, width_, y, width_);
    activate<S, Function>(context, u, y);
  }

 private:
  Path path_;
  Index width_;
};

}  // namespace coyote::inline v0

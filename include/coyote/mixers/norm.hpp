// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/norm.hpp"

namespace coyote::inline v0 {

/// A norm over each row's channels, for real scalars.
/// layer: y = (u - mean) / sqrt(variance + epsilon) * scale + shift; root_mean_square: y = u / sqrt(mean(u^2) + epsilon) * scale.
/// Saves u and two statistics a row. Not a polynomial. Cost: 3*L*D multiplications, L*(5*D - 1) additions (layer) or L*D, and a
/// few divisions and roots per row. Errors: width mismatch.
/// Parameters: scale 1 and, for layer, shift 0.
template <NormKind Kind>
struct Norm {
  using Parts = Types<>;
  struct Options {
    double epsilon = 1e-5;
  };
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = infinite_degree;
  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions dims, const Options&, Index) {
    const Index n = dims.length, d = dims.width;
    return Kind == NormKind::layer
               ? Cost{.parameters = 2 * d, .multiplications = 3 * n * d, .additions = n * (5 * d - 1), .functions = 4 * n}
               : Cost{.parameters = d, .multiplications = 3 * n * d, .additions = n * d, .functions = 3 * n};
  }
};
/// Ba, Kiros, Hinton, "Layer normalization" (arXiv 1607.06450).
using LayerNorm = Norm<NormKind::layer>;
/// Zhang, Sennrich, "Root mean square layer normalization" (arXiv 1910.07467).
using RmsNorm = Norm<NormKind::root_mean_square>;

template <NormKind Kind, class Backend, class S>
requires is_real<S>
class Layer<Norm<Kind>, Backend, S> {
  using P = parameter_t<S>;

 public:
  struct Saved {
    Rows<const S> u;
    Tensor<Backend, P> statistics;
  };
  using State = NoState;

  constexpr Layer(Dimensions dims, const typename Norm<Kind>::Options& options, Path path)
      : path_(path),
        epsilon_(static_cast<P>(options.epsilon)),
        scale_(1, dims.width, Init::constant(1), false),
        shift_(Kind == NormKind::layer ? 1 : 0, dims.width, Init::constant(0), false) {
    require_dimensions(path, dims);
  }

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "scale", scale_);
    if (Kind == NormKind::layer) visit_parameter(v, path_ / "shift", shift_);
  }
  constexpr Index output_width() const { return scale_.columns; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, scale_.columns, y, scale_.columns);
    saved.u = u;
    if (context.training()) saved.statistics = context.template make<P>(u.rows, 2);
    normalise<S>(context, Kind, epsilon_, u, scale_.view(), shift_.view(), y,
                 context.training() ? Rows<P>(saved.statistics) : Rows<P>());
  }
  /// `skip`, if it is there, is added to the gradient: what a residual around the norm passes by it.
  constexpr void backward(Context<Backend>& context, const Batch&, Rows<const S> dy, Rows<S> du, Write write, Saved& saved,
                          Rows<const S> skip = {}) const {
    normalise_backward<S>(context, Kind, saved.u, scale_.view(), saved.statistics, dy, du, write, scale_.gradient,
                          shift_.gradient, skip);
  }
  /// For what applies this norm to its input itself.
  constexpr NormRule<P> rule() const { return {Kind, epsilon_, scale_.view(), shift_.view()}; }

  constexpr State make_state(StateBounds) const { return {}; }
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> u, Rows<S> y) const {
    require_views(path_, u.rows, u, scale_.columns, y, scale_.columns);
    normalise<S>(context, Kind, epsilon_, u, scale_.view(), shift_.view(), y, {});
  }

 private:
  Path path_;
  P epsilon_;
  Parameter<P> scale_, shift_;
};

}  // namespace coyote::inline v0

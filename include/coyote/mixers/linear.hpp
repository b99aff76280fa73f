// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ratio>

#include "coyote/core/mixer.hpp"
#include "coyote/mixers/bias.hpp"
#include "coyote/operations/decoding.hpp"
#include "coyote/operations/reference/linear.hpp"
#include "coyote/operations/skip.hpp"

namespace coyote::inline v0 {

/// y[b,l,:] = u[b,l,:] W + bias, with W [width, width * Ratio].
/// Saves u. Cost: B*L*in*out multiplications and as many additions (with bias). Errors: width mismatch; a width that the
/// ratio does not divide; with PositionBias, sequences longer than the layer's length.
/// Parameters: weight [in, out], N(0, 0.02^2) unless said otherwise; bias [0, 1 or L, out], 0.
template <class Bias = ChannelBias, class Ratio = std::ratio<1>>
struct LinearWith {
  using Parts = Types<>;
  struct Options {
    Init weight = Init::normal(0.02);
  };
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = 1;

  static constexpr Index output_width(Index width) { return width * Ratio::num / Ratio::den; }
  static constexpr Cost cost(Dimensions dims, const Options&, Index) {
    const Index out = output_width(dims.width), bias = Bias::rows(dims.length);
    return {.parameters = dims.width * out + bias * out,
            .multiplications = dims.length * dims.width * out,
            .additions = dims.length * (dims.width - (bias == 0 ? 1 : 0)) * out};
  }
};

/// The linear map with a bias per channel.
using Linear = LinearWith<>;
/// A linear map to `Factor` times the width, and one back to a `Factor`-th of it.
template <int Factor, class Bias = ChannelBias>
using Widen = LinearWith<Bias, std::ratio<Factor>>;
template <int Factor, class Bias = ChannelBias>
using Narrow = LinearWith<Bias, std::ratio<1, Factor>>;

template <class Bias, class Ratio, class Backend, class S>
class Layer<LinearWith<Bias, Ratio>, Backend, S> {
  using Mixer = LinearWith<Bias, Ratio>;
  using P = parameter_t<S>;

 public:
  struct Saved {
    Rows<const S> u;
  };
  using State = NoState;

  constexpr Layer(Dimensions dims, const typename Mixer::Options& options, Path path)
      : path_(path),
        dims_(dims),
        weight_(dims.width, Mixer::output_width(dims.width), options.weight),
        bias_(Bias::rows(dims.length), weight_.columns, Init::constant(0), false) {
    require_dimensions(path, dims);
    if (dims.width * Ratio::num % Ratio::den != 0) {
      throw Error(std::string(path.view()), words("a width that ", Ratio::den, " divides"), words(dims.width));
    }
  }

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "weight", weight_);
    if (bias_.rows > 0) visit_parameter(v, path_ / "bias", bias_);
  }
  constexpr Index output_width() const { return weight_.columns; }
  constexpr Rows<const P> weight() const { return weight_.view(); }
  constexpr Rows<const P> bias() const { return bias_.view(); }

  /// `skip`, if it is there, is added to the output.
  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved,
                         Rows<const S> skip = {}) const {
    require_views(path_, batch.rows(), u, weight_.rows, y, weight_.columns);
    if (Bias::rows(2) > 1) require_length(path_, batch.length, bias_.rows);
    saved.u = u;
    detail::linear_onto<S, Context<Backend>, P>(context, batch, u, weight_.view(), bias_.view(), y, skip);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    linear_backward<S>(context, batch, saved.u, weight_.view(), dy, du, write, weight_.gradient, bias_.gradient);
  }

  constexpr State make_state(StateBounds) const { return {}; }
  constexpr void step(Context<Backend>& context, State&, const Step& at, Rows<const S> u, Rows<S> y,
                      Rows<const S> skip = {}) const {
    require_views(path_, u.rows, u, weight_.rows, y, weight_.columns);
    const Batch batch{.sequences = u.rows, .length = 1};
    const bool by_position = Bias::rows(2) > 1;
    if (by_position) require_length(path_, at.position + 1, bias_.rows);
    detail::linear_onto<S, Context<Backend>, P>(context, batch, u, weight_.view(), by_position ? Rows<const P>() : bias_.view(),
                                                y, skip);
    if (by_position) bias_step<S>(context, at, bias_.view(), y);
  }
  /// Of the input normalised by a rule.
  constexpr void step(Context<Backend>& context, State&, const Step&, Rows<const S> u, Rows<S> y, Rows<const S> skip,
                      const NormRule<P>& norm) const requires(steps_normalise<Backend, S>&& Bias::rows(2) <= 1) {
    require_views(path_, u.rows, u, weight_.rows, y, weight_.columns);
    linear<S>(context, {.sequences = u.rows, .length = 1}, u, weight_.view(), bias_.view(), y, skip, norm);
  }

 private:
  Path path_;
  Dimensions dims_;
  Parameter<P> weight_, bias_;
};

}  // namespace coyote::inline v0

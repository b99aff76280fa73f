// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/storage.hpp"
#include "coyote/filters/filter.hpp"
#include "coyote/mixers/bias.hpp"
#include "coyote/operations/implicit.hpp"

namespace coyote::inline v0 {

// Policies of ImplicitFilterWith. An activation says its value and its slope at x, whether x is scaled by a trainable
// frequency first, and how large a net is usual with it.

/// max(0, x)
struct Rectifier {
  static constexpr bool has_frequency = false;
  static constexpr Index usual_width = 16, usual_layers = 1;
  template <class P>
  COYOTE_HOST_DEVICE static P value(P x) {
    return x > P{} ? x : P{};
  }
  template <class P>
  COYOTE_HOST_DEVICE static P slope(P x) {
    return x > P{} ? static_cast<P>(1.0) : P{};
  }
};
/// sin(frequency * x), one trainable vector of frequencies for all layers of the net
struct Sine {
  static constexpr bool has_frequency = true;
  static constexpr Index usual_width = 64, usual_layers = 3;
  template <class P>
  COYOTE_HOST_DEVICE static P value(P x) {
    using std::sin;
    return sin(x);
  }
  template <class P>
  COYOTE_HOST_DEVICE static P slope(P x) {
    using std::cos;
    return cos(x);
  }
};

/// The net's output is the tap.
struct NoWindow {
  static constexpr bool is_trivial = true;
};
/// Times exp(-rate_c t / (L-1)), with fixed rates from |ln 0.01| / 1.5 for the first channel to |ln 0.01| / 0.3 for the last.
struct DecayWindow {
  static constexpr bool is_trivial = false;
  static double rate(Index channel, Index channels) {
    const double slowest = std::log(100.0) / 1.5, fastest = std::log(100.0) / 0.3;
    return channels > 1 ? slowest + (fastest - slowest) * static_cast<double>(channel) / static_cast<double>(channels - 1)
                        : slowest;
  }
};

/// Where the features of a position are numbers, or trainable parameters that begin as these.
struct FixedPositions {
  static constexpr bool train = false;
};
struct TrainedPositions {
  static constexpr bool train = true;
};

/// Taps from a small net that sees the lag: taps[t, :] = window(t) * MLP(z_t), for real scalars.
///
///     z_t = (t/(L-1), cos(f_1 w_t), ..., cos(f_b w_t), -sin(f_1 w_t), ..., -sin(f_b w_t)),  w_t = 2 pi t / L
///
/// with b = (features - 1) / 2 frequencies evenly spaced from 1e-4 to b - 1. MLP: `layers` times a linear map to `hidden`
/// units and the activation, then a linear map to the channels. L is the layer's length; a shorter sequence uses the first
/// taps. All weights N(0, 0.02^2) and biases 0.
/// Saves the net's hidden values. Cost, with e features, q + 1 layers of o units: N(e*o + q*o^2 + o*D) multiplications and,
/// with an output bias, additions; N*o*(q+1) multiplications and sines more with Sine; 2*N*D with a window (two
/// factors from tables).
/// State: the convolution's inputs so far. Errors: no hidden units or layers; an even number of features.
template <class Activation = Rectifier, class Window = NoWindow, class Positions = FixedPositions, class OutputBias = ChannelBias>
struct ImplicitFilterWith {
  struct Options {
    Index hidden = Activation::usual_width;
    Index layers = Activation::usual_layers;
    Index features = 3;
    Init weight = Init::normal(0.02);
    Init frequency = Init::constant(1);
  };
  static constexpr bool state_is_bounded = false;
  static constexpr Index state_scalars(Index channels, Index length, const Options&) { return channels * length; }
  static constexpr Cost cost(Index channels, Index length, const Options& options) {
    const Index h = options.hidden, inner = (options.layers - 1) * h * h, e = options.features;
    const Index bias = OutputBias::rows(1), units = h * options.layers, waves = Activation::has_frequency ? units : 0;
    const Index products = e * h + inner + h * channels;
    return {.parameters =
                products + units + bias * channels + (Activation::has_frequency ? h : 0) + (Positions::train ? length * e : 0),
            .multiplications = length * (products + waves + (Window::is_trivial ? 0 : 2 * channels)),
            .additions = length * (products - (1 - bias) * channels),
            .functions = length * waves};
  }
};

/// The implicit long convolution of the public Coyote (BaseConv) code: k_t = W2 relu(W1 z_t + b1) + b2, 16 hidden units, fixed
/// positions.
using ImplicitFilter = ImplicitFilterWith<>;
/// Hyena's filter as published in code: three hidden layers of 64 sines, no output bias, trainable positions, decay window.
/// Its skip is WithSkip<HyenaFilter>. Source: Hyena (arXiv 2302.10866), section 3.3.
using HyenaFilter = ImplicitFilterWith<Sine, DecayWindow, TrainedPositions, NoBias>;

template <class Activation, class Window, class Positions, class OutputBias, class Backend, class S>
requires is_real<S>
class Taps<ImplicitFilterWith<Activation, Window, Positions, OutputBias>, Backend, S> {
  using P = parameter_t<S>;
  using Options = typename ImplicitFilterWith<Activation, Window, Positions, OutputBias>::Options;
  /// A linear map of the net.
  struct Map {
    Parameter<P> weight, bias;
    Map(Index in, Index out, Index biases, const Init& init)
        : weight(in, out, init), bias(biases, out, Init::constant(0), false) {}
  };

 public:
  /// Before and after the activation: all hidden layers side by side.
  struct Saved {
    Tensor<Backend, P> before, after;
  };

  Taps(Index channels, Index length, const Options& options, Path path)
      : path_(path),
        channels_(channels),
        hidden_(options.hidden),
        positions_(length, options.features, Init::from(feature), false),
        frequency_(Activation::has_frequency ? 1 : 0, options.hidden, options.frequency, false) {
    const auto require = [&](bool met, const char* what, Index came) {
      if (!met) throw Error(std::string(path.view()), what, words(came));
    };
    require(options.hidden >= 1, "at least one hidden unit", options.hidden);
    require(options.layers >= 1, "at least one hidden layer", options.layers);
    require(options.features >= 1 && options.features % 2 == 1, "an odd number of features", options.features);
    for (Index l = 0; l < options.layers; ++l) {
      maps_.emplace(l == 0 ? options.features : hidden_, hidden_, Index{1}, options.weight);
    }
    maps_.emplace(hidden_, channels, OutputBias::rows(1), options.weight);
    if constexpr (!Positions::train) {
      Matrix<P> fixed(length, options.features);
      const Stream unused(Seed{}, Purpose::initial_value);
      for (Index t = 0; t < length; ++t) {
        for (Index e = 0; e < options.features; ++e) {
          fixed(t, e) = static_cast<P>(positions_.init.value(t, e, length, options.features, unused));
        }
      }
      fixed_positions_ = to_backend<Backend>(std::move(fixed));
    }
    if constexpr (!Window::is_trivial) tabulate_window(length);
  }

  template <class V>
  void visit(V& v) {
    if constexpr (Positions::train) visit_parameter(v, path_ / "positions", positions_);
    if constexpr (Activation::has_frequency) visit_parameter(v, path_ / "frequency", frequency_);
    for (Index l = 0; l < maps_.size(); ++l) {
      const Path map = l + 1 == maps_.size() ? path_ / "output" : path_ / "hidden" / l;
      visit_parameter(v, map / "weight", maps_[l].weight);
      if (maps_[l].bias.rows > 0) visit_parameter(v, map / "bias", maps_[l].bias);
    }
  }

  void generate(Context<Backend>& context, Rows<P> taps, Saved& saved) const {
    if (context.training()) {
      run(context, taps, saved);
    } else {
      const auto frame = context.frame();  // nobody comes back for the hidden values
      run(context, taps, saved);
    }
  }
  void backward(Context<Backend>& context, Rows<const P> dtaps, Saved& saved) const {
    if (!maps_[0].weight.trains()) return;
    const auto frame = context.frame();
    auto windowed = context.template make<P>(Window::is_trivial ? 0 : dtaps.rows, channels_);
    Rows<const P> dout = dtaps;
    if constexpr (!Window::is_trivial) {
      apply_window<P>(context, coarse_, fine_, dtaps, windowed);
      dout = windowed;
    }
    Rows<P> dpositions;
    if constexpr (Positions::train) dpositions = positions_.gradient.slice(0, dtaps.rows);
    const Rows<P> before = saved.before, after = saved.after;
    implicit_net_backward<P, Activation>(context, net(), features(dtaps.rows), before, after, dout, dpositions);
  }

 private:
  static constexpr Index window_block = 256;

  /// Feature e of position t.
  static double feature(Index t, Index e, Index length, Index features, const double (&)[4], const Stream&) {
    const double place = static_cast<double>(t);
    if (e == 0) return length > 1 ? place / static_cast<double>(length - 1) : 0.0;
    const Index bands = (features - 1) / 2, band = (e - 1) % bands;
    const double lowest = 1e-4, highest = static_cast<double>(bands - 1);
    const double frequency =
        bands > 1 ? lowest + (highest - lowest) * static_cast<double>(band) / static_cast<double>(bands - 1) : lowest;
    const double angle = frequency * 6.28318530717958647693 * place / static_cast<double>(length);
    return e <= bands ? std::cos(angle) : -std::sin(angle);
  }
  Rows<const P> features(Index n) const {
    if constexpr (Positions::train) {
      return positions_.view().slice(0, n);
    } else {
      return fixed_positions_.view().slice(0, n);
    }
  }

  auto net() const {
    const auto map = [this](Index l) {
      const auto& [weight, bias] = maps_[l];
      return bias.rows > 0 ? NetMap<P>{weight.view(), bias.view(), weight.gradient, bias.gradient}
                           : NetMap<P>{weight.view(), {}, weight.gradient, {}};
    };
    return Net<P, decltype(map)>{maps_.size() - 1, hidden_, frequency_.view(), frequency_.gradient, map};
  }

  void run(Context<Backend>& context, Rows<P> taps, Saved& saved) const {
    const Index n = taps.rows, units = (maps_.size() - 1) * hidden_;
    saved.before = context.template make<P>(n, units);
    saved.after = context.template make<P>(n, units);
    const Rows<P> before = saved.before, after = saved.after;
    implicit_net<P, Activation>(context, net(), features(n), before, after, taps);
    if constexpr (!Window::is_trivial) apply_window<P>(context, coarse_, fine_, taps, taps);
  }

  /// exp(-rate (a 256 + b) / (L-1)) is the product of two entries: small tables instead of one of L rows, and no exponential
  /// while training.
  void tabulate_window(Index length) {
    const Index block = window_block < length ? window_block : length;
    Matrix<P> fine(block, channels_), coarse(ceil_div(length, window_block), channels_);
    const double last = length > 1 ? static_cast<double>(length - 1) : 1.0;
    for (Index c = 0; c < channels_; ++c) {
      const double slope = -Window::rate(c, channels_) / last;
      for (Index t = 0; t < fine.rows(); ++t) fine(t, c) = static_cast<P>(std::exp(slope * static_cast<double>(t)));
      for (Index t = 0; t < coarse.rows(); ++t) {
        coarse(t, c) = static_cast<P>(std::exp(slope * static_cast<double>(t * window_block)));
      }
    }
    fine_ = to_backend<Backend>(std::move(fine));
    coarse_ = to_backend<Backend>(std::move(coarse));
  }

  Path path_;
  Index channels_, hidden_;
  Parameter<P> positions_, frequency_;
  List<Map> maps_;
  Storage<Backend, P> fixed_positions_, fine_, coarse_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/storage.hpp"
#include "coyote/filters/filter.hpp"
#include "coyote/operations/complex_modes.hpp"
#include "coyote/operations/modes.hpp"

namespace coyote::inline v0 {

/// A diagonal state space with real modes: taps[t, d] = sum_s output[s, d] * decay[s, d]^t * input[s, d]. Over any ring.
/// Parameters, [modes, D] each: decay, by default with memories of 10 to 1000 rows spread over the modes; input, by default so
/// that every mode's impulse has norm 1; output, N(0, 1/modes). Decoding: x_s <- decay x_s + input u, y = sum_s output x_s;
/// state modes*D scalars; cost 3*modes*D multiplications and (2*modes - 1)*D additions a row. Errors: no modes.
/// Stable for |decay| <= 1, which training does not enforce. Source: H3 (arXiv 2212.14052), with real modes.
struct DiagonalFilter {
  struct Options {
    Index modes = 4;
    Init decay = Init::from(
        [](Index s, Index, Index modes_, Index, const double (&memory)[4], const Stream&) { return ratio(s, modes_, memory); },
        10, 1000);
    Init input = Init::from(
        [](Index s, Index, Index modes_, Index, const double (&memory)[4], const Stream&) {
          const double r = ratio(s, modes_, memory);
          return std::sqrt(1 - r * r);
        },
        10, 1000);
    Init output = Init::from([](Index s, Index c, Index modes_, Index channels, const double (&)[4], const Stream& draws) {
      return draws.normal(static_cast<std::uint64_t>(s * channels + c)) / std::sqrt(static_cast<double>(modes_));
    });

   private:
    static double ratio(Index s, Index count, const double (&memory)[4]) {
      const double place = count > 1 ? static_cast<double>(s) / static_cast<double>(count - 1) : 0.0;
      return std::exp(-1 / (memory[0] * std::pow(memory[1] / memory[0], place)));
    }
  };
  static constexpr bool state_is_bounded = true;
  static constexpr Index state_scalars(Index channels, Index, const Options& options) { return options.modes * channels; }
  static constexpr Cost cost(Index channels, Index, const Options& options) {
    return {.parameters = 3 * options.modes * channels};
  }
  static constexpr Cost recurrence(Index channels, Index length, const Options& options) {
    return {.multiplications = 3 * options.modes * channels * length, .additions = (2 * options.modes - 1) * channels * length};
  }
};

template <class Backend, class S>
class Taps<DiagonalFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;
  /// Row sequence * modes + s: mode s of every channel.
  using State = RecurrenceState<Backend, P>;

  constexpr Taps(Index channels, Index, const DiagonalFilter::Options& options, Path path)
      : path_(path),
        decay_(options.modes, channels, options.decay, false),
        input_(options.modes, channels, options.input),
        output_(options.modes, channels, options.output) {
    if (options.modes < 1) throw Error(std::string(path.view()), "at least one mode", words(options.modes));
  }

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "decay", decay_);
    visit_parameter(v, path_ / "input", input_);
    visit_parameter(v, path_ / "output", output_);
  }

  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved&) const {
    const auto frame = context.frame();
    auto weight = context.template make<P>(decay_.rows, decay_.columns);
    multiply<P>(context, output_.view(), input_.view(), weight, Write::overwrite);
    exponential_taps<P>(context, decay_.view(), weight, taps);
  }
  constexpr void backward(Context<Backend>& context, Rows<const P> dtaps, Saved&) const {
    if (!decay_.trains()) return;
    const auto frame = context.frame();
    auto value = context.template make<P>(decay_.rows, decay_.columns);
    auto slope = context.template make<P>(decay_.rows, decay_.columns);
    exponential_taps_backward<P>(context, decay_.view(), dtaps, value, slope);
    auto weight = context.template make<P>(decay_.rows, decay_.columns);
    multiply<P>(context, output_.view(), input_.view(), weight, Write::overwrite);
    multiply<P>(context, weight, slope, decay_.gradient, Write::add);
    multiply<P>(context, output_.view(), value, input_.gradient, Write::add);
    multiply<P>(context, input_.view(), value, output_.gradient, Write::add);
  }

  constexpr State make_state(StateBounds bounds) const {
    return {{bounds.sequences * decay_.rows, decay_.columns}, bounds.sequences};
  }
  constexpr void step(Context<Backend>& context, State& state, const Step&, Rows<const S> u, Rows<S> y) const {
    modes_step<S>(context, decay_.view(), input_.view(), output_.view(), state.rows, u, y);
  }

 private:
  Path path_;
  Parameter<P> decay_, input_, output_;
};

/// H3's diagonal state space: complex modes A = -exp(log_decay) + i frequency and their conjugates, made discrete with the
/// bilinear rule at a step dt = exp(log_step) of the channel's own, for real scalars:
///
///     taps[t] = 2 Re sum_n output_n input_n dt / (1 - dt A_n / 2) * ((1 + dt A_n / 2) / (1 - dt A_n / 2))^t
///
/// Parameters for M modes (0: half the layer's length, at least one): log_decay [M, D], ln(1/2); frequency [M, D], pi n;
/// input [2M, D], 1 + 0i; output [2M, D], complex N(0, 1); log_step [1, D], dt log-uniform in (0.001, 0.1). A complex parameter
/// has its real part in row 2n, its imaginary part in row 2n + 1. Always stable.
/// Decoding: x_n <- ratio_n x_n + u, y = sum_n Re(weight_n x_n), complex x: state 2*M*D scalars; cost 6*M*D multiplications
/// and (5*M - 1)*D additions a row. Source: H3 (arXiv 2212.14052), S4D (arXiv 2206.11893).
struct ComplexDiagonalFilter {
  struct Options {
    Index modes = 0;
    Init log_decay = Init::constant(-0.69314718055994530942);
    Init frequency = Init::from([](Index n, Index, Index, Index, const double (&)[4], const Stream&) {
      return 3.14159265358979323846 * static_cast<double>(n);
    });
    Init input =
        Init::from([](Index row, Index, Index, Index, const double (&)[4], const Stream&) { return row % 2 == 0 ? 1.0 : 0.0; });
    Init output = Init::normal(0.70710678118654752440);
    Init log_step = Init::from(
        [](Index, Index c, Index, Index, const double (&range)[4], const Stream& draws) {
          return std::log(range[0]) + draws.uniform(static_cast<std::uint64_t>(c)) * std::log(range[1] / range[0]);
        },
        0.001, 0.1);

    constexpr Index modes_for(Index length) const { return modes != 0 ? modes : (length > 1 ? length / 2 : 1); }
  };
  /// The number of modes follows the length, unless told otherwise.
  static constexpr bool state_is_bounded = false;
  static constexpr Index state_scalars(Index channels, Index length, const Options& options) {
    return 2 * options.modes_for(length) * channels;
  }
  static constexpr Cost cost(Index channels, Index length, const Options& options) {
    return {.parameters = (6 * options.modes_for(length) + 1) * channels};
  }
  static constexpr Cost recurrence(Index channels, Index length, const Options& options) {
    const Index modes = options.modes_for(length);
    return {.multiplications = 6 * modes * channels * length, .additions = (5 * modes - 1) * channels * length};
  }
};

template <class Backend, class S>
requires is_real<S>
class Taps<ComplexDiagonalFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;
  /// Rows sequence * 2M + 2n and + 2n + 1: mode n of every channel. `ratio` and `weight` are constants, not counted.
  struct State : RecurrenceState<Backend, P> {
    Storage<Backend, P> ratio, weight;
  };

  Taps(Index channels, Index length, const ComplexDiagonalFilter::Options& options, Path path)
      : path_(path),
        modes_(options.modes_for(length)),
        log_decay_(modes_, channels, options.log_decay, false),
        frequency_(modes_, channels, options.frequency, false),
        input_(2 * modes_, channels, options.input),
        output_(2 * modes_, channels, options.output),
        log_step_(1, channels, options.log_step, false) {
    if (modes_ < 1) throw Error(std::string(path.view()), "at least one mode", words(modes_));
  }

  template <class V>
  void visit(V& v) {
    visit_parameter(v, path_ / "log_decay", log_decay_);
    visit_parameter(v, path_ / "frequency", frequency_);
    visit_parameter(v, path_ / "input", input_);
    visit_parameter(v, path_ / "output", output_);
    visit_parameter(v, path_ / "log_step", log_step_);
  }

  void generate(Context<Backend>& context, Rows<P> taps, Saved&) const {
    const auto frame = context.frame();
    auto ratio = context.template make<P>(2 * modes_, log_step_.columns);
    auto weight = context.template make<P>(2 * modes_, log_step_.columns);
    discretise_modes<P>(context, parameters(), ratio, weight);
    complex_exponential_taps<P>(context, ratio, weight, taps);
  }
  void backward(Context<Backend>& context, Rows<const P> dtaps, Saved&) const {
    if (!log_decay_.trains()) return;
    const auto frame = context.frame();
    const Index channels = log_step_.columns;
    auto ratio = context.template make<P>(2 * modes_, channels);
    auto weight = context.template make<P>(2 * modes_, channels);
    auto value = context.template make<P>(2 * modes_, channels);
    auto slope = context.template make<P>(2 * modes_, channels);
    discretise_modes<P>(context, parameters(), ratio, weight);
    complex_exponential_taps_backward<P>(context, ratio, dtaps, value, slope);
    discretise_modes_backward<P>(
        context, parameters(), weight, value, slope,
        {log_decay_.gradient, frequency_.gradient, input_.gradient, output_.gradient, log_step_.gradient});
  }

  State make_state(StateBounds bounds) const {
    State state{{{bounds.sequences * 2 * modes_, log_step_.columns}, bounds.sequences},
                {2 * modes_, log_step_.columns},
                {2 * modes_, log_step_.columns}};
    Context<Backend> context = make_context<Backend>();
    discretise_modes<P>(context, parameters(), state.ratio.view(), state.weight.view());
    return state;
  }
  void step(Context<Backend>& context, State& state, const Step&, Rows<const S> u, Rows<S> y) const {
    complex_modes_step<S>(context, std::as_const(state.ratio).view(), std::as_const(state.weight).view(), state.rows, u, y);
  }

 private:
  ComplexModes<const P> parameters() const {
    return {log_decay_.view(), frequency_.view(), input_.view(), output_.view(), log_step_.view()};
  }

  Path path_;
  Index modes_;
  Parameter<P> log_decay_, frequency_, input_, output_, log_step_;
};

}  // namespace coyote::inline v0

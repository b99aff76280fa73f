// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/filters/filter.hpp"
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
  using State = RecurrenceState<P>;

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
    for (Index s = 0; s < decay_.rows; ++s) {
      for (Index c = 0; c < decay_.columns; ++c) {
        decay_.gradient(s, c) += output_.value(s, c) * input_.value(s, c) * slope(s, c);
        input_.gradient(s, c) += output_.value(s, c) * value(s, c);
        output_.gradient(s, c) += input_.value(s, c) * value(s, c);
      }
    }
  }

  constexpr State make_state(StateBounds bounds) const {
    return {{bounds.sequences * decay_.rows, decay_.columns}, bounds.sequences};
  }
  constexpr void step(Context<Backend>&, State& state, const Step&, Rows<const S> u, Rows<S> y) const {
    for (Index i = 0; i < u.rows; ++i) {
      for (Index s = 0; s < decay_.rows; ++s) {
        P* x = state.rows.view().row(i * decay_.rows + s);
        for (Index c = 0; c < u.width; ++c) {
          x[c] = decay_.value(s, c) * x[c] + input_.value(s, c) * static_cast<P>(u(i, c));
          const P part = output_.value(s, c) * x[c];
          y(i, c) = s == 0 ? static_cast<S>(part) : static_cast<S>(static_cast<P>(y(i, c)) + part);
        }
      }
    }
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

namespace detail {

/// As much of complex numbers as the bilinear rule needs, for any real scalar; std::complex is meant for the built-in ones.
template <class P>
struct Complex {
  P real{}, imaginary{};
  friend constexpr Complex operator+(Complex a, Complex b) { return {a.real + b.real, a.imaginary + b.imaginary}; }
  friend constexpr Complex operator*(Complex a, Complex b) {
    return {a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real};
  }
  friend constexpr Complex operator*(P a, Complex b) { return {a * b.real, a * b.imaginary}; }
  constexpr Complex reciprocal() const {
    const P norm = real * real + imaginary * imaginary;
    return {real / norm, -imaginary / norm};
  }
};

}  // namespace detail

template <class Backend, class S>
requires is_real<S>
class Taps<ComplexDiagonalFilter, Backend, S> {
  using P = parameter_t<S>;
  using Complex = detail::Complex<P>;

 public:
  using Saved = NothingSaved;
  /// Rows sequence * 2M + 2n and + 2n + 1: mode n of every channel. `ratio` and `weight` are constants, not counted.
  struct State : RecurrenceState<P> {
    Matrix<P> ratio, weight;
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
    discretise(context, ratio, weight);
    complex_exponential_taps<P>(context, ratio, weight, taps);
  }
  /// With q = 1 / (1 - dt A / 2), weight = 2 output input dt q and ratio = 2q - 1; dq/dA = dt q^2 / 2 and dq/ddt = A q^2 / 2.
  void backward(Context<Backend>& context, Rows<const P> dtaps, Saved&) const {
    if (!log_decay_.trains()) return;
    const auto frame = context.frame();
    const Index channels = log_step_.columns;
    auto ratio = context.template make<P>(2 * modes_, channels);
    auto weight = context.template make<P>(2 * modes_, channels);
    auto value = context.template make<P>(2 * modes_, channels);
    auto slope = context.template make<P>(2 * modes_, channels);
    discretise(context, ratio, weight);
    complex_exponential_taps_backward<P>(context, ratio, dtaps, value, slope);
    const P half = static_cast<P>(0.5), two = static_cast<P>(2.0);
    for (Index n = 0; n < modes_; ++n) {
      for (Index c = 0; c < channels; ++c) {
        const auto [a, dt, q] = mode(n, c);
        const Complex input = pair(input_.view(), n, c), output = pair(output_.view(), n, c);
        // The loss changes by Re(by_weight dweight + by_ratio dratio), and so on down to the parameters.
        const Complex by_weight = pair<P>(value, n, c), by_ratio = pair<P>(weight, n, c) * pair<P>(slope, n, c);
        const Complex e = two * dt * q, by_product = by_weight * e, by_e = by_weight * input * output;
        add(output_.gradient, n, c, by_product * input);
        add(input_.gradient, n, c, by_product * output);
        const Complex q2 = q * q, by_q = two * dt * by_e + two * by_ratio;
        const Complex by_a = by_q * (half * dt * q2);
        const Complex by_dt = two * by_e * q + by_q * (half * a * q2);
        log_decay_.gradient(n, c) += by_a.real * a.real;  // dA / dlog_decay = Re A
        frequency_.gradient(n, c) += -by_a.imaginary;
        log_step_.gradient(0, c) += by_dt.real * dt;
      }
    }
  }

  State make_state(StateBounds bounds) const {
    State state{{{bounds.sequences * 2 * modes_, log_step_.columns}, bounds.sequences},
                {2 * modes_, log_step_.columns},
                {2 * modes_, log_step_.columns}};
    Context<Backend> context = make_context<Backend>();
    discretise(context, state.ratio.view(), state.weight.view());
    return state;
  }
  void step(Context<Backend>&, State& state, const Step&, Rows<const S> u, Rows<S> y) const {
    const Rows<const P> ratio = std::as_const(state.ratio).view(), weight = std::as_const(state.weight).view();
    for (Index i = 0; i < u.rows; ++i) {
      for (Index n = 0; n < modes_; ++n) {
        P* real = state.rows.view().row(2 * (i * modes_ + n));
        P* imaginary = state.rows.view().row(2 * (i * modes_ + n) + 1);
        const P *rr = ratio.row(2 * n), *ri = ratio.row(2 * n + 1), *wr = weight.row(2 * n), *wi = weight.row(2 * n + 1);
        for (Index c = 0; c < u.width; ++c) {
          const P next = rr[c] * real[c] - ri[c] * imaginary[c] + static_cast<P>(u(i, c));
          imaginary[c] = rr[c] * imaginary[c] + ri[c] * real[c];
          real[c] = next;
          const P part = wr[c] * real[c] - wi[c] * imaginary[c];
          y(i, c) = n == 0 ? static_cast<S>(part) : static_cast<S>(static_cast<P>(y(i, c)) + part);
        }
      }
    }
  }

 private:
  struct Mode {
    Complex a;
    P dt;
    Complex q;
  };
  Mode mode(Index n, Index c) const {
    using std::exp;
    const Complex a{-exp(log_decay_.value(n, c)), frequency_.value(n, c)};
    const P dt = exp(log_step_.value(0, c)), half = static_cast<P>(0.5), one = static_cast<P>(1.0);
    return {a, dt, Complex{one - half * dt * a.real, -(half * dt * a.imaginary)}.reciprocal()};
  }
  template <class T>
  static Complex pair(Rows<T> rows, Index n, Index c) {
    return {rows(2 * n, c), rows(2 * n + 1, c)};
  }
  template <class T>
  static Complex pair(const Tensor<Backend, T>& rows, Index n, Index c) requires(!std::same_as<Tensor<Backend, T>, Rows<T>>) {
    return {rows(2 * n, c), rows(2 * n + 1, c)};
  }
  /// The loss changes by Re(by dz): a gradient by z.real of Re(by) and by z.imaginary of -Im(by).
  static void add(Rows<P> gradient, Index n, Index c, Complex by) {
    gradient(2 * n, c) += by.real;
    gradient(2 * n + 1, c) += -by.imaginary;
  }
  void discretise(Context<Backend>& context, Rows<P> ratio, Rows<P> weight) const {
    context.for_rows(modes_, 64 * ratio.width, [&](Index n) {
      for (Index c = 0; c < ratio.width; ++c) {
        const auto [a, dt, q] = mode(n, c);
        const P two = static_cast<P>(2.0);
        const Complex w = two * dt * (pair(output_.view(), n, c) * pair(input_.view(), n, c) * q);
        ratio(2 * n, c) = two * q.real - static_cast<P>(1.0);
        ratio(2 * n + 1, c) = two * q.imaginary;
        weight(2 * n, c) = w.real;
        weight(2 * n + 1, c) = w.imaginary;
      }
    });
  }

  Path path_;
  Index modes_;
  Parameter<P> log_decay_, frequency_, input_, output_, log_step_;
};

}  // namespace coyote::inline v0

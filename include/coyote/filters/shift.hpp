// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/storage.hpp"
#include "coyote/filters/filter.hpp"
#include "coyote/operations/decoding.hpp"
#include "coyote/operations/reference/convolution.hpp"

namespace coyote::inline v0 {

namespace detail {

/// Uniform in (-1/sqrt(rows), 1/sqrt(rows)): the square root is taken when values are drawn, not in constant evaluation.
constexpr Init uniform_by_rows() {
  return Init::from([](Index row, Index column, Index rows, Index columns, const double(&)[4], const Stream& draws) {
    return (2 * draws.uniform(static_cast<std::uint64_t>(row * columns + column)) - 1) / std::sqrt(static_cast<double>(rows));
  });
}

/// A convolution with m taps over one sequence, the first rows seeing fewer.
constexpr Cost fir_cost(Index taps, Index channels, Index length) {
  const Index m = taps < length ? taps : length, products = m * length - m * (m - 1) / 2;
  return {.multiplications = channels * products, .additions = channels * (products - length)};
}

/// A state of the last m - 1 inputs of every sequence; the row of position p at p mod (m - 1).
template <class Backend, class P>
using FirState = RecurrenceState<Backend, P>;

}  // namespace detail

/// A few free taps: taps[t, d] for lags t < m, 0 beyond. Over any ring. What H3's shift state space comes to when its input
/// vector stays e_1.
/// Parameters: taps [m, D], U(-1/sqrt(m), 1/sqrt(m)). Decoding: a ring of the last inputs, (m-1)*D scalars. Cost: D*(m*L -
/// m(m-1)/2) multiplications. Errors: no taps. Source: theory of H3 (arXiv 2212.14052).
struct FirFilter {
  struct Options {
    Index count = 4;
    Init taps = detail::uniform_by_rows();
  };
  static constexpr bool state_is_bounded = true;
  static constexpr Index state_scalars(Index channels, Index, const Options& options) { return (options.count - 1) * channels; }
  static constexpr Cost cost(Index channels, Index, const Options& options) { return {.parameters = options.count * channels}; }
  static constexpr Cost recurrence(Index channels, Index length, const Options& options) {
    return detail::fir_cost(options.count, channels, length);
  }
};

template <class Backend, class S>
class Taps<FirFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;
  using State = detail::FirState<Backend, P>;

  constexpr Taps(Index channels, Index, const FirFilter::Options& options, Path path)
      : path_(path), taps_(options.count, channels, options.taps) {
    if (options.count < 1) throw Error(std::string(path.view()), "at least one tap", words(options.count));
  }

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "taps", taps_);
  }

  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved&) const {
    const Index count = taps_.rows < taps.rows ? taps_.rows : taps.rows;
    copy<P>(context, taps_.view().slice(0, count), taps.slice(0, count));
    clear<P>(context, taps.slice(count, taps.rows - count));
  }
  constexpr void backward(Context<Backend>& context, Rows<const P> dtaps, Saved&) const {
    if (!taps_.trains()) return;
    const Index count = taps_.rows < dtaps.rows ? taps_.rows : dtaps.rows;
    assign<P>(context, dtaps.slice(0, count), taps_.gradient.slice(0, count), Write::add);
  }

  constexpr State make_state(StateBounds bounds) const {
    return {{bounds.sequences * (taps_.rows - 1), taps_.columns}, bounds.sequences};
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    convolution_step<S>(context, at, taps_.view(), {}, state.rows, u, y);
  }

 private:
  Path path_;
  Parameter<P> taps_;
};

/// H3's shift state space: N states that pass their values on by one place a row, taps[t, d] = sum_{n < N - t} input[n, d] *
/// output[n+t, d] for t < N, 0 beyond. Over any ring.
/// Parameters, [N, D] each: input, e_1, and output, U(-1/sqrt(N), 1/sqrt(N)); N = 0 states: as many as the layer has rows.
/// Decoding: a ring of the last inputs, (N-1)*D scalars. Cost: the taps, D*N(N+1)/2 multiplications a pass (Cpu uses
/// transforms), and D*(N*L - N(N-1)/2) for the rows. Source: H3 (arXiv 2212.14052), section 3.1.
struct ShiftFilter {
  struct Options {
    Index states = 0;
    Init input = Init::from([](Index n, Index, Index, Index, const double (&)[4], const Stream&) { return n == 0 ? 1.0 : 0.0; });
    Init output = detail::uniform_by_rows();

    constexpr Index states_for(Index length) const { return states != 0 ? states : length; }
  };
  /// The number of states follows the length, unless told otherwise.
  static constexpr bool state_is_bounded = false;
  static constexpr Index state_scalars(Index channels, Index length, const Options& options) {
    return (options.states_for(length) - 1) * channels;
  }
  static constexpr Cost cost(Index channels, Index length, const Options& options) {
    const Index n = options.states_for(length);
    return {.parameters = 2 * n * channels,
            .multiplications = channels * (n * (n + 1) / 2),
            .additions = channels * (n * (n - 1) / 2)};
  }
  static constexpr Cost recurrence(Index channels, Index length, const Options& options) {
    return detail::fir_cost(options.states_for(length), channels, length);
  }
};

template <class Backend, class S>
class Taps<ShiftFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;
  /// The taps are constants, not counted.
  struct State : detail::FirState<Backend, P> {
    Storage<Backend, P> taps;
  };

  constexpr Taps(Index channels, Index length, const ShiftFilter::Options& options, Path path)
      : path_(path),
        input_(options.states_for(length), channels, options.input),
        output_(options.states_for(length), channels, options.output) {
    if (input_.rows < 1) throw Error(std::string(path.view()), "at least one state", words(input_.rows));
  }

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "input", input_);
    visit_parameter(v, path_ / "output", output_);
  }

  constexpr void generate(Context<Backend>& context, Rows<P> taps, Saved&) const {
    const auto frame = context.frame();
    const Index states = input_.rows, count = states < taps.rows ? states : taps.rows;
    auto all = context.template make<P>(states, taps.width);
    clear<P>(context, all);
    correlate(context, input_.view(), output_.view(), all);
    const Rows<const P> made = all;
    copy<P>(context, made.slice(0, count), taps.slice(0, count));
    clear<P>(context, taps.slice(count, taps.rows - count));
  }
  /// dinput[n] = sum_t dtaps[t] output[n+t], doutput[k] = sum_{t <= k} dtaps[t] input[k-t].
  constexpr void backward(Context<Backend>& context, Rows<const P> dtaps, Saved&) const {
    if (!input_.trains()) return;
    const auto frame = context.frame();
    const Index states = input_.rows, count = states < dtaps.rows ? states : dtaps.rows;
    auto all_ = context.template make<P>(states, dtaps.width);
    const Rows<P> all = all_;
    copy<P>(context, dtaps.slice(0, count), all.slice(0, count));
    clear<P>(context, all.slice(count, states - count));
    correlate(context, all, output_.view(), input_.gradient);
    auto doutput = context.template make<P>(states, dtaps.width);
    long_convolution<P>(context, Batch{.sequences = 1, .length = states}, Wrap::causal, all, input_.view(), {}, {}, {}, doutput);
    assign<P>(context, doutput, output_.gradient, Write::add);
  }

  constexpr State make_state(StateBounds bounds) const {
    State state{{{bounds.sequences * (input_.rows - 1), input_.columns}, bounds.sequences}, {input_.rows, input_.columns}};
    Context<Backend> context = make_context<Backend>();
    Saved saved;
    generate(context, state.taps.view(), saved);
    return state;
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    convolution_step<S>(context, at, std::as_const(state.taps).view(), {}, state.rows, u, y);
  }

 private:
  /// to[t] += sum_n a[n] b[n+t]: what a convolution's backward does for its taps.
  static constexpr void correlate(Context<Backend>& context, Rows<const P> a, Rows<const P> b, Rows<P> to) {
    long_convolution_backward<P>(context, Batch{.sequences = 1, .length = a.rows}, Wrap::causal, a, a, {}, {}, b, {}, Write::none,
                                 {}, to, {});
  }

  Path path_;
  Parameter<P> input_, output_;
};

}  // namespace coyote::inline v0

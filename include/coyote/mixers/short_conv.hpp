// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/core/storage.hpp"
#include "coyote/mixers/bias.hpp"
#include "coyote/operations/decoding.hpp"
#include "coyote/operations/reference/convolution.hpp"

namespace coyote::inline v0 {

/// y[b,l,d] = sum_{k=0..K-1} taps[k,d] * u[b,l-k,d] + bias; terms with l < k are 0; k = 0 is the current token.
/// Saves u. Cost: D*(K*L - K(K-1)/2) multiplications and (with bias) additions. State: (K-1)*D scalars.
/// Errors: width mismatch; with PositionBias, sequences longer than the layer's length.
/// Parameters: taps [K, D] and bias, both U(-1/sqrt(K), 1/sqrt(K)). Source: Zoology (arXiv 2312.04927), Def. 4.1 with K taps.
template <Index K, class Bias = ChannelBias>
struct ShortConv {
  static_assert(K >= 1, "coyote: a ShortConv has at least one tap");
  using Parts = Types<>;
  struct Options {};
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = 1;

  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions dims, const Options&, Index) {
    const Index taps = K < dims.length ? K : dims.length, bias = Bias::rows(dims.length);
    const Index products = dims.width * (taps * dims.length - taps * (taps - 1) / 2);
    return {.parameters = (K + bias) * dims.width,
            .multiplications = products,
            .additions = products - (bias == 0 ? dims.length * dims.width : 0),
            .state_scalars = (K - 1) * dims.width};
  }
};

template <Index K, class Bias, class Backend, class S>
class Layer<ShortConv<K, Bias>, Backend, S> {
  using P = parameter_t<S>;

 public:
  struct Saved {
    Rows<const S> u;
  };
  /// The last K - 1 rows of every sequence; row of position p at p mod (K - 1).
  struct State {
    Storage<Backend, P> history;
    Index sequences = 1;
    constexpr StateSize size() const { return {.scalars = history.size() / sequences}; }
  };

  constexpr Layer(Dimensions dims, const typename ShortConv<K, Bias>::Options&, Path path)
      : path_(path), taps_(K, dims.width, initial()), bias_(Bias::rows(dims.length), dims.width, initial(), false) {
    require_dimensions(path, dims);
  }

  template <class V>
  constexpr void visit(V& v) {
    visit_parameter(v, path_ / "taps", taps_);
    if (bias_.rows > 0) visit_parameter(v, path_ / "bias", bias_);
  }
  constexpr Index output_width() const { return taps_.columns; }
  constexpr Rows<const P> taps() const { return taps_.value; }
  constexpr Rows<const P> bias() const { return bias_.value; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    check(batch, u, y);
    saved.u = u;
    short_convolution<S, K>(context, batch, u, taps_.view(), bias_.view(), {}, y);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    short_convolution_backward<S, K>(context, batch, saved.u, taps_.view(), bias_.view(), {}, dy, du, write, {}, taps_.gradient,
                                     bias_.gradient);
  }

  /// The same times a gate: y = gate * (taps * u + bias). What `lowered` makes of a Gate with a convolution on its right.
  constexpr void forward_gated(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<const S> gate, Rows<S> y,
                               Saved& saved) const {
    check(batch, u, y);
    saved.u = u;
    short_convolution<S, K>(context, batch, u, taps_.view(), bias_.view(), gate, y);
  }
  constexpr void backward_gated(Context<Backend>& context, const Batch& batch, Rows<const S> gate, Rows<const S> dy, Rows<S> du,
                                Write write, Rows<S> dgate, Saved& saved) const {
    short_convolution_backward<S, K>(context, batch, saved.u, taps_.view(), bias_.view(), gate, dy, du, write, dgate,
                                     taps_.gradient, bias_.gradient);
  }

  constexpr State make_state(StateBounds bounds) const { return {{bounds.sequences * (K - 1), taps_.columns}, bounds.sequences}; }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    require_views(path_, state.sequences, u, taps_.columns, y, taps_.columns);
    if (Bias::rows(2) > 1) require_length(path_, at.position + 1, bias_.rows);
    convolution_step<S>(context, at, taps_.view(), bias_.view(), state.history, u, y);
  }
  /// step, times gate; `skip`, if it is there, is added.
  constexpr void step_gated(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<const S> gate,
                            Rows<S> y, Rows<const S> skip) const {
    require_views(path_, state.sequences, u, taps_.columns, y, taps_.columns);
    if (Bias::rows(2) > 1) require_length(path_, at.position + 1, bias_.rows);
    convolution_step<S>(context, at, taps_.view(), bias_.view(), state.history, u, y, gate, skip);
  }

 private:
  /// 1/sqrt(K) without a constexpr square root: the bound is worked out when values are drawn.
  static constexpr Init initial() {
    return Init::from(
        [](Index row, Index column, Index, Index columns, const double(&k)[4], const Stream& draws) {
          return (2 * draws.uniform(static_cast<std::uint64_t>(row * columns + column)) - 1) / std::sqrt(k[0]);
        },
        static_cast<double>(K));
  }
  constexpr void check(const Batch& batch, Rows<const S> u, Rows<S> y) const {
    require_views(path_, batch.rows(), u, taps_.columns, y, taps_.columns);
    if (Bias::rows(2) > 1) require_length(path_, batch.length, bias_.rows);
  }

  Path path_;
  Parameter<P> taps_, bias_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/storage.hpp"
#include "coyote/filters/filter.hpp"
#include "coyote/filters/free.hpp"
#include "coyote/mixers/bias.hpp"
#include "coyote/operations/decoding.hpp"
#include "coyote/operations/reference/convolution.hpp"

namespace coyote::inline v0 {

/// How a long convolution treats the ends of a sequence.
struct Causal {
  static constexpr Wrap wrap = Wrap::causal;
};
struct Cyclic {
  static constexpr Wrap wrap = Wrap::cyclic;
};

/// Causal: y[b,l,d] = sum_{t=0..l} taps[t,d] * u[b,l-t,d] + bias; Cyclic, for a sequence of n rows: t = 0..n-1 and row (l-t) mod
/// n. The taps come from the filter; a sequence of n rows uses the first n of them. Saves u (and what the filter saves). Cost:
/// the filter's, plus D*L(L+1)/2 multiplications (causal, textbook; Cpu uses transforms of n log n). State: the inputs so far,
/// L*D scalars, or the filter's own recurrence, by which then the cost counts too; none if cyclic. Errors: width mismatch;
/// sequences longer than the layer's length. Source: Zoology, Def. 4.1.
template <class F = FreeFilter, class Ends = Causal, class Bias = ChannelBias>
struct LongConv {
  static_assert(Filter<F>, "coyote: the first argument of LongConv is a filter (filters/filter.hpp says what one has)");
  using Parts = Types<>;
  struct Options {
    typename F::Options filter = {};
  };
  static constexpr bool is_causal = Ends::wrap == Wrap::causal, is_input_dependent = false,
                        state_is_bounded = F::state_is_bounded;
  static constexpr Degree degree = 1;

  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions dims, const Options& options, Index) {
    const Index n = dims.length, bias = Bias::rows(n);
    const Index products = dims.width * (is_causal ? n * (n + 1) / 2 : n * n);
    if constexpr (is_causal && detail::Recurs<F>) {
      return F::cost(dims.width, n, options.filter) + F::recurrence(dims.width, n, options.filter) +
             Cost{.parameters = bias * dims.width,
                  .additions = bias == 0 ? 0 : n * dims.width,
                  .state_scalars = F::state_scalars(dims.width, n, options.filter)};
    }
    return F::cost(dims.width, n, options.filter) +
           Cost{.parameters = bias * dims.width,
                .multiplications = products,
                .additions = products - (bias == 0 ? n * dims.width : 0),
                .state_scalars = is_causal ? F::state_scalars(dims.width, n, options.filter) : 0};
  }
};

template <class F, class Ends, class Bias, class Backend, class S>
requires detail::HasTaps<F, Backend, S>
class Layer<LongConv<F, Ends, Bias>, Backend, S> {
  using P = parameter_t<S>;
  using Maker = Taps<F, Backend, S>;
  static constexpr bool stores = detail::StoresTaps<Maker>, steps = detail::StepsTaps<Maker>;
  static constexpr Wrap wrap = Ends::wrap;

 public:
  struct Saved {
    Rows<const S> u;
    Tensor<Backend, P> taps;
    Tensor<Backend, S> convolved;
    typename Maker::Saved filter;
  };
  /// The inputs so far and the taps (constants, not counted).
  struct History {
    Storage<Backend, P> inputs, taps;
    Index sequences = 1, capacity = 0;
    constexpr StateSize size() const { return {.scalars = inputs.size() / sequences}; }
  };
  static constexpr auto state_type() {
    if constexpr (steps) {
      return std::type_identity<typename Maker::State>{};
    } else {
      return std::type_identity<History>{};
    }
  }
  using State = typename decltype(state_type())::type;

  constexpr Layer(Dimensions dims, const typename LongConv<F, Ends, Bias>::Options& options, Path path)
      : path_(path),
        dims_(dims),
        filter_(dims.width, dims.length, options.filter, path / "filter"),
        bias_(Bias::rows(dims.length), dims.width, Init::constant(0), false) {
    require_dimensions(path, dims);
  }

  template <class V>
  constexpr void visit(V& v) {
    filter_.visit(v);
    if (bias_.rows > 0) visit_parameter(v, path_ / "bias", bias_);
  }
  constexpr Index output_width() const { return dims_.width; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    convolve(context, batch, u, {}, y, saved);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    convolve_backward(context, batch, {}, dy, du, write, {}, saved);
  }

  /// The same times a gate: y = gate * (taps * u + bias). What `lowered` makes of a Gate with a convolution on its right.
  constexpr void forward_gated(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<const S> gate, Rows<S> y,
                               Saved& saved) const {
    if (context.training()) saved.convolved = context.template make<S>(u.rows, u.width);
    convolve(context, batch, u, gate, y, saved);
  }
  constexpr void backward_gated(Context<Backend>& context, const Batch& batch, Rows<const S> gate, Rows<const S> dy, Rows<S> du,
                                Write write, Rows<S> dgate, Saved& saved) const {
    convolve_backward(context, batch, gate, dy, du, write, dgate, saved);
  }

  constexpr State make_state(StateBounds bounds) const {
    if constexpr (steps) {
      return filter_.make_state(bounds);
    } else {
      require_length(path_, bounds.capacity, dims_.length);
      History state{{bounds.sequences * bounds.capacity, dims_.width}, {}, bounds.sequences, bounds.capacity};
      if constexpr (!stores) {
        state.taps = Storage<Backend, P>(bounds.capacity, dims_.width);
        Context<Backend> context = make_context<Backend>();
        typename Maker::Saved saved;
        filter_.generate(context, state.taps.view(), saved);
      }
      return state;
    }
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    static_assert(wrap == Wrap::causal, "coyote: a Cyclic convolution reads the whole sequence and has no step");
    require_views(path_, u.rows, u, dims_.width, y, dims_.width);
    if (Bias::rows(2) > 1) require_length(path_, at.position + 1, bias_.rows);
    if constexpr (steps) {
      filter_.step(context, state, at, u, y);
      bias_step<S>(context, at, bias_.view(), y);
    } else {
      require_views(path_, state.sequences, u, dims_.width, y, dims_.width);
      require_length(path_, at.position + 1, state.capacity);
      Rows<const P> taps = std::as_const(state.taps).view();
      if constexpr (stores) taps = filter_.stored();
      convolution_step<S>(context, at, taps, bias_.view(), state.inputs, u, y);
    }
  }

 private:
  constexpr void convolve(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<const S> gate, Rows<S> y,
                          Saved& saved) const {
    require_views(path_, batch.rows(), u, dims_.width, y, dims_.width);
    require_length(path_, batch.length, dims_.length);
    saved.u = u;
    long_convolution<S>(context, batch, wrap, u, taps(context, batch.length, saved), bias_.view(), gate, saved.convolved, y);
  }
  constexpr void convolve_backward(Context<Backend>& context, const Batch& batch, Rows<const S> gate, Rows<const S> dy,
                                   Rows<S> du, Write write, Rows<S> dgate, Saved& saved) const {
    const auto frame = context.frame();
    Rows<const P> used = saved.taps;
    Rows<P> dtaps;
    Tensor<Backend, P> made{};
    if constexpr (stores) {
      used = filter_.stored().slice(0, batch.length);
      if (filter_.stored_gradient().data != nullptr) dtaps = filter_.stored_gradient().slice(0, batch.length);
    } else {
      made = context.template make<P>(batch.length, dims_.width);
      clear<P>(context, made);
      dtaps = made;
    }
    long_convolution_backward<S>(context, batch, wrap, saved.u, used, gate, saved.convolved, dy, du, write, dgate, dtaps,
                                 bias_.gradient);
    if constexpr (!stores) filter_.backward(context, dtaps, saved.filter);
  }
  constexpr Rows<const P> taps(Context<Backend>& context, Index count, Saved& saved) const {
    if constexpr (stores) {
      return filter_.stored().slice(0, count);
    } else {
      saved.taps = context.template make<P>(count, dims_.width);
      filter_.generate(context, saved.taps, saved.filter);
      return saved.taps;
    }
  }

  Path path_;
  Dimensions dims_;
  Maker filter_;
  Parameter<P> bias_;
};

}  // namespace coyote::inline v0

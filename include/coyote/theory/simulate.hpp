// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/architectures/coyote.hpp"
#include "coyote/architectures/h3.hpp"
#include "coyote/architectures/hyena.hpp"
#include "coyote/architectures/linear_attention.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/reference/operations.hpp"
#include "coyote/theory/simulations.hpp"

namespace coyote::inline v0::theory {

namespace detail {

/// The parameters of a model by name.
template <Ring S>
class Weights {
 public:
  template <class M>
  constexpr explicit Weights(M& model) : made_for_(model.dimensions().length) {
    auto put = [&](const Path& path, auto& parameter) { found_.emplace(Named{path, parameter.view()}); };
    model.visit(put);
  }
  constexpr Rows<const S> view(const Path& path) const {
    for (const Named& named : found_) {
      if (named.path.view() == path.view()) return named.value;
    }
    throw Error("theory::simulate", words("a parameter named ", path.view()), "a model without it");
  }
  constexpr Matrix<S> matrix(const Path& path) const {
    const Rows<const S> from = view(path);
    Matrix<S> result(from.rows, from.width);
    for (Index r = 0; r < from.rows; ++r) {
      for (Index c = 0; c < from.width; ++c) result(r, c) = from(r, c);
    }
    return result;
  }
  /// The length that the model was made for.
  constexpr Index made_for() const { return made_for_; }
  constexpr bool has(const Path& path) const {
    for (const Named& named : found_) {
      if (named.path.view() == path.view()) return true;
    }
    return false;
  }
  /// A Linear.
  constexpr Affine<S> affine(const Path& path) const { return {matrix(path / "weight"), matrix(path / "bias")}; }

 private:
  struct Named {
    Path path;
    Rows<const S> value;
  };
  Index made_for_;
  List<Named> found_;
};

/// Filters of which `fit` can read off the parameters with which sizes they were made.
template <class F>
inline constexpr bool fits = false;
template <>
inline constexpr bool fits<FreeFilter> = true;
template <>
inline constexpr bool fits<FirFilter> = true;
template <>
inline constexpr bool fits<ShiftFilter> = true;
template <>
inline constexpr bool fits<SumFilter> = true;
template <>
inline constexpr bool fits<DecayFilter> = true;
template <>
inline constexpr bool fits<DiagonalFilter> = true;
template <>
inline constexpr bool fits<ComplexDiagonalFilter> = true;
template <class Activation, class Window, class Positions, class OutputBias>
inline constexpr bool fits<ImplicitFilterWith<Activation, Window, Positions, OutputBias>> = true;
template <class F>
inline constexpr bool fits<WithSkip<F>> = fits<F>;

/// Sets the options' sizes. Filters without options of size have the first one.
template <Ring S, class Options>
constexpr void fit(Options&, const Weights<S>&, const Path&) {}
template <Ring S>
constexpr void fit(FirFilter::Options& options, const Weights<S>& weights, const Path& path) {
  options.count = weights.view(path / "taps").rows;
}
template <Ring S>
constexpr void fit(ShiftFilter::Options& options, const Weights<S>& weights, const Path& path) {
  options.states = weights.view(path / "input").rows;
}
template <Ring S>
constexpr void fit(DiagonalFilter::Options& options, const Weights<S>& weights, const Path& path) {
  options.modes = weights.view(path / "decay").rows;
}
template <Ring S>
constexpr void fit(ComplexDiagonalFilter::Options& options, const Weights<S>& weights, const Path& path) {
  options.modes = weights.view(path / "log_decay").rows;
}
/// The options of an implicit filter.
template <class Options>
requires requires(Options& options) { options.hidden, options.layers, options.features; }
constexpr void fit(Options& options, const auto& weights, const Path& path) {
  const auto first = weights.view(path / "hidden" / Index{0} / "weight");
  options.features = first.rows;
  options.hidden = first.width;
  options.layers = 1;
  while (weights.has(path / "hidden" / options.layers / "weight")) ++options.layers;
}
template <class Inner, Ring S>
constexpr void fit(SkipOptions<Inner>& options, const Weights<S>& weights, const Path& path) {
  fit(options.filter, weights, path);
}

/// The first `length` taps of a filter, made in the ring by the filter's own formula. They are taken once: what the stack has
/// is numbers.
template <class F, Ring S>
constexpr Matrix<S> read_taps(const Weights<S>& weights, const Path& path, Index channels, Index length) {
  typename F::Options options;
  fit(options, weights, path);
  Taps<F, Reference, S> maker(channels, weights.made_for(), options, path);
  ParameterStore<S> store;
  store.bind(maker);
  auto fill = [&](const Path& name, Parameter<S>& parameter) {
    const Rows<const S> from = weights.view(name);
    require_shape("theory::simulate", name.view(), from, parameter.rows, parameter.columns);
    for (Index r = 0; r < from.rows; ++r) {
      for (Index c = 0; c < from.width; ++c) parameter.value(r, c) = from(r, c);
    }
  };
  maker.visit(fill);
  Context<Reference> context;
  typename Taps<F, Reference, S>::Saved saved;
  Matrix<S> taps(length, channels);
  coyote::detail::generate_taps(maker, context, taps.view(), saved);
  return taps;
}

/// What a mixer is to `simulate`; `read` only where there is a simulation.
template <class M>
struct Simulated {
  static constexpr bool exists = false;
};

template <class F, class Bias>
requires(Bias::rows(2) <= 1) struct Simulated<Coyote<LongConv<F, Causal, Bias>>> {
  static constexpr bool exists = fits<F>;
  template <Ring S>
  static constexpr Simulation<S> read(const Weights<S>& weights, const Path& path, Index length) {
    const Affine<S> gate = weights.affine(path / "left");
    Matrix<S> bias;
    if constexpr (Bias::rows(2) == 1) bias = weights.matrix(path / "right" / "bias");
    return simulate_gated_convolution(gate, read_taps<F>(weights, path / "right" / "filter", gate.weight.width(), length), bias);
  }
};

template <class F>
struct Simulated<Gate<Linear, Chain<Linear, LongConv<F, Causal, NoBias>>>> {
  static constexpr bool exists = fits<F>;
  template <Ring S>
  static constexpr Simulation<S> read(const Weights<S>& weights, const Path& path, Index length) {
    const Affine<S> gate = weights.affine(path / "left"), inner = weights.affine(path / "right" / Index{0});
    return simulate_gated_convolution(gate, inner,
                                      read_taps<F>(weights, path / "right" / Index{1} / "filter", gate.weight.width(), length));
  }
};

// H3<Shift, Diagonal, E>; Share is E * E, which cannot be deduced as that.
template <Index E, class Shift, class Diagonal, Index Share>
requires(Share ==
         E * E) struct Simulated<Chain<Contract<E, Linear,
                                                Chain<Outer<E, Chain<Linear, LongConv<WithSkip<Shift>, Causal, NoBias>>, Linear>,
                                                      LongConv<SharedFilter<Share, WithSkip<Diagonal>>, Causal, NoBias>>>,
                                       Linear>> {
  static constexpr bool exists = fits<Shift> && fits<Diagonal>;
  template <Ring S>
  static constexpr Simulation<S> read(const Weights<S>& weights, const Path& path, Index length) {
    const Path inner = path / Index{0} / "right", outer = inner / Index{0}, keys = outer / "left";
    H3Weights<S> h3;
    h3.head = E;
    h3.q = weights.affine(path / Index{0} / "left");
    h3.k = weights.affine(keys / Index{0});
    h3.v = weights.affine(outer / "right");
    h3.out = weights.affine(path / Index{1});
    const Index d = h3.q.weight.width();
    h3.shift = read_taps<WithSkip<Shift>>(weights, keys / Index{1} / "filter", d, length);
    h3.diagonal = read_taps<WithSkip<Diagonal>>(weights, inner / Index{1} / "filter", d / E, length);
    return simulate_h3(h3);
  }
};

// LinearAttention<E, F>, Retention<E>
template <Index E, class F, Index Share>
requires(Share == E * E) struct Simulated<
    Chain<Contract<E, Linear, Chain<Outer<E, Linear, Linear>, LongConv<SharedFilter<Share, F>, Causal, NoBias>>>, Linear>> {
  static constexpr bool exists = fits<F>;
  template <Ring S>
  static constexpr Simulation<S> read(const Weights<S>& weights, const Path& path, Index length) {
    const Path inner = path / Index{0} / "right";
    LinearAttentionWeights<S> attention;
    attention.q = weights.affine(path / Index{0} / "left");
    attention.k = weights.affine(inner / Index{0} / "left");
    attention.v = weights.affine(inner / Index{0} / "right");
    attention.out = weights.affine(path / Index{1});
    attention.heads = attention.q.weight.width() / E;
    attention.taps = read_taps<F>(weights, inner / Index{1} / "filter", attention.heads, length);
    return simulate_linear_attention(attention);
  }
};

/// The recursion z^{k+1} of a Hyena: its order, or -1 if M is something else.
template <class M>
struct Recursion {
  static constexpr int order = -1;
};
template <>
struct Recursion<Linear> {
  static constexpr int order = 0;
  template <Ring S>
  static constexpr void read(HyenaWeights<S>& hyena, const Weights<S>& weights, const Path& path, Index) {
    hyena.v = weights.affine(path);
  }
};
template <class Inner, class F>
requires(Recursion<Inner>::order >= 0 && fits<F>) struct Recursion<Gate<Linear, Chain<Inner, LongConv<F, Causal, NoBias>>>> {
  static constexpr int order = Recursion<Inner>::order + 1;
  template <Ring S>
  static constexpr void read(HyenaWeights<S>& hyena, const Weights<S>& weights, const Path& path, Index length) {
    Recursion<Inner>::read(hyena, weights, path / "right" / Index{0}, length);
    hyena.x.emplace(weights.affine(path / "left"));
    hyena.taps.emplace(read_taps<F>(weights, path / "right" / Index{1} / "filter", hyena.v.weight.width(), length));
  }
};
template <class M>
requires(Recursion<M>::order >= 1) struct Simulated<Chain<M, Linear>> {
  static constexpr bool exists = true;
  template <Ring S>
  static constexpr Simulation<S> read(const Weights<S>& weights, const Path& path, Index length) {
    HyenaWeights<S> hyena;
    Recursion<M>::read(hyena, weights, path / Index{0}, length);
    hyena.out = weights.affine(path / Index{1});
    return simulate_hyena(hyena);
  }
};

/// The recursion z^k of a Hyena as coded: its order, or -1 if M is something else.
template <class M>
struct PublicRecursion {
  static constexpr int order = -1;
};
/// A projection with its short convolution.
template <Ring S>
constexpr void read_projection(HyenaPublicWeights<S>& hyena, const Weights<S>& weights, const Path& path) {
  hyena.projections.emplace(weights.affine(path / Index{0}));
  hyena.short_taps.emplace(weights.matrix(path / Index{1} / "taps"));
  hyena.short_bias.emplace(weights.matrix(path / Index{1} / "bias"));
}
template <>
struct PublicRecursion<Gate<coyote::detail::HyenaProjection, coyote::detail::HyenaProjection>> {
  static constexpr int order = 1;
  template <Ring S>
  static constexpr void read(HyenaPublicWeights<S>& hyena, const Weights<S>& weights, const Path& path, Index) {
    read_projection(hyena, weights, path / "left");
  }
};
template <class Inner, class F>
requires(
    PublicRecursion<Inner>::order >= 1 &&
    fits<F>) struct PublicRecursion<Gate<coyote::detail::HyenaProjection, Chain<Inner, LongConv<WithSkip<F>, Causal, NoBias>>>> {
  static constexpr int order = PublicRecursion<Inner>::order + 1;
  template <Ring S>
  static constexpr void read(HyenaPublicWeights<S>& hyena, const Weights<S>& weights, const Path& path, Index length) {
    PublicRecursion<Inner>::read(hyena, weights, path / "right" / Index{0}, length);
    read_projection(hyena, weights, path / "left");
    const Index d = hyena.projections[0].weight.width();
    hyena.taps.emplace(read_taps<WithSkip<F>>(weights, path / "right" / Index{1} / "filter", d, length));
  }
};
template <class M>
requires(PublicRecursion<M>::order >= 1) struct Simulated<Chain<M, Linear>> {
  static constexpr bool exists = true;
  template <Ring S>
  static constexpr Simulation<S> read(const Weights<S>& weights, const Path& path, Index length) {
    HyenaPublicWeights<S> hyena;
    PublicRecursion<M>::read(hyena, weights, path / Index{0}, length);
    Path values = path / Index{0};
    for (int n = 1; n < PublicRecursion<M>::order; ++n) values = values / "right" / Index{0};
    read_projection(hyena, weights, values / "right");
    hyena.out = weights.affine(path / Index{1});
    return simulate_hyena_public(hyena, length);
  }
};

}  // namespace detail

/// True for the mixers that `simulate` reads: Coyote<LongConv<F>> (with or without a bias per channel), Gate<Linear,
/// Chain<Linear, LongConv<F, Causal, NoBias>>>, H3<Shift, Diagonal, E>, LinearAttention<E, F>, and both forms of Hyena, with any
/// filter of the library, with a skip or without. Filters that exist for floating scalars only are read in these.
template <class M>
inline constexpr bool can_simulate = detail::Simulated<M>::exists;

/// The Coyote stack that computes what the model computes from sequences of `length` rows, with its weights of now. The filters'
/// taps are taken first, so that the rest is a polynomial: equal over any exact ring, within rounding over floating point. Its
/// sizes are those of simulate_gated_convolution (1 layer of width d, or 2 of width 2d), simulate_h3, simulate_hyena,
/// simulate_hyena_public (wide) and simulate_linear_attention. `path` is the one that the model was made with. Errors: a length
/// that the model does not have; another path.
template <class M, class Backend, Ring S>
constexpr Simulation<S> simulate(Model<M, Backend, S>& model, Index length, const Path& path = {}) {
  static_assert(can_simulate<M>,
                "coyote: simulate turns Coyote<LongConv<F>>, Gate<Linear, Chain<Linear, LongConv<F, Causal, NoBias>>>, H3, "
                "LinearAttention, Hyena and HyenaPublic into Coyote stacks, and no other mixer; RWKV is in theory/rwkv.hpp");
  if constexpr (can_simulate<M>) {
    const Index longest = model.dimensions().length;
    if (length < 1 || length > longest) throw Error("theory::simulate", words("1 to ", longest, " rows"), words(length));
    return detail::Simulated<M>::read(detail::Weights<S>(model), path, length);
  } else {
    return {Stack<S>(1, 1)};  // one error is enough
  }
}

}  // namespace coyote::inline v0::theory

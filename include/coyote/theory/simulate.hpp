// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/architectures/coyote.hpp"
#include "coyote/architectures/h3.hpp"
#include "coyote/architectures/hyena.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/reference/operations.hpp"
#include "coyote/theory/stack.hpp"

namespace coyote::inline v0::theory {

/// x W + b: weight [in, out], bias [1, out] or empty for none.
template <Ring S>
struct Affine {
  Matrix<S> weight, bias;

  constexpr Form<S> form(Index out, Index first = 0) const {
    Form<S> result;
    for (Index a = 0; a < weight.rows(); ++a) {
      if (!(weight(a, out) == S{})) result.add(first + a, weight(a, out));
    }
    return result;
  }
  constexpr S constant(Index out) const { return bias.size() == 0 ? S{} : bias(0, out); }
};

/// A stack that computes another mixer, exactly: input in columns 0 .. d - 1, output in columns first .. first + width - 1.
template <Ring S>
struct Simulation {
  Stack<S> stack;
  Index first = 0, width = 0;

  /// [N, d] -> [N, width]
  constexpr Matrix<S> run(Rows<const S> u) const {
    const Matrix<S> x = stack.run(u);
    Matrix<S> y(x.rows(), width);
    for (Index i = 0; i < y.rows(); ++i) {
      for (Index c = 0; c < width; ++c) y(i, c) = x(i, first + c);
    }
    return y;
  }
};

namespace detail {
template <Ring S>
constexpr void require_affine(const char* where, const Affine<S>& affine, Index in, Index out) {
  require_shape(where, "a weight", affine.weight.view(), in, out);
  if (affine.bias.size() > 0) require_shape(where, "a bias", affine.bias.view(), 1, out);
}
/// Column c of a matrix of taps [N, channels].
template <Ring S>
constexpr Impulses<S> filter(const Matrix<S>& taps, Index c) {
  Impulses<S> result;
  for (Index t = 0; t < taps.rows(); ++t) {
    if (!(taps(t, c) == S{})) result.add(t, taps(t, c));
  }
  return result;
}
}  // namespace detail

/// Gated long convolution y = (u W1 + b1) * (h conv (u W2 + b2)), taps h [N, d]: 2 layers, width 2d.
template <Ring S>
constexpr Simulation<S> simulate_gated_convolution(const Affine<S>& gate, const Affine<S>& inner, const Matrix<S>& taps) {
  constexpr const char* where = "theory::simulate_gated_convolution";
  const Index n = taps.rows(), d = taps.width();
  detail::require_affine(where, gate, d, d);
  detail::require_affine(where, inner, d, d);
  Simulation<S> result{Stack<S>(n, 2 * d), d, d};
  Program<S> project, multiply;
  for (Index c = 0; c < d; ++c) {
    project.lin(d + c, inner.form(c), inner.constant(c));
    multiply.gate(d + c, gate.form(c), gate.constant(c), detail::filter(taps, c));
  }
  result.stack.then(std::move(project));
  result.stack.then(std::move(multiply));
  return result;
}
/// The same with the convolution of u itself, y = (u W1 + b1) * (h conv u + b2), b2 [1, d] or empty for none: this is a Coyote
/// layer, 1 layer, width d.
template <Ring S>
constexpr Simulation<S> simulate_gated_convolution(const Affine<S>& gate, const Matrix<S>& taps, const Matrix<S>& bias = {}) {
  constexpr const char* where = "theory::simulate_gated_convolution";
  const Index n = taps.rows(), d = taps.width();
  detail::require_affine(where, gate, d, d);
  if (bias.size() > 0) require_shape(where, "a bias", bias.view(), 1, d);
  Simulation<S> result{Stack<S>(n, d), 0, d};
  Program<S> multiply;
  for (Index c = 0; c < d; ++c) {
    multiply.gate(c, gate.form(c), gate.constant(c), detail::filter(taps, c), bias.size() == 0 ? S{} : bias(0, c));
  }
  result.stack.then(std::move(multiply));
  return result;
}

/// The weights of an H3 with heads of e channels. A skip belongs to tap 0 of its filter.
template <Ring S>
struct H3Weights {
  Index head = 1;          ///< e
  Affine<S> q, k, v, out;  ///< [d, d]
  Matrix<S> shift;         ///< taps [N, d], one filter per channel of k, D_k added to tap 0
  Matrix<S> diagonal;      ///< taps [N, d/e], one filter per head: sum_s c_s a_s^t b_s, D added to tap 0
};

/// H3: kbar = shift conv k; z[a,b] = diagonal_g conv (kbar[ge+a] v[ge+b]); o[ge+b] = sum_a q[ge+a] z[a,b]; y = o W_o + b_o.
/// 4 layers, 2 of them gate layers, width d (1 + e). Errors: shapes that do not fit, a width that e does not divide.
template <Ring S>
constexpr Simulation<S> simulate_h3(const H3Weights<S>& weights) {
  constexpr const char* where = "theory::simulate_h3";
  const Index n = weights.shift.rows(), d = weights.shift.width(), e = weights.head;
  if (e < 1 || d % e != 0) throw Error(where, "heads that divide the width", words("heads of ", e, " channels, width ", d));
  for (const Affine<S>* affine : {&weights.q, &weights.k, &weights.v, &weights.out}) detail::require_affine(where, *affine, d, d);
  require_shape(where, "diagonal taps", weights.diagonal.view(), n, d / e);
  const auto cell = [&](Index ka, Index b) { return d + ka * e + b; };  // ka = g e + a
  Simulation<S> result{Stack<S>(n, d * (1 + e)), 0, d};
  Program<S> keys, values, queries, output;
  for (Index ka = 0; ka < d; ++ka) {
    const Index g = ka / e;
    for (Index b = 0; b < e; ++b) {
      const Index z = cell(ka, b), vb = g * e + b;
      keys.lin(z, weights.k.form(ka), weights.k.constant(ka));
      values.gate(z, weights.v.form(vb), weights.v.constant(vb), detail::filter(weights.shift, ka));
      queries.gate(z, weights.q.form(ka), weights.q.constant(ka), detail::filter(weights.diagonal, g));
    }
  }
  for (Index c = 0; c < d; ++c) {
    Form<S> form;
    for (Index ka = 0; ka < d; ++ka) {
      for (Index b = 0; b < e; ++b) {
        const S w = weights.out.weight(ka / e * e + b, c);
        if (!(w == S{})) form.add(cell(ka, b), w);
      }
    }
    output.lin(c, form, weights.out.constant(c));
  }
  result.stack.then(std::move(keys));
  result.stack.then(std::move(values));
  result.stack.then(std::move(queries));
  result.stack.then(std::move(output));
  return result;
}

/// The weights of a Hyena of order k: x and taps have k entries.
template <Ring S>
struct HyenaWeights {
  Affine<S> v, out;      ///< [d, d]
  List<Affine<S>> x;     ///< [d, d] each
  List<Matrix<S>> taps;  ///< [N, d] each
};

/// Hyena of the paper: z^1 = v, z^{n+1} = x^n * (h^n conv z^n) for n = 1 .. k, y = z^{k+1} W_o + b_o.
/// k + 2 layers, k of them gate layers, width 2d. Errors: no order, shapes that do not fit.
template <Ring S>
constexpr Simulation<S> simulate_hyena(const HyenaWeights<S>& weights) {
  constexpr const char* where = "theory::simulate_hyena";
  const Index order = weights.x.size();
  if (order < 1 || weights.taps.size() != order) {
    throw Error(where, "as many filters as projections, 1 at least",
                words(order, " projections, ", weights.taps.size(), " filters"));
  }
  const Index n = weights.taps[0].rows(), d = weights.taps[0].width();
  detail::require_affine(where, weights.v, d, d);
  detail::require_affine(where, weights.out, d, d);
  Simulation<S> result{Stack<S>(n, 2 * d), 0, d};
  Program<S> start, output;
  for (Index c = 0; c < d; ++c) {
    start.lin(d + c, weights.v.form(c), weights.v.constant(c));
    output.lin(c, weights.out.form(c, d), weights.out.constant(c));
  }
  result.stack.then(std::move(start));
  for (Index step = 0; step < order; ++step) {
    detail::require_affine(where, weights.x[step], d, d);
    require_shape(where, "taps", weights.taps[step].view(), n, d);
    Program<S> gate;
    for (Index c = 0; c < d; ++c) {
      gate.gate(d + c, weights.x[step].form(c), weights.x[step].constant(c), detail::filter(weights.taps[step], c));
    }
    result.stack.then(std::move(gate));
  }
  result.stack.then(std::move(output));
  return result;
}

namespace detail {

/// The parameters of a model by name.
template <Ring S>
class Weights {
 public:
  template <class M>
  constexpr explicit Weights(M& model) {
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
  /// A Linear.
  constexpr Affine<S> affine(const Path& path) const { return {matrix(path / "weight"), matrix(path / "bias")}; }

 private:
  struct Named {
    Path path;
    Rows<const S> value;
  };
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
inline constexpr bool fits<DiagonalFilter> = true;
template <class F>
inline constexpr bool fits<WithSkip<F>> = fits<F>;

/// Sets the options' sizes and returns the length that the filter was made for; `length` if it serves any.
template <Ring S>
constexpr Index fit(FreeFilter::Options&, const Weights<S>& weights, const Path& path, Index) {
  return weights.view(path / "taps").rows;
}
template <Ring S>
constexpr Index fit(FirFilter::Options& options, const Weights<S>& weights, const Path& path, Index length) {
  options.count = weights.view(path / "taps").rows;
  return length;
}
template <Ring S>
constexpr Index fit(ShiftFilter::Options& options, const Weights<S>& weights, const Path& path, Index length) {
  options.states = weights.view(path / "input").rows;
  return length;
}
template <Ring S>
constexpr Index fit(DiagonalFilter::Options& options, const Weights<S>& weights, const Path& path, Index length) {
  options.modes = weights.view(path / "decay").rows;
  return length;
}
template <class Inner, Ring S>
constexpr Index fit(SkipOptions<Inner>& options, const Weights<S>& weights, const Path& path, Index length) {
  return fit(options.filter, weights, path, length);
}

/// The first `length` taps of a filter, made in the ring by the filter's own formula.
template <class F, Ring S>
constexpr Matrix<S> read_taps(const Weights<S>& weights, const Path& path, Index channels, Index length) {
  typename F::Options options;
  const Index made_for = fit(options, weights, path, length);
  if (length > made_for) throw Error("theory::simulate", words("sequences of at most ", made_for, " rows"), words(length));
  Taps<F, Reference, S> maker(channels, made_for, options, path);
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

}  // namespace detail

/// True for the mixers that `simulate` reads: Coyote<LongConv<F>> (with or without a bias per channel), Gate<Linear,
/// Chain<Linear, LongConv<F, Causal, NoBias>>>, H3<Shift, Diagonal, E> and Hyena<Order, F> of the paper, with FreeFilter,
/// FirFilter, ShiftFilter, DiagonalFilter and these with a skip.
template <class M>
inline constexpr bool can_simulate = detail::Simulated<M>::exists;

/// The Coyote stack that computes what the model computes from sequences of `length` rows, with its weights of now: equal over
/// any exact ring, within rounding over floating point. Its sizes are those of simulate_gated_convolution (1 layer of width d,
/// or 2 of width 2d), simulate_h3 and simulate_hyena. `path` is the one that the model was made with. Errors: a length that the
/// model's filters do not have; another path.
template <class M, class Backend, Ring S>
constexpr Simulation<S> simulate(Model<M, Backend, S>& model, Index length, const Path& path = {}) {
  static_assert(can_simulate<M>,
                "coyote: simulate turns Coyote<LongConv<F>>, Gate<Linear, Chain<Linear, LongConv<F, Causal, NoBias>>>, H3 and "
                "the paper's Hyena with free, FIR, shift or diagonal filters into Coyote stacks, and no other mixer");
  if constexpr (can_simulate<M>) {
    if (length < 1) throw Error("theory::simulate", "at least one row", words(length));
    return detail::Simulated<M>::read(detail::Weights<S>(model), path, length);
  } else {
    return {Stack<S>(1, 1)};  // one error is enough
  }
}

}  // namespace coyote::inline v0::theory

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/architectures/coyote.hpp"
#include "coyote/architectures/h3.hpp"
#include "coyote/architectures/hyena.hpp"
#include "coyote/architectures/linear_attention.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/reference/operations.hpp"
#include "coyote/theory/primitives.hpp"
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

/// The weights of a Hyena of order k as the public code has it. Projections and their short convolutions: x^1 .. x^k, then v.
template <Ring S>
struct HyenaPublicWeights {
  List<Affine<S>> projections;  ///< [d, d] each, k + 1 of them
  List<Matrix<S>> short_taps;   ///< [s, d] each
  List<Matrix<S>> short_bias;   ///< [1, d] each
  List<Matrix<S>> taps;         ///< [N, d] each, k - 1 of them, the skip added to tap 0
  Affine<S> out;                ///< [d, d]
};

/// Where the projections of a public Hyena are kept: all of them side by side, or folded into the gates' forms over shifted
/// copies of the input, which makes the width independent of the order.
enum class HyenaLayout { wide, narrow };

/// Hyena as coded: with p^n = s^n conv (u W^n + b^n) + c^n for every projection, z^1 = x^1 * v, z^{n+1} = x^{n+1} * (h^n conv
/// z^n) for n = 1 .. k - 1, y = z^k W_o + b_o. Wide: k + 3 layers, width (k + 1) d. Narrow: k + 4 layers, width (s + 1) d; the
/// rows before the first are 0 after the projection, so the folded bias of row i is c + b sum_{t <= i} s_t. k gate layers
/// either way. Errors: no order, shapes that do not fit.
template <Ring S>
constexpr Simulation<S> simulate_hyena_public(const HyenaPublicWeights<S>& weights, Index length,
                                              HyenaLayout layout = HyenaLayout::wide) {
  constexpr const char* where = "theory::simulate_hyena_public";
  const Index n = length, order = weights.projections.size() - 1;
  if (order < 1 || weights.short_taps.size() != order + 1 || weights.short_bias.size() != order + 1 ||
      weights.taps.size() != order - 1) {
    throw Error(where, "k + 1 projections with short convolutions and k - 1 long ones, k at least 1",
                words(order + 1, ", ", weights.short_taps.size(), ", ", weights.taps.size()));
  }
  const Index d = weights.out.weight.rows(), taps = weights.short_taps[0].rows(), window = taps < n ? taps : n;
  detail::require_affine(where, weights.out, d, d);
  for (Index m = 0; m <= order; ++m) {
    detail::require_affine(where, weights.projections[m], d, d);
    require_shape(where, "short taps", weights.short_taps[m].view(), taps, d);
    require_shape(where, "a short convolution's bias", weights.short_bias[m].view(), 1, d);
    if (m < order - 1) require_shape(where, "taps", weights.taps[m].view(), n, d);
  }
  const bool wide = layout == HyenaLayout::wide;
  const Index z = (wide ? order : taps) * d;  // the first column of z
  Simulation<S> result{Stack<S>(n, z + d), 0, d};
  /// Column c of projection m with its short convolution, as a form over the shifted copies of u.
  const auto folded = [&](Index m, Index c) {
    Form<S> form;
    for (Index t = 0; t < window; ++t) {
      for (Index a = 0; a < d; ++a) {
        const S w = weights.projections[m].weight(a, c) * weights.short_taps[m](t, c);
        if (!(w == S{})) form.add(t * d + a, w);
      }
    }
    return form;
  };
  const auto folded_bias = [&](Index m, Index c) {
    return Profile<S>::of(n, [&](Index i) {
      S sum = weights.short_bias[m](0, c);
      for (Index t = 0; t < window && t <= i; ++t) sum += weights.short_taps[m](t, c) * weights.projections[m].constant(c);
      return sum;
    });
  };
  if (wide) {
    Program<S> project, mix;
    for (Index m = 0; m <= order; ++m) {
      for (Index c = 0; c < d; ++c) {
        Impulses<S> impulses;
        for (Index t = 0; t < window; ++t) impulses.add(t, weights.short_taps[m](t, c));
        project.lin(m * d + c, weights.projections[m].form(c), weights.projections[m].constant(c));
        mix.conv(m * d + c, std::move(impulses), S(1), weights.short_bias[m](0, c));
      }
    }
    result.stack.then(std::move(project)).then(std::move(mix));
  } else {
    primitives::unfold(result.stack, d, window);
    Program<S> start;
    for (Index c = 0; c < d; ++c) start.lin(z + c, folded(order, c), folded_bias(order, c));
    result.stack.then(std::move(start));
  }
  for (Index m = 0; m < order; ++m) {
    Program<S> gate;
    for (Index c = 0; c < d; ++c) {
      Impulses<S> filter;
      if (m == 0) {
        filter.add(0, S(1));
      } else {
        filter = detail::filter(weights.taps[m - 1], c);
      }
      if (wide) {
        gate.gate(z + c, Form<S>::column(m * d + c), {}, filter);
      } else {
        gate.gate(z + c, folded(m, c), folded_bias(m, c), filter);
      }
    }
    result.stack.then(std::move(gate));
  }
  Program<S> output;
  for (Index c = 0; c < d; ++c) output.lin(c, weights.out.form(c, z), weights.out.constant(c));
  result.stack.then(std::move(output));
  return result;
}

/// The weights of a linear attention: H heads with queries and keys of f channels and values of e channels each.
template <Ring S>
struct LinearAttentionWeights {
  Index heads = 1;
  Affine<S> q, k;  ///< [d, H f]
  Affine<S> v;     ///< [d, H e]
  Affine<S> out;   ///< [H e, d']
  Matrix<S> taps;  ///< [N, H]: what a pair of rows t apart counts, gain * gamma^t
};

/// What linear attention makes of queries and keys: phi(x) = x, or (1, x, x (x) x).
enum class Features { identity, quadratic };

/// Linear attention, retention: o_i = sum_{j<=i} taps_{i-j} <phi(q_i), phi(k_j)> v_j per head, y = o W_o + b_o; not normalised.
/// With phi(x) = x: 4 layers, 2 of them gate layers, width max(d + H f e, d'). With D = 1 + f + f^2 quadratic features: 6 layers,
/// 3 of them gate layers, width max(d + 2 H D + H D e, d'). Errors: shapes that do not fit.
template <Ring S>
constexpr Simulation<S> simulate_linear_attention(const LinearAttentionWeights<S>& weights,
                                                  Features features = Features::identity) {
  constexpr const char* where = "theory::simulate_linear_attention";
  const Index n = weights.taps.rows(), d = weights.q.weight.rows(), heads = weights.heads, out = weights.out.weight.width();
  if (heads < 1 || weights.q.weight.width() % heads != 0 || weights.v.weight.width() % heads != 0) {
    throw Error(where, "heads that divide the widths of keys and values",
                words(heads, " heads, widths ", weights.q.weight.width(), " and ", weights.v.weight.width()));
  }
  const Index f = weights.q.weight.width() / heads, e = weights.v.weight.width() / heads;
  detail::require_affine(where, weights.q, d, heads * f);
  detail::require_affine(where, weights.k, d, heads * f);
  detail::require_affine(where, weights.v, d, heads * e);
  detail::require_affine(where, weights.out, heads * e, out);
  require_shape(where, "taps", weights.taps.view(), n, heads);
  const bool plain = features == Features::identity;
  const Index count = plain ? f : 1 + f + f * f;  // features of a head
  const Index queries = d, keys = d + heads * count, cells = plain ? d : d + 2 * heads * count;
  const Index width = cells + heads * count * e;
  Simulation<S> result{Stack<S>(n, width > out ? width : out), 0, out};
  if (!plain) {  // 1, then x_a, then x_a x_b: the second factor comes in a layer of its own
    Program<S> factors, squares;
    for (const bool is_key : {false, true}) {
      const Affine<S>& map = is_key ? weights.k : weights.q;
      for (Index g = 0; g < heads; ++g) {
        for (Index j = 0; j < count; ++j) {
          const Index column = (is_key ? keys : queries) + g * count + j, first = g * f + (j <= f ? j - 1 : (j - 1 - f) / f);
          if (j == 0) {
            factors.lin(column, {}, S(1));
            continue;
          }
          factors.lin(column, map.form(first), map.constant(first));
          const Index second = g * f + (j - 1 - f) % f;
          if (j > f) squares.gate(column, map.form(second), map.constant(second));
        }
      }
    }
    result.stack.then(std::move(factors)).then(std::move(squares));
  }
  Program<S> load, values, read, output;
  for (Index g = 0; g < heads; ++g) {
    for (Index a = 0; a < count; ++a) {
      const Index ka = g * count + a;
      for (Index b = 0; b < e; ++b) {
        const Index z = cells + ka * e + b, vb = g * e + b;
        const Impulses<S> filter = detail::filter(weights.taps, g);
        values.gate(z, weights.v.form(vb), weights.v.constant(vb));
        if (plain) {
          load.lin(z, weights.k.form(ka), weights.k.constant(ka));
          read.gate(z, weights.q.form(ka), weights.q.constant(ka), filter);
        } else {
          load.lin(z, Form<S>::column(keys + ka));
          read.gate(z, Form<S>::column(queries + ka), {}, filter);
        }
      }
    }
  }
  for (Index c = 0; c < out; ++c) {
    Form<S> form;
    for (Index ka = 0; ka < heads * count; ++ka) {
      for (Index b = 0; b < e; ++b) {
        const S w = weights.out.weight(ka / count * e + b, c);
        if (!(w == S{})) form.add(cells + ka * e + b, w);
      }
    }
    output.lin(c, std::move(form), weights.out.constant(c));
  }
  result.stack.then(std::move(load)).then(std::move(values)).then(std::move(read)).then(std::move(output));
  return result;
}

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

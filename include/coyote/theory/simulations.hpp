// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/theory/primitives.hpp"
#include "coyote/theory/stack.hpp"

namespace coyote::inline v0::theory {

// Stacks that compute other mixers, from weights given as matrices. simulate.hpp takes them from a model.

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

}  // namespace coyote::inline v0::theory

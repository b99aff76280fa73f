// SPDX-License-Identifier: Apache-2.0
#pragma once

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
/// The same with the convolution of u itself, y = (u W1 + b1) * (h conv u): this is a Coyote layer, 1 layer, width d.
template <Ring S>
constexpr Simulation<S> simulate_gated_convolution(const Affine<S>& gate, const Matrix<S>& taps) {
  const Index n = taps.rows(), d = taps.width();
  detail::require_affine("theory::simulate_gated_convolution", gate, d, d);
  Simulation<S> result{Stack<S>(n, d), 0, d};
  Program<S> multiply;
  for (Index c = 0; c < d; ++c) multiply.gate(c, gate.form(c), gate.constant(c), detail::filter(taps, c));
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

}  // namespace coyote::inline v0::theory

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/theory/simulate.hpp"

/// Mixers as their definitions, with plain loops over any ring, also in constant evaluation: what simulations are held against.
namespace coyote::test {

using namespace coyote::theory;

/// A stream of small numbers, negative ones included, that constant evaluation can draw too.
struct Numbers {
  std::uint64_t state = 1;
  constexpr int next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>(state >> 40) % 7 - 3;
  }
  template <Ring S>
  constexpr Matrix<S> matrix(Index rows, Index width) {
    Matrix<S> x(rows, width);
    for (S& value : x) value = S(next());
    return x;
  }
  template <Ring S>
  constexpr Affine<S> affine(Index d, bool bias = true) {
    Affine<S> result{matrix<S>(d, d), {}};
    if (bias) result.bias = matrix<S>(1, d);
    return result;
  }
};

template <Ring S>
constexpr bool equal(const Matrix<S>& a, const Matrix<S>& b) {
  if (a.rows() != b.rows() || a.width() != b.width()) return false;
  for (Index n = 0; n < a.size(); ++n) {
    if (!(a.data()[n] == b.data()[n])) return false;
  }
  return true;
}

// The definitions, as plain loops.
template <Ring S>
constexpr Matrix<S> apply(const Affine<S>& affine, const Matrix<S>& x) {
  Matrix<S> y(x.rows(), affine.weight.width());
  for (Index i = 0; i < y.rows(); ++i) {
    for (Index c = 0; c < y.width(); ++c) {
      if (affine.bias.size() > 0) y(i, c) = affine.bias(0, c);
      for (Index a = 0; a < x.width(); ++a) y(i, c) += x(i, a) * affine.weight(a, c);
    }
  }
  return y;
}
template <Ring S>
constexpr Matrix<S> convolve(const Matrix<S>& taps, const Matrix<S>& x) {
  Matrix<S> y(x.rows(), x.width());
  for (Index i = 0; i < y.rows(); ++i) {
    for (Index c = 0; c < y.width(); ++c) {
      for (Index j = 0; j <= i; ++j) y(i, c) += taps(i - j, c) * x(j, c);
    }
  }
  return y;
}
template <Ring S>
constexpr Matrix<S> multiply(const Matrix<S>& a, const Matrix<S>& b) {
  Matrix<S> y = a;
  for (Index n = 0; n < y.size(); ++n) y.data()[n] *= b.data()[n];
  return y;
}

/// H3 stepped: a delay line for the shift, one recurrence x <- a x + b kv per mode of each head's diagonal state space.
template <Ring S>
struct Modes {
  Matrix<S> a, b, c, skip;  // [heads, modes], skip [1, heads]
};
template <Ring S>
constexpr Matrix<S> h3_recurrence(const H3Weights<S>& w, const Modes<S>& modes, const Matrix<S>& u) {
  const Index n = u.rows(), d = u.width(), e = w.head, count = modes.a.width();
  const Matrix<S> q = apply(w.q, u), k = apply(w.k, u), v = apply(w.v, u);
  Matrix<S> state(d * e, count), o(n, d);
  for (Index i = 0; i < n; ++i) {
    for (Index ka = 0; ka < d; ++ka) {
      S kbar{};
      for (Index t = 0; t <= i; ++t) kbar += w.shift(t, ka) * k(i - t, ka);
      const Index g = ka / e;
      for (Index b = 0; b < e; ++b) {
        const S kv = kbar * v(i, g * e + b);
        S z = modes.skip(0, g) * kv;
        for (Index s = 0; s < count; ++s) {
          S& x = state(ka * e + b, s);
          x = modes.a(g, s) * x + modes.b(g, s) * kv;
          z += modes.c(g, s) * x;
        }
        o(i, g * e + b) += q(i, ka) * z;
      }
    }
  }
  return apply(w.out, o);
}

template <Ring S>
struct H3Case {
  H3Weights<S> weights;
  Modes<S> modes;
};
template <Ring S>
constexpr H3Case<S> draw_h3(Numbers& draws, Index n, Index d, Index e, Index count) {
  H3Case<S> result;
  H3Weights<S>& w = result.weights;
  w.head = e;
  w.q = draws.affine<S>(d);
  w.k = draws.affine<S>(d);
  w.v = draws.affine<S>(d);
  w.out = draws.affine<S>(d);
  w.shift = draws.matrix<S>(n, d);
  Modes<S>& m = result.modes;
  m.a = draws.matrix<S>(d / e, count);
  m.b = draws.matrix<S>(d / e, count);
  m.c = draws.matrix<S>(d / e, count);
  m.skip = draws.matrix<S>(1, d / e);
  w.diagonal = Matrix<S>(n, d / e);
  for (Index g = 0; g < d / e; ++g) {
    for (Index s = 0; s < count; ++s) {
      S power = m.c(g, s) * m.b(g, s);
      for (Index t = 0; t < n; ++t, power *= m.a(g, s)) w.diagonal(t, g) += power;
    }
    w.diagonal(0, g) += m.skip(0, g);
  }
  return result;
}

/// The public code's order of work: project, convolve shortly (zeros before the first row come after the projection's bias),
/// then x^1 * v, and x^{n+1} * (h^n conv z) for each filter.
template <Ring S>
constexpr Matrix<S> hyena_public(const HyenaPublicWeights<S>& w, const Matrix<S>& u) {
  const auto projected = [&](Index m) {
    const Matrix<S> p = apply(w.projections[m], u);
    Matrix<S> y(p.rows(), p.width());
    for (Index i = 0; i < y.rows(); ++i) {
      for (Index c = 0; c < y.width(); ++c) {
        y(i, c) = w.short_bias[m](0, c);
        for (Index t = 0; t <= i && t < w.short_taps[m].rows(); ++t) y(i, c) += w.short_taps[m](t, c) * p(i - t, c);
      }
    }
    return y;
  };
  const Index order = w.projections.size() - 1;
  Matrix<S> z = multiply(projected(0), projected(order));
  for (Index m = 1; m < order; ++m) z = multiply(projected(m), convolve(w.taps[m - 1], z));
  return apply(w.out, z);
}
template <Ring S>
constexpr HyenaPublicWeights<S> draw_hyena_public(Numbers& draws, Index order, Index n, Index d, Index taps) {
  HyenaPublicWeights<S> w;
  for (Index m = 0; m <= order; ++m) {
    w.projections.emplace(draws.affine<S>(d));
    w.short_taps.emplace(draws.matrix<S>(taps, d));
    w.short_bias.emplace(draws.matrix<S>(1, d));
    if (m < order - 1) w.taps.emplace(draws.matrix<S>(n, d));
  }
  w.out = draws.affine<S>(d);
  return w;
}

/// Linear attention as a recurrence: a table of features times values for every head.
template <Ring S>
constexpr Matrix<S> linear_attention(const LinearAttentionWeights<S>& w, const Matrix<S>& gamma, bool quadratic,
                                     const Matrix<S>& u) {
  const Index heads = w.heads, f = w.q.weight.width() / heads, e = w.v.weight.width() / heads;
  const Matrix<S> q = apply(w.q, u), k = apply(w.k, u), v = apply(w.v, u);
  const auto features = [&](const Matrix<S>& x, Index i, Index g) {
    List<S> phi;
    if (quadratic) phi.emplace(S(1));
    for (Index a = 0; a < f; ++a) phi.emplace(x(i, g * f + a));
    for (Index a = 0; quadratic && a < f; ++a) {
      for (Index b = 0; b < f; ++b) phi.emplace(x(i, g * f + a) * x(i, g * f + b));
    }
    return phi;
  };
  Matrix<S> o(u.rows(), heads * e);
  for (Index g = 0; g < heads; ++g) {
    Matrix<S> state(quadratic ? 1 + f + f * f : f, e);
    for (Index i = 0; i < u.rows(); ++i) {
      const List<S> fk = features(k, i, g), fq = features(q, i, g);
      for (Index a = 0; a < state.rows(); ++a) {
        for (Index b = 0; b < e; ++b) {
          state(a, b) = gamma(0, g) * state(a, b) + fk[a] * v(i, g * e + b);
          o(i, g * e + b) += fq[a] * state(a, b);
        }
      }
    }
  }
  return apply(w.out, o);
}
template <Ring S>
constexpr LinearAttentionWeights<S> draw_linear_attention(Numbers& draws, Index heads, Index n, Index d, Index f, Index e,
                                                          Index out, const Matrix<S>& gamma) {
  const auto affine = [&](Index from, Index to) { return Affine<S>{draws.matrix<S>(from, to), draws.matrix<S>(1, to)}; };
  LinearAttentionWeights<S> w{
      heads, affine(d, heads * f), affine(d, heads * f), affine(d, heads * e), affine(heads * e, out), Matrix<S>(n, heads)};
  for (Index g = 0; g < heads; ++g) {
    S power(1);
    for (Index t = 0; t < n; ++t, power *= gamma(0, g)) w.taps(t, g) = power;
  }
  return w;
}

}  // namespace coyote::test

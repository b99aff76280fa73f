// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/theory/simulate.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "coyote/operations/cpu/operations.hpp"
#include "coyote/theory/prime_field.hpp"
#include "support/conformance.hpp"

using namespace coyote;
using namespace coyote::theory;

namespace {

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

constexpr bool h3_is_exact() {
  Numbers draws{5};
  const H3Case<Field> h3 = draw_h3<Field>(draws, 4, 2, 2, 1);
  const Matrix<Field> u = draws.matrix<Field>(4, 2);
  const Simulation<Field> simulation = simulate_h3(h3.weights);
  const StackSize size = simulation.stack.size();
  return size.layers == 4 && size.gate_layers == 2 && size.width == 6 &&
         equal(simulation.run(u), h3_recurrence(h3.weights, h3.modes, u));
}
static_assert(h3_is_exact());

template <Ring S>
void check_size(const Simulation<S>& simulation, Index layers, Index gate_layers, Index width, Index length) {
  const StackSize size = simulation.stack.size();
  CHECK(size.layers == layers);
  CHECK(size.gate_layers == gate_layers);
  CHECK(size.width == width);
  CHECK(size.length == length);
}

}  // namespace

TEST_CASE_TEMPLATE("a gated long convolution is two layers, or one", S, Field, long) {
  Numbers draws{1};
  for (const Index n : {1, 2, 5, 8}) {
    for (const Index d : {1, 3, 4}) {
      const Affine<S> gate = draws.affine<S>(d), inner = draws.affine<S>(d, n % 2 == 0);
      const Matrix<S> taps = draws.matrix<S>(n, d), u = draws.matrix<S>(n, d);
      const auto two = simulate_gated_convolution(gate, inner, taps);
      const Matrix<S> wanted = multiply(apply(gate, u), convolve(taps, apply(inner, u)));
      CHECK(equal(two.run(u), wanted));
      check_size(two, 2, 1, 2 * d, n);
      const auto one = simulate_gated_convolution(gate, taps);
      CHECK(equal(one.run(u), multiply(apply(gate, u), convolve(taps, u))));
      check_size(one, 1, 1, d, n);
      Matrix<S> off = wanted;
      off(n - 1, d - 1) += S(1);
      CHECK(!equal(two.run(u), off));
    }
  }
}

TEST_CASE_TEMPLATE("H3 is four layers of width d (1 + e), against its recurrence", S, Field, long) {
  Numbers draws{2};
  for (const Index e : {1, 2, 3}) {
    for (const Index n : {1, 4, 6}) {
      const Index d = 2 * e;
      const H3Case<S> h3 = draw_h3<S>(draws, n, d, e, 2);
      const Matrix<S> u = draws.matrix<S>(n, d);
      const auto simulation = simulate_h3(h3.weights);
      const Matrix<S> wanted = h3_recurrence(h3.weights, h3.modes, u);
      CHECK(equal(simulation.run(u), wanted));
      CHECK(!equal(Matrix<S>(n, d), wanted));
      check_size(simulation, 4, 2, d * (1 + e), n);
      H3Weights<S> other = h3.weights;  // one wrong tap shows
      other.diagonal(0, 0) += S(1);
      CHECK(!equal(simulate_h3(other).run(u), wanted));
    }
  }
}

TEST_CASE_TEMPLATE("Hyena of any order is order + 2 layers of width 2 d", S, Field, long) {
  Numbers draws{3};
  for (Index order = 1; order <= 4; ++order) {
    for (const Index n : {1, 3, 6}) {
      const Index d = 3;
      HyenaWeights<S> w{draws.affine<S>(d), draws.affine<S>(d, false), {}, {}};
      for (Index step = 0; step < order; ++step) {
        w.x.emplace(draws.affine<S>(d));
        w.taps.emplace(draws.matrix<S>(n, d));
      }
      const Matrix<S> u = draws.matrix<S>(n, d);
      Matrix<S> z = apply(w.v, u);
      for (Index step = 0; step < order; ++step) z = multiply(apply(w.x[step], u), convolve(w.taps[step], z));
      const auto simulation = simulate_hyena(w);
      CHECK(equal(simulation.run(u), apply(w.out, z)));
      check_size(simulation, order + 2, order, 2 * d, n);
    }
  }
}

namespace {

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

constexpr bool hyena_public_is_exact() {
  Numbers draws{12};
  const auto w = draw_hyena_public<Field>(draws, 2, 4, 2, 3);
  const Matrix<Field> u = draws.matrix<Field>(4, 2);
  return equal(simulate_hyena_public(w, 4).run(u), hyena_public(w, u));
}
static_assert(hyena_public_is_exact());

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

}  // namespace

TEST_CASE_TEMPLATE("the public Hyena is k + 3 layers of width (k + 1) d, or k + 4 of width (s + 1) d", S, Field, long) {
  Numbers draws{13};
  for (Index order = 1; order <= 3; ++order) {
    for (const Index n : {1, 2, 6}) {
      for (const Index taps : {1, 3}) {
        const Index d = 2;
        const auto w = draw_hyena_public<S>(draws, order, n, d, taps);
        const Matrix<S> u = draws.matrix<S>(n, d), wanted = hyena_public(w, u);
        const auto wide = simulate_hyena_public(w, n), narrow = simulate_hyena_public(w, n, HyenaLayout::narrow);
        CHECK(equal(wide.run(u), wanted));
        CHECK(equal(narrow.run(u), wanted));
        check_size(wide, order + 3, order, (order + 1) * d, n);
        check_size(narrow, order + 4, order, (taps + 1) * d, n);
        HyenaPublicWeights<S> other = w;
        other.out.bias(0, 0) += S(1);
        CHECK(!equal(simulate_hyena_public(other, n).run(u), wanted));
        CHECK(!equal(simulate_hyena_public(other, n, HyenaLayout::narrow).run(u), wanted));
      }
    }
  }
  CHECK_THROWS_AS(simulate_hyena_public(HyenaPublicWeights<S>{}, 2), Error);
}

TEST_CASE_TEMPLATE("linear attention is 4 layers of width d + H f e, with quadratic features 6", S, Field, long) {
  Numbers draws{14};
  for (const Index heads : {1, 2}) {
    for (const Index n : {1, 2, 5}) {
      for (const Index f : {1, 2, 3}) {
        const Index d = 3, e = 2, out = 3;
        Matrix<S> gamma = draws.matrix<S>(1, heads);
        gamma(0, 0) = S(1);
        const auto w = draw_linear_attention<S>(draws, heads, n, d, f, e, out, gamma);
        const Matrix<S> u = draws.matrix<S>(n, d);
        for (const bool quadratic : {false, true}) {
          const auto simulation = simulate_linear_attention(w, quadratic ? Features::quadratic : Features::identity);
          const Matrix<S> wanted = linear_attention(w, gamma, quadratic, u);
          const Index count = quadratic ? 1 + f + f * f : f;
          CHECK(equal(simulation.run(u), wanted));
          check_size(simulation, quadratic ? 6 : 4, quadratic ? 3 : 2,
                     d + heads * count * e + (quadratic ? 2 * heads * count : 0), n);
          LinearAttentionWeights<S> other = w;
          other.out.bias(0, out - 1) += S(1);
          CHECK(!equal(simulate_linear_attention(other).run(u), linear_attention(w, gamma, false, u)));
          CHECK(!equal(simulation.run(u), linear_attention(w, gamma, !quadratic, u)));
        }
      }
    }
  }
  auto w = draw_linear_attention<S>(draws, 2, 3, 3, 1, 1, 2, Matrix<S>(1, 2));
  w.heads = 3;
  CHECK_THROWS_AS(simulate_linear_attention(w), Error);
}

TEST_CASE("shapes that do not fit are errors") {
  Numbers draws{4};
  H3Weights<long> h3 = draw_h3<long>(draws, 3, 4, 2, 1).weights;
  h3.head = 3;
  CHECK_THROWS_AS(simulate_h3(h3), Error);
  h3.head = 4;
  CHECK_THROWS_AS(simulate_h3(h3), Error);
  CHECK_THROWS_AS(simulate_hyena(HyenaWeights<long>{}), Error);
  CHECK_THROWS_AS(simulate_gated_convolution(draws.affine<long>(3), draws.matrix<long>(4, 2)), Error);
}

namespace {

/// A model with small random weights, what it makes of a random input, and the stack made of it.
template <class M, Ring S>
struct Parity {
  Matrix<S> wanted, made;
  StackSize size;
  constexpr bool holds() const { return equal(made, wanted); }
};
template <class M, Ring S>
constexpr Parity<M, S> compare(Numbers& draws, Index width, Index made_for, Index n, const typename M::Options& options = {},
                               Path path = {}, bool spoil = false) {
  auto model = Model<M, Reference, S>::blank({width, made_for}, options, path);
  auto fill = [&](const Path&, Parameter<S>& p) {
    for (Index r = 0; r < p.rows; ++r) {
      for (Index c = 0; c < p.columns; ++c) p.value(r, c) = S(draws.next());
    }
  };
  model.visit(fill);
  const Matrix<S> u = draws.matrix<S>(n, width);
  const Simulation<S> simulation = simulate(model, n, path);
  if (spoil) {  // one more in the bias of the last parameters that have one shows in the output
    auto add = [&](const Path& name, Parameter<S>& p) {
      if (name.view() == "1.bias") p.value(0, 0) += S(1);
    };
    model.visit(add);
  }
  Matrix<S> y(n, width);
  Context<Reference> context;
  model.forward(context, {.sequences = 1, .length = n}, u, y);
  return {std::move(y), simulation.run(u), simulation.stack.size()};
}

constexpr bool coyote_model_is_exact() {
  Numbers draws{6};
  return compare<Coyote<LongConv<FreeFilter>>, Field>(draws, 2, 3, 3).holds();
}
static_assert(coyote_model_is_exact());
constexpr bool retention_model_is_exact() {
  Numbers draws{15};
  return compare<Retention<1>, Field>(draws, 2, 3, 3).holds();
}
static_assert(retention_model_is_exact());

static_assert(can_simulate<Coyote<LongConv<>>> && can_simulate<H3<FirFilter, DiagonalFilter, 2>> &&
              can_simulate<H3<ShiftFilter, DiagonalFilter>> && can_simulate<Hyena<3, FreeFilter>> && can_simulate<Hyena<2>> &&
              can_simulate<HyenaPublic<1>> && can_simulate<HyenaPublic<3>> && can_simulate<H3Public> &&
              can_simulate<LinearAttention<4>> && can_simulate<Retention<2>>);
static_assert(!can_simulate<Coyote<ShortConv<3>>> && !can_simulate<Coyote<LongConv<FreeFilter, Cyclic>>> &&
              !can_simulate<Linear> && !can_simulate<Chain<Linear, Linear>> &&
              !can_simulate<Chain<Gate<Linear, Linear>, Linear>>);

bool is_zero(const auto& matrix) {
  return std::all_of(matrix.begin(), matrix.end(), [](const auto& x) { return x == std::remove_cvref_t<decltype(x)>{}; });
}

template <class M, Ring S>
void check_model(Index layers, Index gate_layers, Index factor, Index width, const typename M::Options& options = {}) {
  Numbers draws{7};
  for (const Index n : {1, 2, 5}) {
    for (const Index made_for : {n, n + 3}) {
      const auto parity = compare<M, S>(draws, width, made_for, n, options);
      CHECK(parity.holds());
      CHECK(!(n == 5 && is_zero(parity.wanted)));
      CHECK(parity.size.layers == layers);
      CHECK(parity.size.gate_layers == gate_layers);
      CHECK(parity.size.width == factor * width);
      CHECK(parity.size.length == n);
    }
  }
  CHECK(compare<M, S>(draws, width, 4, 4, options, "layers.0.mixer").holds());
}

}  // namespace

TEST_CASE_TEMPLATE("a Coyote model and a gated long convolution as stacks", S, Field, long) {
  check_model<Coyote<LongConv<FreeFilter>>, S>(1, 1, 1, 3);
  check_model<Coyote<LongConv<WithSkip<DiagonalFilter>, Causal, NoBias>>, S>(1, 1, 1, 3);
  check_model<Gate<Linear, Chain<Linear, LongConv<FreeFilter, Causal, NoBias>>>, S>(2, 1, 2, 3);
}

TEST_CASE_TEMPLATE("H3 models as stacks", S, Field, long) {
  using Plain = H3<FirFilter, DiagonalFilter>;
  using Heads = H3<FirFilter, DiagonalFilter, 2>;
  check_model<Plain, S>(4, 2, 2, 3);
  check_model<Heads, S>(4, 2, 3, 4);
  check_model<H3<ShiftFilter, DiagonalFilter, 3>, S>(4, 2, 4, 3);
  typename Heads::Options options;
  h3_shift(options).count = 2;
  h3_diagonal(options).modes = 3;
  check_model<Heads, S>(4, 2, 3, 4, options);
  Numbers draws{8};
  CHECK(!compare<Heads, S>(draws, 4, 4, 4, {}, {}, true).holds());
}

TEST_CASE_TEMPLATE("Hyena models as stacks", S, Field, long) {
  check_model<Hyena<1, FreeFilter>, S>(3, 1, 2, 3);
  check_model<Hyena<2, FreeFilter>, S>(4, 2, 2, 3);
  check_model<Hyena<3, FreeFilter>, S>(5, 3, 2, 3);
  Numbers draws{9};
  CHECK(!compare<Hyena<2, FreeFilter>, S>(draws, 3, 4, 4, {}, {}, true).holds());
}

TEST_CASE_TEMPLATE("public Hyena models as stacks", S, Field, long) {
  check_model<HyenaPublic<1, FreeFilter>, S>(4, 1, 2, 3);
  check_model<HyenaPublic<2, FreeFilter>, S>(5, 2, 3, 3);
  check_model<HyenaPublic<3, FirFilter>, S>(6, 3, 4, 2);
  Numbers draws{10};
  CHECK(!compare<HyenaPublic<2, FreeFilter>, S>(draws, 3, 4, 4, {}, {}, true).holds());
}

TEST_CASE_TEMPLATE("linear attention and retention models as stacks", S, Field, long) {
  check_model<LinearAttention<1>, S>(4, 2, 2, 3);
  check_model<LinearAttention<2>, S>(4, 2, 3, 4);
  check_model<Retention<3>, S>(4, 2, 4, 3);
  check_model<LinearAttention<2, WithSkip<DiagonalFilter>>, S>(4, 2, 3, 4);
  Numbers draws{11};
  CHECK(!compare<Retention<2>, S>(draws, 4, 4, 4, {}, {}, true).holds());
}

namespace {

/// A float or double model as it is after initialisation, stirred, and its stack: within the tolerance table, and a tenth of a
/// thousandth beside it is told.
template <class M, class S>
void check_trained(Index width, Index made_for, Index n) {
  Model<M, Cpu, S> model({width, made_for}, Seed{3});
  auto stir = [](const Path& path, auto& p) {
    const Stream draws(Seed{5}, Purpose::test, path.hash());
    for (Index r = 0; r < p.rows; ++r) {
      for (Index c = 0; c < p.columns; ++c) {
        p.value(r, c) += static_cast<S>(0.3 * draws.normal(static_cast<std::uint64_t>(r * p.columns + c)));
      }
    }
  };
  model.visit(stir);
  const Matrix<S> u = test::random_matrix<S>(n, width, 1);
  Matrix<S> y(n, width);
  Context<Cpu> context(1);
  model.forward(context, {.sequences = 1, .length = n}, u, y);
  Matrix<S> made = simulate(model, n).run(u);
  CHECK(test::relative_error(made, y) <= test::Tolerance<S>::forward);
  for (S& x : made) x *= static_cast<S>(1 + 100 * test::Tolerance<S>::forward);
  CHECK_FALSE(test::relative_error(made, y) <= test::Tolerance<S>::forward);
  CHECK_FALSE(test::relative_error(Matrix<S>(n, width), y) <= test::Tolerance<S>::forward);
}

}  // namespace

TEST_CASE_TEMPLATE("models with real weights, whatever makes their taps, are their stacks within the tolerance", S, float,
                   double) {
  for (const Index n : {1, 2, 17, 40}) {
    check_trained<Coyote<LongConv<ImplicitFilter>>, S>(4, 40, n);
    check_trained<H3Public, S>(4, 40, n);
    check_trained<Hyena<2>, S>(3, 40, n);
    check_trained<HyenaPublic<2>, S>(3, 40, n);
    check_trained<HyenaPublic<3>, S>(3, 40, n);
    check_trained<LinearAttention<2>, S>(4, 40, n);
    check_trained<Retention<2>, S>(4, 40, n);
  }
}

TEST_CASE("a model that does not fit its simulation is an error") {
  auto model = Model<Hyena<2, FreeFilter>, Reference, long>::blank({2, 4});
  CHECK_THROWS_AS(simulate(model, 0), Error);
  CHECK_THROWS_AS(simulate(model, 5), Error);
  CHECK_THROWS_AS(simulate(model, 4, "elsewhere"), Error);
}

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/theory/simulate.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "coyote/operations/cpu/operations.hpp"
#include "coyote/theory/prime_field.hpp"
#include "support/conformance.hpp"
#include "support/mixer_loops.hpp"

using namespace coyote;
using namespace coyote::theory;
using namespace coyote::test;

namespace {

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
  const Matrix<S> u = random_matrix<S>(n, width, 1);
  Matrix<S> y(n, width);
  Context<Cpu> context(1);
  model.forward(context, {.sequences = 1, .length = n}, u, y);
  Matrix<S> made = simulate(model, n).run(u);
  CHECK(relative_error(made, y) <= Tolerance<S>::forward);
  for (S& x : made) x *= static_cast<S>(1 + 100 * Tolerance<S>::forward);
  CHECK_FALSE(relative_error(made, y) <= Tolerance<S>::forward);
  CHECK_FALSE(relative_error(Matrix<S>(n, width), y) <= Tolerance<S>::forward);
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

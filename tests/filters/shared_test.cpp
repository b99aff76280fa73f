// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/filters/shared.hpp"

#include "coyote/combinators/sum.hpp"
#include "coyote/filters/decay.hpp"
#include "coyote/filters/free.hpp"
#include "coyote/filters/implicit.hpp"
#include "coyote/filters/skip.hpp"
#include "coyote/mixers/identity.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/taps.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// Channel c has the taps of channel c / Share of the same filter for fewer channels.
template <Index Share, class F>
void repeats(const typename F::Options& options = {}) {
  const Index heads = 3, n = 6;
  TapsBench<SharedFilter<Share, F>, Cpu, double> shared(heads * Share, n, options);
  TapsBench<F, Cpu, double> alone(heads, n, options);
  const Matrix<double> taps = shared.taps(n), head = alone.taps(n);
  bool differ = false;
  for (Index t = 0; t < n; ++t) {
    for (Index c = 0; c < heads * Share; ++c) {
      CHECK(taps(t, c) == head(t, c / Share));
      differ = differ || head(t, 0) != head(t, 1);
    }
  }
  CHECK(differ);
}

/// Tap 0 has the skip on top, the others are the filter's own.
template <class F>
void skips(const typename F::Options& options = {}) {
  const Index n = 6, d = 3;
  TapsBench<WithSkip<F>, Cpu, double> with(d, n, {.filter = options});
  TapsBench<F, Cpu, double> without(d, n, options);
  const Matrix<double> taps = with.taps(n), own = without.taps(n);
  for (Index t = 0; t < n; ++t) {
    for (Index c = 0; c < d; ++c) CHECK(taps(t, c) == (t == 0 ? own(t, c) + with.value("filter.skip")(0, c) : own(t, c)));
  }
}

/// The bounded state of a shared recurrence, and what it and a skip decode to, in integers at compile time.
constexpr bool steps_exactly() {
  const Index n = 6, d = 4;
  using M = LongConv<SharedFilter<2, WithSkip<DecayFilter>>, Causal, NoBias>;
  auto model = Model<M, Reference, long>::blank({d, n});
  auto set = [](const Path& path, auto& p) {
    for (Index c = 0; c < p.columns; ++c) p.value(0, c) = static_cast<long>(path.view().size() % 4 + 2) - 3 * c;
  };
  model.visit(set);
  Matrix<long> u(n, d), y(n, d), step(1, d);
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < d; ++c) u(i, c) = static_cast<long>(i * i + 3 * c) % 5 - 2;
  }
  Context<Reference> context;
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  auto state = model.make_state({.sequences = 1, .capacity = n});
  bool equal = state.size().scalars == d && cost<M>(d, n).state_scalars == d, nonzero = false;
  for (Index i = 0; i < n; ++i) {
    model.step(context, state, {.position = i}, std::as_const(u).view().slice(i, 1), step);
    for (Index c = 0; c < d; ++c) {
      equal = equal && step(0, c) == y(i, c);
      nonzero = nonzero || y(i, c) != 0;
    }
  }
  return equal && nonzero;
}
static_assert(steps_exactly());

}  // namespace

TEST_CASE("shared taps are repeated, whether the filter stores, makes or steps them") {
  repeats<1, FreeFilter>();
  repeats<2, FreeFilter>();
  repeats<4, DecayFilter>();
  repeats<3, ImplicitFilter>();
  repeats<2, WithSkip<DecayFilter>>();
}

TEST_CASE("a skip is added to tap 0, and is a sum with the input") {
  skips<FreeFilter>();
  skips<DecayFilter>();
  skips<ImplicitFilter>();
  // With skip 1 it is Sum<LongConv, Identity>.
  const Index n = 9, d = 3;
  using Free = LongConv<FreeFilter, Causal, NoBias>;
  Model<LongConv<WithSkip<FreeFilter>, Causal, NoBias>, Cpu, double> with({d, n}, Seed{1},
                                                                          {.filter = {.skip = Init::constant(1)}});
  Model<Sum<Free, Identity>, Cpu, double> sum({d, n}, Seed{1});
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < d; ++c) {
      value_of<double>(sum, "left.filter.taps")(i, c) = value_of<double>(with, "filter.taps")(i, c);
    }
  }
  const Matrix<double> u = random_matrix<double>(n, d, 1);
  Matrix<double> a(n, d), b(n, d);
  Context<Cpu> context(1);
  with.forward(context, Batch{.sequences = 1, .length = n}, u, a);
  sum.forward(context, Batch{.sequences = 1, .length = n}, u, b);
  CHECK(relative_error(a, b) <= 1e-12);
  check_controls(b, 1e-12);
}

TEST_CASE("shared filters and skips do what a mixer owes") {
  conforms<LongConv<SharedFilter<3, FreeFilter>>, Cpu, double>({.width = 6});
  conforms<LongConv<SharedFilter<2, WithSkip<DecayFilter>>>, Reference, double>({.width = 4});
  conforms<LongConv<WithSkip<FreeFilter>>, Cpu, double>({.width = 3});
}

TEST_CASE("a width that the heads do not divide is refused; rings are kept, reals too") {
  CHECK_THROWS_WITH_AS((TapsBench<SharedFilter<4, DecayFilter>, Cpu, float>(6, 8)),
                       "filter: required a width that 4 divides, came 6", Error);
  static_assert(is_supported<LongConv<SharedFilter<2, WithSkip<FreeFilter>>>, Reference, long>);
  static_assert(!is_supported<LongConv<SharedFilter<2, WithSkip<ImplicitFilter>>>, Reference, long>);
  static_assert(state_is_bounded<LongConv<SharedFilter<2, WithSkip<DecayFilter>>>>);
  static_assert(!state_is_bounded<LongConv<SharedFilter<2, FreeFilter>>>);
}

TEST_CASE("cost: shared filters are made once a head, skips are a product and a sum a row") {
  constexpr Index n = 9, d = 8;
  static_assert(cost<LongConv<SharedFilter<4, FreeFilter>, Causal, NoBias>>(d, n) == Cost{.parameters = n * d / 4,
                                                                                          .multiplications = d * n * (n + 1) / 2,
                                                                                          .additions = d * n * (n - 1) / 2,
                                                                                          .state_scalars = n * d});
  static_assert(cost<LongConv<SharedFilter<4, WithSkip<DecayFilter>>, Causal, NoBias>>(d, n) ==
                Cost{.parameters = 3 * d / 4, .multiplications = 3 * n * d, .additions = 2 * n * d, .state_scalars = d});
}

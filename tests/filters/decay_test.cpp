// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/filters/decay.hpp"

#include "coyote/mixers/long_conv.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/decoding.hpp"
#include "support/taps.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// Gains and decays 3, -2 and 2, -1: forward by the taps, step by the recurrence, both in integers at compile time.
constexpr bool exact() {
  const Index n = 7;
  auto model = Model<LongConv<DecayFilter, Causal, NoBias>, Reference, long>::blank({2, n});
  Index seen = 0;
  auto set = [&seen](const Path&, auto& p) {
    p.value(0, 0) = seen == 0 ? 3 : 2;
    p.value(0, 1) = seen == 0 ? -2 : -1;
    ++seen;
  };
  model.visit(set);
  return steps_exactly(model, n, 2, [](Index t, Index c) {
    long tap = c == 0 ? 3 : -2;
    for (Index k = 0; k < t; ++k) tap *= c == 0 ? 2 : -1;
    return tap;
  });
}
static_assert(exact());

}  // namespace

TEST_CASE_TEMPLATE("taps are gain * decay^t", S, float, double) {
  for (const auto& [n, d] : {std::pair<Index, Index>{1, 1}, {9, 3}, {50, 17}}) {
    TapsBench<DecayFilter, Cpu, S> bench(d, n, {.gain = Init::normal(1), .decay = Init::uniform(0.5)});
    const Rows<S> gain = bench.value("filter.gain"), decay = bench.value("filter.decay");
    Matrix<S> expected(n, d);
    for (Index t = 0; t < n; ++t) {
      for (Index c = 0; c < d; ++c) {
        expected(t, c) =
            static_cast<S>(static_cast<double>(gain(0, c)) * std::pow(static_cast<double>(decay(0, c)), static_cast<double>(t)));
      }
    }
    CHECK(relative_error(bench.taps(n), expected) <= Tolerance<S>::forward);
    check_controls(expected, Tolerance<S>::forward);
  }
}

TEST_CASE("memories begin between 2 and 256 rows, evenly on a logarithmic scale") {
  TapsBench<DecayFilter, Reference, double> bench(8, 4, {}, false), one(1, 4, {}, false);
  for (Index c = 0; c < 8; ++c) {
    CHECK(1 / (1 - bench.value("filter.decay")(0, c)) == doctest::Approx(2 * std::pow(2.0, static_cast<double>(c))));
  }
  CHECK(one.value("filter.decay")(0, 0) == 0.5);
}

TEST_CASE("a long convolution with a decay filter does what a mixer owes") {
  conforms<LongConv<DecayFilter>, Reference, double>({.width = 3});
  conforms<LongConv<DecayFilter>, Cpu, double>({.width = 2});
  conforms<LongConv<DecayFilter, Causal, NoBias>, Cpu, float>({.width = 17});
}

TEST_CASE("cost is what decoding counts") {
  constexpr Index n = 9, d = 4;
  using M = LongConv<DecayFilter, Causal, NoBias>;
  constexpr Cost expected = cost<M>(d, n);
  static_assert(expected == Cost{.parameters = 2 * d, .multiplications = 2 * n * d, .additions = n * d, .state_scalars = d});
  static_assert(state_is_bounded<M>);
  CHECK(count_decoding<M>(d, n) == Cost{.multiplications = 2 * n * d, .additions = n * d, .state_scalars = d});
}

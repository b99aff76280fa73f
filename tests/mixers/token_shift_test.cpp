// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/token_shift.hpp"

#include "coyote/mixers/part.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

/// The equation as plain loops over integers: exact.
constexpr bool exact_in_long() {
  const Index width = 3, offsets[] = {0, 4, 5, 8};
  const Batch batch{.sequences = 3, .length = 4, .offsets = offsets};
  Layer<TokenShift<2>, Reference, long> layer({width, 4}, {}, Path("shift"));
  ParameterStore<long> store;
  store.bind(layer);
  long next = 1;
  for (long& m : store.values()) m = next = (next * 5 + 3) % 17 - 8;
  Matrix<long> mix(2, width), u(8, width), y(8, 2 * width);
  Index n = 0;
  auto take = [&](const Path&, Parameter<long>& p) {
    for (Index c = 0; c < width; ++c) mix(n, c) = p.value(0, c);
    ++n;
  };
  layer.visit(take);
  for (long& x : u) x = next = (next * 7 + 5) % 23 - 11;
  Context<Reference> context;
  Layer<TokenShift<2>, Reference, long>::Saved saved;
  layer.forward(context, batch, u, y, saved);
  bool differs = false;
  for (Index s = 0; s < 3; ++s) {
    for (Index i = offsets[s]; i < offsets[s + 1]; ++i) {
      for (Index copy = 0; copy < 2; ++copy) {
        for (Index c = 0; c < width; ++c) {
          const long before = i == offsets[s] ? 0 : u(i - 1, c);
          if (y(i, copy * width + c) != mix(copy, c) * u(i, c) + (1 - mix(copy, c)) * before) return false;
          if (y(i, copy * width + c) != u(i, c)) differs = true;
        }
      }
    }
  }
  return differs;
}
static_assert(exact_in_long());

TEST_CASE("a token shift keeps every mixer's promises") {
  conforms<TokenShift<>, Reference, double>();
  conforms<TokenShift<3>, Cpu, double>();
  conforms<TokenShift<3>, Cpu, float>();
  conforms<Part<1, 3>, Cpu, double>({.width = 9});
}

TEST_CASE("facts, cost and errors") {
  static_assert(is_causal<TokenShift<>> && !is_input_dependent<TokenShift<>> && state_is_bounded<TokenShift<>>);
  static_assert(degree<TokenShift<3>> == 1 && degree<Part<0, 3>> == 1);
  static_assert(TokenShift<3>::output_width(4) == 12 && Part<2, 3>::output_width(12) == 4);
  CHECK(cost<TokenShift<3>>(4, 10) == Cost{.parameters = 12, .multiplications = 3 * 80, .additions = 3 * 40, .state_scalars = 4});
  CHECK(cost<Part<0, 3>>(12, 10) == Cost{});
  CHECK_THROWS_AS((Layer<Part<0, 3>, Reference, long>({8, 4}, {}, Path("part"))), Error);
}

}  // namespace

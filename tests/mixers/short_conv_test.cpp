// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/short_conv.hpp"

#include "coyote/operations/cpu/short_convolution.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("short convolutions keep every mixer's promises") {
  // Lengths around the number of taps: shorter, equal, one longer.
  const std::vector<Index> lengths = {3, 1, 2, 7, 4, 5};
  conforms<ShortConv<1>, Reference, double>({.width = 3, .lengths = lengths});
  conforms<ShortConv<1, NoBias>, Cpu, double>({.lengths = lengths});
  conforms<ShortConv<2>, Cpu, float>({.width = 17, .lengths = lengths});
  conforms<ShortConv<3>, Reference, double>({.width = 1, .lengths = lengths});
  conforms<ShortConv<3>, Cpu, double>({.lengths = lengths});
  conforms<ShortConv<3, PositionBias>, Cpu, double>({.width = 3, .lengths = lengths});
  conforms<ShortConv<4>, Cpu, double>({.width = 1, .lengths = lengths});
  conforms<ShortConv<4, NoBias>, Cpu, float>({.width = 3, .lengths = lengths});
}

TEST_CASE("the fast backend agrees with the definition at odd sizes") {
  for (const Index width : {1, 3, 17, 64}) {
    agrees_with_reference<ShortConv<3>, float>({.width = width, .lengths = {1, 2, 3, 4, 33, 257}});
    agrees_with_reference<ShortConv<4, PositionBias>, double>({.width = width, .lengths = {5, 1, 130}});
    agrees_with_reference<ShortConv<9, NoBias>, double>({.width = width, .lengths = {8, 9, 10, 65}});
  }
}

TEST_CASE("tap 0 meets the current row, tap k the row k before") {
  Layer<ShortConv<3>, Reference, double> layer({1, 4}, {}, "conv");
  ParameterStore<double> store;
  store.bind(layer);
  const auto parameters = parameters_of<double>(layer);
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].name == "conv.taps");
  CHECK(parameters[1].name == "conv.bias");
  for (Index k = 0; k < 3; ++k) parameters[0].value(k, 0) = k == 0 ? 1 : k == 1 ? 10 : 100;
  parameters[1].value(0, 0) = 0.5;
  Matrix<double> u(4, 1), y(4, 1);
  for (Index i = 0; i < 4; ++i) u(i, 0) = static_cast<double>(i + 1);
  Context<Reference> context;
  Layer<ShortConv<3>, Reference, double>::Saved saved;
  layer.forward(context, {.sequences = 1, .length = 4}, u, y, saved);
  const double expected[] = {1.5, 12.5, 123.5, 234.5};
  for (Index i = 0; i < 4; ++i) CHECK(y(i, 0) == expected[i]);
}

TEST_CASE("initial values lie within 1/sqrt(K), and far from the middle too") {
  Layer<ShortConv<4>, Cpu, float> layer({256, 4}, {}, "conv");
  ParameterStore<float> store;
  store.bind(layer);
  initialise(layer, Seed{1});
  float least = 0, most = 0;
  for (const float x : store.values()) {
    least = std::min(least, x);
    most = std::max(most, x);
  }
  CHECK(most <= 0.5f);
  CHECK(most >= 0.45f);
  CHECK(least >= -0.5f);
  CHECK(least <= -0.45f);
}

TEST_CASE("a bias per position bounds the length") {
  Layer<ShortConv<2, PositionBias>, Cpu, float> layer({2, 1}, {}, "conv");
  ParameterStore<float> store;
  store.bind(layer);
  Context<Cpu> context(1);
  Matrix<float> u(2, 2), y(2, 2);
  Layer<ShortConv<2, PositionBias>, Cpu, float>::Saved saved;
  CHECK_THROWS_WITH_AS(layer.forward(context, {.sequences = 1, .length = 2}, u, y, saved),
                       "conv: required sequences of at most 1 rows, came 2", Error);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/linear.hpp"

#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

using Free = LinearWith<NoBias>;
using Placed = LinearWith<PositionBias>;

TEST_CASE("linear maps keep every mixer's promises") {
  conforms<Linear, Reference, double>();
  conforms<Linear, Cpu, double>();
  conforms<Linear, Cpu, float>({.width = 17});
  conforms<Linear, Cpu, double>({.width = 1});
  conforms<Free, Cpu, double>({.width = 3});
  conforms<Placed, Reference, double>({.width = 3});
  conforms<Placed, Cpu, double>();
  conforms<Widen<3>, Cpu, double>({.width = 5});
  conforms<Narrow<2, NoBias>, Reference, double>();
  conforms<Narrow<2>, Cpu, float>({.width = 10});
}

TEST_CASE("the fast backend agrees with the definition at odd sizes") {
  for (const Index width : {1, 3, 17, 64, 129}) {
    agrees_with_reference<Linear, float>({.width = width, .lengths = {1, 33, 64, 17}});
    agrees_with_reference<Placed, double>({.width = width, .lengths = {1, 33, 5}});
    agrees_with_reference<Widen<4, NoBias>, double>({.width = width, .lengths = {31, 2}});
  }
  agrees_with_reference<Narrow<4>, double>({.width = 68, .lengths = {40, 3}});
}

TEST_CASE("y = u W + b, element by element") {
  Layer<Linear, Reference, double> layer({2, 4}, {}, "map");
  ParameterStore<double> store;
  store.bind(layer);
  const auto parameters = parameters_of<double>(layer);
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].name == "map.weight");
  CHECK(parameters[1].name == "map.bias");
  const double weight[] = {1, 2, 3, 4}, bias[] = {10, 20};
  for (Index i = 0; i < 4; ++i) parameters[0].value(i / 2, i % 2) = weight[i];
  for (Index i = 0; i < 2; ++i) parameters[1].value(0, i) = bias[i];
  Matrix<double> u(1, 2), y(1, 2);
  u(0, 0) = 5;
  u(0, 1) = 6;
  Context<Reference> context;
  Layer<Linear, Reference, double>::Saved saved;
  layer.forward(context, {.sequences = 1, .length = 1}, u, y, saved);
  CHECK(y(0, 0) == 5 * 1 + 6 * 3 + 10);
  CHECK(y(0, 1) == 5 * 2 + 6 * 4 + 20);
}

template <class M, class Backend>
void refuses(Index width, Index length, Index rows, const char* place) {
  Layer<M, Backend, double> layer({width, length}, {}, "map");
  ParameterStore<double> store;
  store.bind(layer);
  Context<Backend> context = ContextFor<Backend>::make(1);
  Matrix<double> u(rows, width), y(rows, width);
  typename Layer<M, Backend, double>::Saved saved;
  CHECK_THROWS_WITH_AS(layer.forward(context, {.sequences = 1, .length = rows}, u, y, saved), place, Error);
}

TEST_CASE("what does not fit is refused by name") {
  // A bias per position bounds the length, also where there is room for one position only.
  refuses<Placed, Cpu>(3, 4, 5, "map: required sequences of at most 4 rows, came 5");
  refuses<Placed, Reference>(3, 1, 2, "map: required sequences of at most 1 rows, came 2");
  CHECK_THROWS_WITH_AS((Layer<Narrow<2>, Cpu, float>({5, 4}, {}, "map")), "map: required a width that 2 divides, came 5", Error);
  CHECK_THROWS_WITH_AS((Layer<Linear, Cpu, float>({0, 4}, {}, "map")), "map: required a width of at least 1, came 0", Error);
  Layer<Placed, Cpu, float> layer({2, 3}, {}, "map");
  ParameterStore<float> store;
  store.bind(layer);
  Context<Cpu> context(1);
  auto state = layer.make_state({.sequences = 1, .capacity = 9});
  Matrix<float> u(1, 2), y(1, 2);
  layer.step(context, state, {.position = 2}, u, y);
  CHECK_THROWS_WITH_AS(layer.step(context, state, {.position = 3}, u, y), "map: required sequences of at most 3 rows, came 4",
                       Error);
}

}  // namespace

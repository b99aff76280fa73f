// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/long_conv.hpp"

#include "coyote/operations/cpu/long_convolution.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

using Ring = LongConv<FreeFilter, Cyclic>;
using Placed = LongConv<FreeFilter, Causal, PositionBias>;

TEST_CASE("the fast backend agrees with the definition, directly and by transforms") {
  for (const Index width : {1, 17}) {
    agrees_with_reference<LongConv<>, double>({.width = width, .lengths = {1, 2, 63, 64, 65}});
    agrees_with_reference<LongConv<>, float>({.width = width, .lengths = {130, 257, 1, 1000}}, {}, 2);
    agrees_with_reference<Ring, double>({.width = width, .lengths = {7, 64, 65, 130, 257}});
    agrees_with_reference<Placed, double>({.width = width, .lengths = {130, 3, 257}});
  }
}

/// y of one sequence of one channel, with taps and bias set.
template <class M>
std::vector<double> run(const std::vector<double>& taps, double bias, const std::vector<double>& u) {
  const auto n = static_cast<Index>(u.size());
  Layer<M, Reference, double> layer({1, static_cast<Index>(taps.size())}, {}, "conv");
  ParameterStore<double> store;
  store.bind(layer);
  const auto parameters = parameters_of<double>(layer);
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[0].name == "conv.filter.taps");
  CHECK(parameters[1].name == "conv.bias");
  for (std::size_t t = 0; t < taps.size(); ++t) parameters[0].value(static_cast<Index>(t), 0) = taps[t];
  parameters[1].value(0, 0) = bias;
  std::vector<double> y(u.size());
  Context<Reference> context;
  typename Layer<M, Reference, double>::Saved saved;
  layer.forward(context, {.sequences = 1, .length = n}, Rows<const double>(u.data(), n, 1), Rows<double>(y.data(), n, 1), saved);
  return y;
}

TEST_CASE("causal taps look back; cyclic ones go round the sequence, not the layer's length") {
  CHECK(run<LongConv<>>({1, 10, 100, 1000}, 0.5, {1, 2, 3}) == std::vector<double>{1.5, 12.5, 123.5});
  CHECK(run<Ring>({1, 10, 100, 1000}, 0.5, {1, 2, 3}) == std::vector<double>{231.5, 312.5, 123.5});
}

TEST_CASE("the layer's length bounds sequences and states") {
  Layer<LongConv<>, Cpu, float> layer({2, 3}, {}, "conv");
  ParameterStore<float> store;
  store.bind(layer);
  Context<Cpu> context(1);
  Matrix<float> u(4, 2), y(4, 2), two(2, 2);
  Layer<LongConv<>, Cpu, float>::Saved saved;
  CHECK_THROWS_WITH_AS(layer.forward(context, {.sequences = 1, .length = 4}, u, y, saved),
                       "conv: required sequences of at most 3 rows, came 4", Error);
  CHECK_THROWS_WITH_AS(layer.make_state({.sequences = 1, .capacity = 4}), "conv: required sequences of at most 3 rows, came 4",
                       Error);
  auto state = layer.make_state({.sequences = 1, .capacity = 2});
  Matrix<float> row(1, 2), out(1, 2);
  layer.step(context, state, {.position = 1}, row, out);
  CHECK_THROWS_WITH_AS(layer.step(context, state, {.position = 2}, row, out),
                       "conv: required sequences of at most 2 rows, came 3", Error);
  CHECK_THROWS_AS(layer.step(context, state, {.position = 0}, two, two), Error);  // made for one sequence
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/norm.hpp"

#include <limits>

#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("norms keep every mixer's promises") {
  conforms<LayerNorm, Reference, double>({.width = 3});
  conforms<LayerNorm, Cpu, double>({.width = 17});
  conforms<LayerNorm, Cpu, float>({.width = 64});
  conforms<RmsNorm, Reference, double>({.width = 3});
  conforms<RmsNorm, Cpu, double>({.width = 17});
  conforms<RmsNorm, Cpu, float>({.width = 5});
}

TEST_CASE("the fast backend agrees with the definition at odd sizes") {
  for (const Index width : {2, 3, 17, 64, 300}) {
    agrees_with_reference<LayerNorm, double>({.width = width, .lengths = {1, 40, 200}});
    agrees_with_reference<RmsNorm, double>({.width = width, .lengths = {1, 40, 200}});
  }
}

/// One row through a norm whose scale is 2 and whose shift, if any, is 0.5.
template <class M, class Backend>
std::vector<double> run(std::vector<double> u, double epsilon = 1e-5) {
  const auto width = static_cast<Index>(u.size());
  Layer<M, Backend, double> layer({width, 1}, {.epsilon = epsilon}, "norm");
  ParameterStore<double> store;
  store.bind(layer);
  for (auto& p : parameters_of<double>(layer)) {
    for (Index c = 0; c < width; ++c) p.value(0, c) = p.name == "norm.scale" ? 2 : 0.5;
  }
  Context<Backend> context = ContextFor<Backend>::make(1);
  typename Layer<M, Backend, double>::Saved saved;
  std::vector<double> y(u.size());
  layer.forward(context, {.sequences = 1, .length = 1}, Rows<const double>(u.data(), 1, width), Rows<double>(y.data(), 1, width),
                saved);
  return y;
}

template <class Backend>
void formulas() {
  const std::vector<double> u = {1, 2, 6};  // mean 3, variance 14/3, mean square 41/3
  const auto layer = run<LayerNorm, Backend>(u, 0.25), root = run<RmsNorm, Backend>(u, 0.25);
  for (std::size_t c = 0; c < 3; ++c) {
    CHECK(std::abs(layer[c] - (2 * (u[c] - 3) / std::sqrt(14.0 / 3 + 0.25) + 0.5)) <= 1e-14);
    CHECK(std::abs(root[c] - 2 * u[c] / std::sqrt(41.0 / 3 + 0.25)) <= 1e-14);
  }
  // A large mean does not spoil the variance; a constant row is its shift.
  const auto far = run<LayerNorm, Backend>({1e8 + 1, 1e8 + 2, 1e8 + 6}, 0);
  for (std::size_t c = 0; c < 3; ++c) CHECK(std::abs(far[c] - (2 * (u[c] - 3) / std::sqrt(14.0 / 3) + 0.5)) <= 1e-6);
  for (const double y : run<LayerNorm, Backend>({7, 7, 7})) CHECK(y == 0.5);
  for (const double y : run<RmsNorm, Backend>({0, 0})) CHECK(y == 0);
  CHECK(run<LayerNorm, Backend>({-3})[0] == 0.5);
  CHECK(std::abs(run<RmsNorm, Backend>({-3})[0] + 2) <= 1e-5);
  // Large and small rows stay finite; NaN and infinity are not hidden.
  for (const double y : run<LayerNorm, Backend>({1e150, -1e150})) CHECK(std::abs(y) <= 2.5 + 1e-9);
  for (const double y : run<RmsNorm, Backend>({1e-150, 1e-150})) CHECK(std::abs(y) <= 1e-140);
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {nan, infinity}) {
    for (const double y : run<LayerNorm, Backend>({1, bad, 2})) CHECK(std::isnan(y));
    CHECK(std::isnan(run<RmsNorm, Backend>({1, bad, 2})[1]));
  }
}

TEST_CASE("norms equal their formulas, also far out") {
  formulas<Reference>();
  formulas<Cpu>();
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/identity.hpp"

#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("the identity keeps every mixer's promises") {
  conforms<Identity, Reference, double>({.width = 1});
  conforms<Identity, Cpu, double>({.width = 17});
  conforms<Identity, Cpu, float>({.width = 64});
}

TEST_CASE("y = u to the last bit, over any ring") {
  Layer<Identity, Reference, long> layer({3, 4}, {}, "same");
  Context<Reference> context;
  Matrix<long> u(4, 3), y(4, 3);
  for (Index i = 0; i < 12; ++i) u.data()[i] = 100 - i;
  NothingSaved saved;
  layer.forward(context, {.sequences = 1, .length = 4}, u, y, saved);
  CHECK(std::equal(u.begin(), u.end(), y.begin()));
  CHECK(cost<Identity>(3, 4) == Cost{});
}

}  // namespace

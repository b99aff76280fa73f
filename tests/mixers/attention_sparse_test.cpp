// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cpu/attention.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("attention over patterns of tokens keeps every mixer's promises") {
  conforms<Attention<Heads<1>, RepeatedBigrams<2>>, Reference, double>({.width = 3, .vocabulary = 2});
  conforms<Attention<Heads<2>, RepeatedBigrams<2>>, Cpu, double>({.width = 4, .vocabulary = 2});
  conforms<Attention<Heads<3>, RepeatedBigrams<>, Rotary<100>>, Cpu, double>({.width = 6, .vocabulary = 3});
  conforms<Attention<Heads<1>, RepeatedTokens>, Cpu, double>({.width = 3, .vocabulary = 3});
  conforms<Attention<Heads<2>, RandomEdges<2>>, Cpu, double>({.width = 4});
  conforms<Attention<Heads<1>, RepeatedBigrams<4>>, Cpu, float>({.width = 17, .vocabulary = 2});
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cpu/attention.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("the fast backend agrees with the definition at odd sizes") {
  agrees_with_reference<Attention<>, double>({.width = 17, .lengths = {1, 65, 130}});
  agrees_with_reference<Attention<>, double>({.width = 1, .lengths = {33, 2}});
  agrees_with_reference<Attention<Heads<2>, Dense, Rotary<>>, float>({.width = 64, .lengths = {130, 1, 7}, .scale = 0.2}, {}, 5);
  agrees_with_reference<Attention<Heads<3>, Window<20>>, double>({.width = 9, .lengths = {19, 20, 130}});
  agrees_with_reference<Attention<Heads<2>, RepeatedBigrams<2>>, double>({.width = 10, .lengths = {257, 3}, .vocabulary = 9});
  agrees_with_reference<Attention<Heads<1>, RepeatedBigrams<>>, double>({.width = 17, .lengths = {200, 1, 3}, .vocabulary = 2});
  // Long enough for the backward pass that goes token by token.
  agrees_with_reference<Attention<Heads<2>, RepeatedBigrams<4>>, double>(
      {.width = 66, .lengths = {2003, 700, 5}, .vocabulary = 40});
  agrees_with_reference<Attention<Heads<1>, RepeatedTokens>, double>({.width = 5, .lengths = {70, 9}, .vocabulary = 30});
  agrees_with_reference<Attention<Heads<3>, RandomEdges<5>>, double>({.width = 6, .lengths = {4, 5, 130}});
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cpu/attention.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("attention over every key keeps every mixer's promises") {
  conforms<Attention<>, Reference, double>({.width = 3});
  conforms<Attention<Heads<2>>, Cpu, double>();
  conforms<Attention<Heads<3>>, Cpu, float>({.width = 21});
  conforms<Attention<Heads<3>, Dense, Rotary<100>>, Reference, double>({.width = 9, .lengths = {4, 1, 5}});
  conforms<Attention<Heads<2>, Dense, Rotary<>>, Cpu, double>({.width = 4});
}

TEST_CASE("attention over a window keeps every mixer's promises") {
  conforms<Attention<Heads<1>, Window<3>>, Cpu, double>({.width = 1});
  conforms<Attention<Heads<2>, Window<2>, Rotary<10>>, Cpu, double>({.width = 4});
}

}  // namespace

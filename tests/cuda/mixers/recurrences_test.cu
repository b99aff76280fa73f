// SPDX-License-Identifier: Apache-2.0
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/mixers/token_shift.hpp"
#include "coyote/mixers/wkv.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("short convolutions on Cuda are the Reference's") {
  for (const Index width : {1, 17, 64}) {
    agrees_with_reference<ShortConv<3>, float, Cuda>({.width = width, .lengths = {1, 2, 3, 4, 33, 257}});
    agrees_with_reference<ShortConv<4, PositionBias>, bf16, Cuda>({.width = width, .lengths = {5, 1, 130}});
    agrees_with_reference<ShortConv<9, NoBias>, float, Cuda>({.width = width, .lengths = {8, 9, 10, 65}});
  }
}

TEST_CASE("token shifts on Cuda are the Reference's") {
  for (const Index width : {1, 17, 64}) {
    agrees_with_reference<TokenShift<1>, float, Cuda>({.width = width, .lengths = {1, 2, 33}});
    agrees_with_reference<TokenShift<3>, bf16, Cuda>({.width = width, .lengths = {5, 1, 30}});
  }
}

TEST_CASE("wkv on Cuda is the Reference's") {
  for (const Index width : {1, 17, 64}) {
    agrees_with_reference<Wkv<Linear, Linear>, float, Cuda>({.width = width, .lengths = {1, 2, 33, 130}});
    agrees_with_reference<Wkv<Linear, Linear>, bf16, Cuda>({.width = width, .lengths = {5, 1, 64}});
  }
}

TEST_CASE("recurrent mixers on Cuda keep every mixer's promises") {
  conforms<ShortConv<3>, Cuda, float>({.lengths = {3, 1, 2, 7, 4}});
  conforms<ShortConv<1, PositionBias>, Cuda, float>({.width = 17, .lengths = {5, 2}});
  conforms<TokenShift<2>, Cuda, float>();
  conforms<Wkv<Linear, Linear>, Cuda, float>();
}

}  // namespace

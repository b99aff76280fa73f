// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/block.hpp"
#include "coyote/combinators/gate.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/combinators/residual.hpp"
#include "coyote/combinators/sum.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/mixers/token_shift.hpp"
#include "coyote/operations/cuda/decoding.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/cuda/norm.cuh"
#include "coyote/operations/cuda/short_convolution.cuh"
#include "coyote/operations/cuda/token_shift.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("short convolutions on Cuda") {
  holds_on_cuda<ShortConv<1>>();
  holds_on_cuda<ShortConv<3>>();
  holds_on_cuda<ShortConv<4, PositionBias>>();
  holds_on_cuda<ShortConv<9, NoBias>>();
}

TEST_CASE("combinators on Cuda") {
  holds_on_cuda<Coyote<ShortConv<3>>>();
  holds_on_cuda<Repeat<Block<Coyote<ShortConv<3>>>>>({}, {.count = 2});
  // One of a user's own making.
  holds_on_cuda<Residual<Sum<Gate<TokenShift<1>, ShortConv<2>>, Chain<Widen<2>, TokenShift<1>, Narrow<2>>>>>();
}

}  // namespace

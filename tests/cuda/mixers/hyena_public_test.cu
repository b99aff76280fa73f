// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/hyena.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("Hyena as the public code has it, on Cuda") {
  // Of one channel, nearly all of the gradient is that of one weight, a sum of which in bf16 little is left.
  holds_on_cuda<HyenaPublic<2, ImplicitFilterWith<Sine, DecayWindow, FixedPositions, NoBias>>>({.widths = {3, 40}});
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "coyote/mixers/activations.hpp"
#include "coyote/mixers/dropout.hpp"
#include "coyote/mixers/identity.hpp"
#include "coyote/mixers/norm.hpp"
#include "coyote/mixers/part.hpp"
#include "coyote/mixers/token_shift.hpp"
#include "coyote/operations/cuda/activation.cuh"
#include "coyote/operations/cuda/decoding.cuh"
#include "coyote/operations/cuda/dropout.cuh"
#include "coyote/operations/cuda/norm.cuh"
#include "coyote/operations/cuda/rowwise.cuh"
#include "coyote/operations/cuda/token_shift.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("norms on Cuda") {
  // Not rows of one or two: what is left of their gradients, when all but epsilon's part cancels, is rounding in float.
  holds_on_cuda<LayerNorm>({.widths = {3, 5, 40}});
  holds_on_cuda<RmsNorm>({.widths = {3, 5, 40}});
}

TEST_CASE("activations on Cuda") {
  holds_on_cuda<Gelu>();
  holds_on_cuda<Silu>();
  holds_on_cuda<Sigmoid>();
}

TEST_CASE("mixers that move rows on Cuda") {
  holds_on_cuda<Identity>();
  holds_on_cuda<Part<1, 3>>({.widths = {9, 3, 120}});
  holds_on_cuda<TokenShift<1>>();
  holds_on_cuda<TokenShift<3>>();
  holds_on_cuda<Dropout>({}, {.rate = 0});
}

}  // namespace

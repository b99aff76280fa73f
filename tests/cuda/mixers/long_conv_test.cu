// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/coyote.hpp"
#include "coyote/filters/free.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/operations/cuda/decoding.cuh"
#include "coyote/operations/cuda/filters.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/cuda/long_convolution.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("long convolutions on Cuda") {
  holds_on_cuda<LongConv<>>();
  holds_on_cuda<LongConv<FreeFilter, Cyclic>>();
  holds_on_cuda<LongConv<FreeFilter, Causal, PositionBias>>();
}

TEST_CASE("Coyotes with long filters on Cuda") { holds_on_cuda<Coyote<LongConv<>>>(); }

}  // namespace

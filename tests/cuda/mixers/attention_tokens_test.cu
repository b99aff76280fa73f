// SPDX-License-Identifier: Apache-2.0
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cuda/attention.cuh"
#include "coyote/operations/cuda/attention_step.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("attention to repeats on Cuda") {
  holds_on_cuda<Attention<Heads<1>, RepeatedBigrams<2>>>({.vocabulary = 2});
  holds_on_cuda<Attention<Heads<1>, RepeatedTokens>>({.vocabulary = 3});
}

TEST_CASE("attention to random keys on Cuda") { holds_on_cuda<Attention<Heads<2>, RandomEdges<2>>>({.widths = {4, 2, 40}}); }

}  // namespace

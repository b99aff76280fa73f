// SPDX-License-Identifier: Apache-2.0
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cuda/attention.cuh"
#include "coyote/operations/cuda/attention_step.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/cuda/rotary.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("attention to all keys on Cuda") {
  holds_on_cuda<Attention<>>();
  // Gradients make probabilities anew from scores and their log-sum-exp, whose rounding is an error of the exponent: scores of
  // 1e9, as inputs of 1e4 have at this width, would leave the range of float.
  holds_on_cuda<Attention<Heads<2>, Dense, Rotary<>>>({.widths = {4, 2, 64}, .bf16_slack = 1.5, .large = 1e3});
}

TEST_CASE("attention in a window on Cuda") { holds_on_cuda<Attention<Heads<1>, Window<3>>>(); }

}  // namespace

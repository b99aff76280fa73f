// SPDX-License-Identifier: Apache-2.0
#include "coyote/mixers/activations.hpp"
#include "coyote/mixers/identity.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/mlp.hpp"
#include "coyote/operations/cuda/activation.cuh"
#include "coyote/operations/cuda/decoding.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("linear maps on Cuda") {
  holds_on_cuda<Linear>();
  holds_on_cuda<LinearWith<PositionBias>>();
  holds_on_cuda<Widen<3, NoBias>>();
  holds_on_cuda<Narrow<2>>({.widths = {6, 2, 40}});
}

TEST_CASE("multilayer perceptrons on Cuda") {
  holds_on_cuda<Mlp<2>>();
  holds_on_cuda<GatedMlp<2>>();
}

}  // namespace

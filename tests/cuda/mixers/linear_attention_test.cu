// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/linear_attention.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("linear attention and retention on Cuda") {
  holds_on_cuda<LinearAttention<2>>({.widths = {4, 2, 40}});
  holds_on_cuda<Retention<2>>({.widths = {4, 2, 40}});
}

}  // namespace

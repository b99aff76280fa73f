// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/architectures/linear_attention.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("linear attention and retention on Cuda") {
  require_gpu();
  holds_on_cuda<LinearAttention<2>>({.widths = {4, 2, 40}});
  holds_on_cuda<Retention<2>>({.widths = {4, 2, 40}});
}

}  // namespace

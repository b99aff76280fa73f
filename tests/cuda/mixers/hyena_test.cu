// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/architectures/hyena.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("Hyena on Cuda") {
  require_gpu();
  holds_on_cuda<Hyena<2, FreeFilter>>();
}

}  // namespace

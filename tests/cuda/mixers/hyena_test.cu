// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/hyena.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("Hyena on Cuda") {
  holds_on_cuda<Hyena<2, FreeFilter>>();
}

}  // namespace

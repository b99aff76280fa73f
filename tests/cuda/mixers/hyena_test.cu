// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/hyena.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("Hyena on Cuda") { holds_on_cuda<Hyena<2, FreeFilter>>(); }

TEST_CASE("Hyena on Cuda as models run it") { holds_on_cuda<lowered<Hyena<2, FreeFilter>, Cuda>>(); }

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/h3.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("H3 on Cuda") { holds_on_cuda<H3Public>({.widths = {4, 2, 40}}); }

TEST_CASE("H3 on Cuda as models run it") { holds_on_cuda<lowered<H3Public, Cuda>>({.widths = {4, 40}}); }

}  // namespace

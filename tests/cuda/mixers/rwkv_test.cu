// SPDX-License-Identifier: Apache-2.0
#include "coyote/architectures/rwkv.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("RWKV-4's recurrence on Cuda") { holds_on_cuda<Wkv<Linear, Linear>>(); }

TEST_CASE("RWKV-4's time mix on Cuda") { holds_on_cuda<Rwkv>({.widths = {4, 1, 40}}, rwkv_options(1)); }

}  // namespace

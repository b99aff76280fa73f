// SPDX-License-Identifier: Apache-2.0
#include "packaging/two_units/other.hpp"

void run_elsewhere(coyote::Context<coyote::Cpu>& ctx, coyote::Rows<const float> u, coyote::Rows<float> y) {
  Net net({.width = 4, .length = 6}, coyote::Seed{7});
  net.forward(ctx, {.sequences = 2, .length = 3}, u, y);
}

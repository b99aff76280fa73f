// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <coyote/coyote.hpp>

using Net = coyote::Model<coyote::Hybrid<coyote::Dense>, coyote::Cpu, float>;

/// Makes the model again, in another unit, and runs it on two sequences of three rows.
void run_elsewhere(coyote::Context<coyote::Cpu>& ctx, coyote::Rows<const float> u, coyote::Rows<float> y);

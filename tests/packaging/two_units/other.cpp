// SPDX-License-Identifier: Apache-2.0
#include <coyote/core/context.hpp>
#include <coyote/core/safetensors.hpp>
#include <coyote/operations/cpu/simd.hpp>

int made_elsewhere(coyote::Context<coyote::Cpu>& ctx);

int made_elsewhere(coyote::Context<coyote::Cpu>& ctx) { return static_cast<int>(ctx.make<float>(2, 5).width); }

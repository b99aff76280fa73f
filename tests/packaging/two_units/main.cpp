// SPDX-License-Identifier: Apache-2.0
#include <coyote/core/context.hpp>
#include <coyote/core/safetensors.hpp>
#include <coyote/operations/cpu/simd.hpp>

int made_elsewhere(coyote::Context<coyote::Cpu>& ctx);

int main() {
  coyote::Context<coyote::Cpu> ctx(1);
  return ctx.make<float>(2, 3).width == 3 && made_elsewhere(ctx) == 5 ? 0 : 1;
}

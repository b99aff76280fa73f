// SPDX-License-Identifier: Apache-2.0
#include <coyote/core/context.hpp>
#include <coyote/core/version.hpp>
#include <coyote/operations/cpu/simd.hpp>
#include <cstdio>

int main() {
  coyote::Context<coyote::Cpu> ctx(2);
  const auto frame = ctx.frame();
  const auto x = ctx.make<float>(2, 3);
  std::printf("coyote %s\n", COYOTE_VERSION);
  return x.data != nullptr ? 0 : 1;
}

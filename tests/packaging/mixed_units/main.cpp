// SPDX-License-Identifier: Apache-2.0
// Compiled for the baseline instruction set, other.cpp for a wider one: making a context must say so.
#include <coyote/core/context.hpp>
#include <coyote/operations/cpu/unit.hpp>
#include <cstdio>
#include <string_view>

int main() {
  try {
    const coyote::Context<coyote::Cpu> ctx(1);
  } catch (const coyote::Error& error) {
    std::puts(error.what());
    const std::string_view said = error.what();
    const bool names_both = said.find("16-byte vectors") != said.npos && said.find("32-byte vectors") != said.npos;
    return names_both ? 0 : 1;
  }
  std::puts("units with different instruction sets were not noticed");
  return 1;
}

// SPDX-License-Identifier: Apache-2.0
#include <coyote/coyote.hpp>

#include "packaging/two_units/other.hpp"

/// The same model, made and run in two units, gives the same numbers, and the program links.
int main() {
  coyote::Context<coyote::Cpu> ctx(1);
  Net net({.width = 4, .length = 6}, coyote::Seed{7});
  coyote::Matrix<float> u(6, 4), here(6, 4), there(6, 4);
  for (coyote::Index i = 0; i < u.size(); ++i) u.data()[i] = static_cast<float>(i % 5) - 2;
  net.forward(ctx, {.sequences = 2, .length = 3}, u, here);
  run_elsewhere(ctx, u, there);
  bool equal = true, all_zero = true;
  for (coyote::Index i = 0; i < u.size(); ++i) {
    equal = equal && here.data()[i] == there.data()[i];
    all_zero = all_zero && here.data()[i] == 0;
  }
  return equal && !all_zero ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
#include <coyote/coyote.hpp>
#include <cstdio>

namespace cy = coyote;

int main() {
  using Mixer = cy::Hybrid<cy::Dense>;
  static_assert(cy::is_causal<Mixer> && cy::is_input_dependent<Mixer>);
  cy::Model<Mixer, cy::Cpu, float> model({.width = 8, .length = 5}, cy::Seed{1});
  cy::Context<cy::Cpu> ctx(2);
  cy::Matrix<float> u(5, 8), y(5, 8);
  u(0, 0) = 1;
  model.forward(ctx, {.sequences = 1, .length = 5}, u, y);
  std::printf("coyote %s: %g\n", COYOTE_VERSION, static_cast<double>(y(0, 0)));
  return y(0, 0) == y(0, 0) && y(0, 0) != 0 ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
#include "training_step.cuh"

using namespace coyote_benchmark;

int main(int argc, char** argv) {
  using Model = Chain<Block<HyenaPublic<2>>, Block<HyenaPublic<2>>>;
  return for_widths(argc, argv, [](Index width) { time_steps<Model, NoPositions>("hyena", width, {}); });
}

// SPDX-License-Identifier: Apache-2.0
#include "training_step.cuh"

using namespace coyote_benchmark;

int main(int argc, char** argv) {
  using Model = Chain<Block<H3Public>, Block<H3Public>>;
  return for_widths(argc, argv, [](Index width) { time_steps<Model, NoPositions>("h3", width, {}); });
}

// SPDX-License-Identifier: Apache-2.0
#include "training_step.cuh"

using namespace coyote_benchmark;

int main(int argc, char** argv) {
  using Short = Block<Residual<Coyote<ShortConv<3>>>>;
  using Model = Chain<Short, Block<Attention<Heads<1>, RepeatedBigrams<4>>>>;
  return for_widths(argc, argv, [](Index width) { time_steps<Model, NoPositions>("hybrid", width, {}); });
}

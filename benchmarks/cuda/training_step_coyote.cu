// SPDX-License-Identifier: Apache-2.0
#include "training_step.cuh"

using namespace coyote_benchmark;

int main(int argc, char** argv) {
  // The peer's coyote adds each mixer's own input, like the public experiment's.
  using Short = Block<Residual<Coyote<ShortConv<3>>>>;
  using Long = Block<Residual<Coyote<Sum<LongConv<ImplicitFilter, Causal, NoBias>, Identity>>>>;
  return for_widths(argc, argv, [](Index width) { time_steps<Chain<Short, Long>, NoPositions>("coyote", width, {}); });
}

// SPDX-License-Identifier: Apache-2.0
// Training steps of architectures whose projections of one input are one product.
#include "training_step.cuh"

using namespace coyote_benchmark;

int main(int argc, char** argv) {
  using WithH3 = Chain<Block<H3Public>, Block<H3Public>>;
  using WithHyena = Chain<Block<HyenaPublic<2>>, Block<HyenaPublic<2>>>;
  using WithRwkv = Chain<Block<Rwkv>, Block<Rwkv>>;
  return for_widths(argc, argv, [](Index width) {
    time_steps<WithH3, NoPositions>("h3", width, {});
    time_steps<WithHyena, NoPositions>("hyena", width, {});
    WithRwkv::Options options;
    std::get<0>(options.parts).mixer = rwkv_options(0);
    std::get<1>(options.parts).mixer = rwkv_options(1);
    time_steps<WithRwkv, NoPositions>("rwkv", width, options);
  });
}

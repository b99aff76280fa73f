// SPDX-License-Identifier: Apache-2.0
#include "training_step.cuh"

using namespace coyote_benchmark;

int main(int argc, char** argv) {
  using Model = Chain<Block<Rwkv>, Block<Rwkv>>;
  return for_widths(argc, argv, [](Index width) {
    Model::Options options;
    std::get<0>(options.parts).mixer = rwkv_options(0);
    std::get<1>(options.parts).mixer = rwkv_options(1);
    time_steps<Model, NoPositions>("rwkv", width, options);
  });
}

// SPDX-License-Identifier: Apache-2.0
#include "training_step.cuh"

using namespace coyote_benchmark;

int main(int argc, char** argv) {
  using Model = Chain<Block<Attention<>>, Block<Attention<>>>;
  Attention<>::Options each;
  each.dropout = 0.1;
  Model::Options options;
  std::get<0>(options.parts).mixer = std::get<1>(options.parts).mixer = each;
  return for_widths(argc, argv, [&](Index width) { time_steps<Model, Learned>("attention", width, options); });
}

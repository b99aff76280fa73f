// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/cuda.hpp"
#include "support/cuda.cuh"
#include "support/toy_task.hpp"

/// A small language model on the device, and the same by the definition.
namespace coyote::test {

using Net = Chain<Block<Attention<Heads<2>>>, Block<Mlp<>>>;
template <class S>
using OnGpu = LanguageModel<Net, Cuda, S, Learned>;
using Plain = LanguageModel<Net, Reference, double, Learned>;

template <class Model>
Model make() {
  return Model({.vocabulary = 19, .width = 16, .length = 8, .dropout = 0.1}, Seed{2});
}

}  // namespace coyote::test

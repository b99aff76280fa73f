// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/cuda.hpp"
#include "support/cuda.cuh"
#include "support/toy_task.hpp"

/// A small language model on the device, and the same by the definition.
namespace coyote::test {

using Net = Chain<Block<Attention<Heads<2>>>, Block<Gate<Chain<Linear, ShortConv<2>>, Linear>>, Block<Mlp<>>>;
template <class S>
using OnGpu = LanguageModel<Net, Cuda, S, Learned>;
using Plain = LanguageModel<Net, Reference, double, Learned>;

template <class Model>
Model make() {
  return Model({.vocabulary = 19, .width = 16, .length = 8, .dropout = 0.1}, Seed{2});
}

/// All parameters, or their gradients, in the order of their names, wherever a backend lays them.
template <class Model>
auto in_order(Model& model, bool gradients = false) {
  std::vector<parameter_t<typename Model::Scalar>> all;
  auto add = [&](const Path&, auto& p) {
    const auto m = gradients ? p.gradient : p.value;
    for (Index i = 0; i < m.rows; ++i) all.insert(all.end(), m.row(i), m.row(i) + m.width);
  };
  model.visit(add);
  return all;
}

}  // namespace coyote::test

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "train.hpp"

/// The architectures of the default preset.
namespace solve_mqar {

using namespace coyote;

using Local = Block<Coyote<ShortConv<3>>>;
using WithAttention = Chain<Local, Block<Attention<Heads<1>, Dense>>>;
using WithBigrams = Chain<Local, Block<Attention<Heads<1>, RepeatedBigrams<4>>>>;
using WithLongConv = Chain<Local, Block<Coyote<LongConv<ImplicitFilter>>>>;
using TwoAttentions = Chain<Block<Attention<>>, Block<Attention<>>>;

template <class Backend>
bool train_attention(const Job& job) {
  if (job.name == "attention") {
    train<Backend, WithAttention>(job, "Coyote<ShortConv<3>>, Attention<Heads<1>, Dense>");
  } else if (job.name == "plain-attention") {
    train<Backend, TwoAttentions, Learned>(job, "Attention, Attention, learned positions");
  } else {
    return false;
  }
  return true;
}

template <class Backend>
bool train_convolution(const Job& job) {
  if (job.name == "hybrid") {
    train<Backend, WithBigrams>(job, "Coyote<ShortConv<3>>, Attention<Heads<1>, RepeatedBigrams<4>>");
  } else if (job.name == "coyote") {
    train<Backend, WithLongConv>(job, "Coyote<ShortConv<3>>, Coyote<LongConv<ImplicitFilter>>");
  } else {
    return false;
  }
  return true;
}

}  // namespace solve_mqar

// SPDX-License-Identifier: Apache-2.0
#include <coyote/cuda.hpp>

#include "models.hpp"
#include "train.hpp"

namespace solve_mqar {

bool train_attention_on_cuda(const std::string& name, const Settings& s, std::uint64_t steps, const Monitor& monitor,
                             Outcome& out) {
  if (name == "attention") {
    train<WithAttention, NoPositions, Cuda, bf16>(name, "Coyote<ShortConv<3>>, Attention<Heads<1>, Dense>", s, steps, monitor,
                                                  out);
  } else if (name == "plain-attention") {
    train<TwoAttentions, Learned, Cuda, bf16>(name, "Attention, Attention, learned positions", s, steps, monitor, out);
  } else {
    return false;
  }
  return true;
}

}  // namespace solve_mqar

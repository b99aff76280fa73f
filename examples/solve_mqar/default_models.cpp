// SPDX-License-Identifier: Apache-2.0
#include <coyote/coyote.hpp>

#include "models.hpp"
#include "train.hpp"

namespace solve_mqar {

bool train_default(const std::string& name, const Settings& s, std::uint64_t steps, const Monitor& monitor, Outcome& out) {
  if (name == "attention") {
    train<WithAttention>(name, "Coyote<ShortConv<3>>, Attention<Heads<1>, Dense>", s, steps, monitor, out);
  } else if (name == "hybrid") {
    train<WithBigrams>(name, "Coyote<ShortConv<3>>, Attention<Heads<1>, RepeatedBigrams<4>>", s, steps, monitor, out);
  } else if (name == "coyote") {
    train<WithLongConv>(name, "Coyote<ShortConv<3>>, Coyote<LongConv<ImplicitFilter>>", s, steps, monitor, out);
  } else if (name == "plain-attention") {
    train<TwoAttentions, Learned>(name, "Attention, Attention, learned positions", s, steps, monitor, out);
  } else {
    return false;
  }
  return true;
}

}  // namespace solve_mqar

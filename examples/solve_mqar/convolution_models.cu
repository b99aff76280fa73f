// SPDX-License-Identifier: Apache-2.0
#include <coyote/cuda.hpp>

#include "models.hpp"
#include "train.hpp"

namespace solve_mqar {

bool train_convolution_on_cuda(const std::string& name, const Settings& s, std::uint64_t steps, const Monitor& monitor,
                               Outcome& out) {
  if (name == "hybrid") {
    train<WithBigrams, NoPositions, Cuda, bf16>(name, "Coyote<ShortConv<3>>, Attention<Heads<1>, RepeatedBigrams<4>>", s, steps,
                                                monitor, out);
  } else if (name == "coyote") {
    train<WithLongConv, NoPositions, Cuda, bf16>(name, "Coyote<ShortConv<3>>, Coyote<LongConv<ImplicitFilter>>", s, steps,
                                                 monitor, out);
  } else {
    return false;
  }
  return true;
}

}  // namespace solve_mqar

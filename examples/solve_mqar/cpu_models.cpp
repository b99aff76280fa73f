// SPDX-License-Identifier: Apache-2.0
#include <coyote/coyote.hpp>

#include "models.hpp"

namespace solve_mqar {
template bool train_attention<Cpu>(const Job&);
template bool train_convolution<Cpu>(const Job&);
}  // namespace solve_mqar

// SPDX-License-Identifier: Apache-2.0
#include <coyote/cuda.hpp>

#include "models.hpp"

namespace solve_mqar {
template bool train_convolution<Cuda>(const Job&);
}  // namespace solve_mqar

// SPDX-License-Identifier: Apache-2.0
#include <coyote/cuda.hpp>

#include "paper_models.hpp"

namespace solve_mqar {
template bool train_paper_hyena<Cuda>(const Job&);
}  // namespace solve_mqar

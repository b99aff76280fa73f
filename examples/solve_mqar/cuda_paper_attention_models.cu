// SPDX-License-Identifier: Apache-2.0
#include <coyote/cuda.hpp>

#include "paper_models.hpp"

namespace solve_mqar {
template bool train_paper_attention<Cuda>(const Job&);
template bool train_paper_coyote<Cuda>(const Job&);
}  // namespace solve_mqar

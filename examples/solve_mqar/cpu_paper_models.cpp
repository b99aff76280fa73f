// SPDX-License-Identifier: Apache-2.0
#include <coyote/coyote.hpp>

#include "paper_models.hpp"

namespace solve_mqar {
template bool train_paper_attention<Cpu>(const Job&);
template bool train_paper_coyote<Cpu>(const Job&);
template bool train_paper_hyena<Cpu>(const Job&);
template bool train_paper_h3<Cpu>(const Job&);
template bool train_paper_rwkv<Cpu>(const Job&);
}  // namespace solve_mqar

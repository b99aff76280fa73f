// SPDX-License-Identifier: Apache-2.0
// Rotary positions belong to attention.
// expect: coyote: a language model's own positions are NoPositions or Learned; Rotary belongs to Attention
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Positions = cy::Learned;
#else
using Positions = cy::Rotary<>;
#endif

template class cy::LanguageModel<cy::Attention<>, cy::Cpu, float, Positions>;

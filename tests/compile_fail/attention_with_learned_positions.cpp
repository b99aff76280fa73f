// SPDX-License-Identifier: Apache-2.0
// Learned positions are added to the embedding, not inside attention.
// expect: coyote: Attention takes NoPositions or Rotary<Base>; learned positions belong to LanguageModel
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::Attention<cy::Heads<2>, cy::Dense, cy::Rotary<>>;
#else
using Mixer = cy::Attention<cy::Heads<2>, cy::Dense, cy::Learned>;
#endif

template class cy::Model<Mixer, cy::Cpu, float>;

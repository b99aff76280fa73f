// SPDX-License-Identifier: Apache-2.0
// Attention has heads.
// expect: coyote: attention has at least one head
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::Attention<cy::Heads<1>>;
#else
using Mixer = cy::Attention<cy::Heads<0>>;
#endif

template class cy::Model<Mixer, cy::Cpu, float>;

// SPDX-License-Identifier: Apache-2.0
// A model is made of a mixer.
// expect: coyote: this is not a mixer: a mixer is an empty type with Parts, Options and facts
// expect near: <float
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::Linear;
#else
using Mixer = float;
#endif

template class cy::Model<Mixer, cy::Cpu, float>;

// SPDX-License-Identifier: Apache-2.0
// The parts of a chain are mixers; the message names the one that is not.
// expect: coyote: this is not a mixer: a mixer is an empty type with Parts, Options and facts
// expect near: = float|<float>
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Part = cy::Linear;
#else
using Part = float;
#endif

template class cy::Model<cy::Chain<cy::Linear, Part>, cy::Cpu, float>;

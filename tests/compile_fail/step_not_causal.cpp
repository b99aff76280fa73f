// SPDX-License-Identifier: Apache-2.0
// A mixer that reads later rows has no step.
// expect: coyote: this mixer reads later rows, so it cannot be decoded step by step
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::LongConv<>;
#else
using Mixer = cy::LongConv<cy::FreeFilter, cy::Cyclic>;
#endif

void decode(const cy::Model<Mixer, cy::Cpu, float>& model);
void decode(const cy::Model<Mixer, cy::Cpu, float>& model) { static_cast<void>(model.make_state({})); }

// SPDX-License-Identifier: Apache-2.0
// A language model must not read later rows.
// expect: coyote: a language model needs a causal mixer: this one reads later rows
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::LongConv<>;
#else
using Mixer = cy::LongConv<cy::FreeFilter, cy::Cyclic>;
#endif

template class cy::LanguageModel<Mixer, cy::Cpu, float>;

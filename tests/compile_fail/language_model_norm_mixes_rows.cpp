// SPDX-License-Identifier: Apache-2.0
// The last norm of a language model sees the labelled rows alone, so it must not look at other rows.
// expect: coyote: a language model's last norm works row by row: the loss shows it the rows with labels alone
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Norm = cy::RmsNorm;
#else
using Norm = cy::ShortConv<3>;
#endif

template class cy::LanguageModel<cy::Attention<>, cy::Cpu, float, cy::NoPositions, Norm>;

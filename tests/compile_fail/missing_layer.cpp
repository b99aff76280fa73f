// SPDX-License-Identifier: Apache-2.0
// A mixer of the user without a layer: the message names it and the backend.
// expect: coyote: this mixer has no Layer on this backend and scalar: specialise coyote::Layer for it, or choose another
// expect near: RequireLeaf<Mine, coyote::(v0::)?Cpu, float>
#include <coyote/coyote.hpp>

namespace cy = coyote;

/// Describes a mixer, but nothing says how to compute it.
struct Mine : cy::Linear {};

#ifdef COYOTE_EXPECT_OK
using Part = cy::Linear;
#else
using Part = Mine;
#endif

template class cy::LanguageModel<cy::Chain<cy::ShortConv<3>, cy::Residual<Part>>, cy::Cpu, float>;

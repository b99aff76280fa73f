// SPDX-License-Identifier: Apache-2.0
// A chain has parts.
// expect: coyote: a Chain has at least one part
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::Chain<cy::Linear>;
#else
using Mixer = cy::Chain<>;
#endif

static_assert(cy::is_causal<Mixer>);

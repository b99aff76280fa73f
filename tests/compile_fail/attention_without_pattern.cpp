// SPDX-License-Identifier: Apache-2.0
// The second argument of Attention is a pattern.
// expect: coyote: the second argument of Attention is a pattern
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::Attention<cy::Heads<2>, cy::Dense>;
#else
using Mixer = cy::Attention<cy::Heads<2>, cy::Linear>;
#endif

static_assert(cy::is_causal<Mixer>);

// SPDX-License-Identifier: Apache-2.0
// A short convolution has taps.
// expect: coyote: a ShortConv has at least one tap
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::ShortConv<1>;
#else
using Mixer = cy::ShortConv<0>;
#endif

static_assert(cy::is_causal<Mixer>);

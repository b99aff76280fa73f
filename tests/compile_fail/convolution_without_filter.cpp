// SPDX-License-Identifier: Apache-2.0
// A long convolution takes its taps from a filter.
// expect: coyote: the first argument of LongConv is a filter
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Mixer = cy::LongConv<cy::FreeFilter>;
#else
using Mixer = cy::LongConv<cy::Linear>;
#endif

static_assert(cy::is_causal<Mixer>);

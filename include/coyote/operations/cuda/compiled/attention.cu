// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/attention.cuh"

#include "coyote/mixers/patterns.hpp"

namespace coyote::inline v0 {

COYOTE_ATTENTION(, float, Dense);
COYOTE_ATTENTION(, bf16, Dense);

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/cross_entropy.cuh"

namespace coyote::inline v0 {

COYOTE_CROSS_ENTROPY(, float);
COYOTE_CROSS_ENTROPY(, bf16);

}  // namespace coyote::inline v0

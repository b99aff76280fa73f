// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/norm.cuh"

namespace coyote::inline v0 {

COYOTE_NORM(, float);
COYOTE_NORM(, bf16);

}  // namespace coyote::inline v0

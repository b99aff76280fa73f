// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/linear.cuh"

namespace coyote::inline v0 {

COYOTE_LINEAR(, float);
COYOTE_LINEAR(, bf16);

}  // namespace coyote::inline v0

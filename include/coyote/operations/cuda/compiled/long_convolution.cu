// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/long_convolution.cuh"

namespace coyote::inline v0 {

COYOTE_LONG_CONVOLUTION(, float);
COYOTE_LONG_CONVOLUTION(, bf16);

}  // namespace coyote::inline v0

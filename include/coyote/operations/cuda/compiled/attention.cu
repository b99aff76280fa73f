// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/attention.cuh"

namespace coyote::inline v0::cuda {

COYOTE_ATTENTION(, float);
COYOTE_ATTENTION(, bf16);

}  // namespace coyote::inline v0::cuda

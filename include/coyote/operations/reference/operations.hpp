// SPDX-License-Identifier: Apache-2.0
#pragma once

// All operations of the Reference backend.
#include "coyote/operations/reference/activation.hpp"
#include "coyote/operations/reference/attention.hpp"
#include "coyote/operations/reference/convolution.hpp"
#include "coyote/operations/reference/cross_entropy.hpp"
#include "coyote/operations/reference/input_conv.hpp"
#include "coyote/operations/reference/linear.hpp"
#include "coyote/operations/reference/wkv.hpp"

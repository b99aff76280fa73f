// SPDX-License-Identifier: Apache-2.0
#pragma once

// All operations of the Cpu backend.
#include "coyote/operations/cpu/activation.hpp"
#include "coyote/operations/cpu/attention.hpp"
#include "coyote/operations/cpu/cross_entropy.hpp"
#include "coyote/operations/cpu/dropout.hpp"
#include "coyote/operations/cpu/input_conv.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "coyote/operations/cpu/long_convolution.hpp"
#include "coyote/operations/cpu/short_convolution.hpp"
#include "coyote/operations/cpu/wkv.hpp"

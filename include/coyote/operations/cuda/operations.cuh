// SPDX-License-Identifier: Apache-2.0
#pragma once

// All operations of the Cuda backend.
#include "coyote/operations/cuda/activation.cuh"
#include "coyote/operations/cuda/adamw.cuh"
#include "coyote/operations/cuda/attention.cuh"
#include "coyote/operations/cuda/attention_step.cuh"
#include "coyote/operations/cuda/cross_entropy.cuh"
#include "coyote/operations/cuda/decoding.cuh"
#include "coyote/operations/cuda/dropout.cuh"
#include "coyote/operations/cuda/embedding.cuh"
#include "coyote/operations/cuda/filters.cuh"
#include "coyote/operations/cuda/input_conv.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/cuda/long_convolution.cuh"
#include "coyote/operations/cuda/modes.cuh"
#include "coyote/operations/cuda/norm.cuh"
#include "coyote/operations/cuda/rotary.cuh"
#include "coyote/operations/cuda/rowwise.cuh"
#include "coyote/operations/cuda/select.cuh"
#include "coyote/operations/cuda/short_convolution.cuh"
#include "coyote/operations/cuda/token_shift.cuh"
#include "coyote/operations/cuda/wkv.cuh"

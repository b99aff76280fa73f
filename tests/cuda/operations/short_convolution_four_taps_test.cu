// SPDX-License-Identifier: Apache-2.0
#include "cuda/operations/short_convolution_support.cuh"

namespace {

TEST_CASE_TEMPLATE("Four taps", S, float, bf16) { check_all<S, 4>(4); }

TEST_CASE_TEMPLATE("Four taps at small shapes", S, float, bf16) { check_small<S, 4>(4); }

}  // namespace

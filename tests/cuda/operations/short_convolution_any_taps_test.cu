// SPDX-License-Identifier: Apache-2.0
#include "cuda/operations/short_convolution_support.cuh"

namespace {

TEST_CASE_TEMPLATE("Eight taps, the most that stay in registers", S, float, bf16) { check_all<S, 8>(8); }
TEST_CASE_TEMPLATE("A number of taps that the compiler does not know", S, float, bf16) {
  check_all<S, 0>(5);
  check_all<S, 0>(40);
}

TEST_CASE_TEMPLATE("Eight taps at small shapes", S, float, bf16) {
  check_small<S, 8>(8);
  check_small<S, 0>(40);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "cuda/operations/short_convolution_support.cuh"

namespace {

TEST_CASE_TEMPLATE("Three taps", S, float, bf16) { check_all<S, 3>(3); }

TEST_CASE("The comparison rejects a tap too few") {
  Context context;
  Random random(1);
  OnDevice<float> x(50, 8, {}, random), taps(3, 8, {}, random), y(50, 8), two(50, 8);
  const DeviceSequences sequences({50});
  short_convolution<float, 3>(context, sequences.batch(), x.read(), taps.read(), {}, {}, y.view());
  short_convolution<float, 2>(context, sequences.batch(), x.read(), taps.read().slice(0, 2), {}, {}, two.view());
  CHECK_FALSE(error(two.now(), y.now()) <= 5e-3);
}

TEST_CASE_TEMPLATE("Three taps at small shapes", S, float, bf16) { check_small<S, 3>(3); }

}  // namespace

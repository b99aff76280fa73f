// SPDX-License-Identifier: Apache-2.0
// The main of all test programs that need a GPU: without one they say so and end with 77, which ctest reports as skipped.

#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cstdio>

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}

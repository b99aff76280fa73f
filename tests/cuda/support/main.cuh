// SPDX-License-Identifier: Apache-2.0
#pragma once

// The main of a test program that needs a GPU: without one it says so and ends with code 77, which ctest reports as skipped.

#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime.h>
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

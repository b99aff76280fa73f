// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "coyote/core/error.hpp"

// Kernels and their launchers stand in a namespace that is named after the list of architectures of their unit, so that
// units compiled for other ones never share a kernel: COYOTE_CUDA_ARCHITECTURES is sm_800_900 for -gencode of 8.0 and 9.0.
#define COYOTE_CUDA_JOIN_1(a) sm_##a
#define COYOTE_CUDA_JOIN_2(a, b) sm_##a##_##b
#define COYOTE_CUDA_JOIN_3(a, b, c) sm_##a##_##b##_##c
#define COYOTE_CUDA_JOIN_4(a, b, c, d) sm_##a##_##b##_##c##_##d
#define COYOTE_CUDA_JOIN_5(a, b, c, d, e) sm_##a##_##b##_##c##_##d##_##e
#define COYOTE_CUDA_JOIN_6(a, b, c, d, e, f) sm_##a##_##b##_##c##_##d##_##e##_##f
#define COYOTE_CUDA_CHOOSE(a, b, c, d, e, f, name, ...) name
#define COYOTE_CUDA_JOIN(...)                                                                                     \
  COYOTE_CUDA_CHOOSE(__VA_ARGS__, COYOTE_CUDA_JOIN_6, COYOTE_CUDA_JOIN_5, COYOTE_CUDA_JOIN_4, COYOTE_CUDA_JOIN_3, \
                     COYOTE_CUDA_JOIN_2, COYOTE_CUDA_JOIN_1, )                                                    \
  (__VA_ARGS__)
#ifdef __CUDA_ARCH_LIST__
#define COYOTE_CUDA_ARCHITECTURES COYOTE_CUDA_JOIN(__CUDA_ARCH_LIST__)
#else
#define COYOTE_CUDA_ARCHITECTURES sm_none
#endif

namespace coyote::inline v0::cuda {

/// Throws what a call of the CUDA runtime reports, with the call and the place.
inline void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // a failed launch stays behind otherwise, and the next check would report it again
  throw Error(words(call, " (", file, ":", line, ")"), "success",
              words(cudaGetErrorName(status), ": ", cudaGetErrorString(status)));
}

}  // namespace coyote::inline v0::cuda

/// Checks a call of the CUDA runtime.
#define COYOTE_CUDA_CHECK(call) ::coyote::cuda::check((call), #call, __FILE__, __LINE__)
/// Checks the launch just made.
#define COYOTE_CUDA_CHECK_LAUNCH(kernel) ::coyote::cuda::check(cudaGetLastError(), "launch of " kernel, __FILE__, __LINE__)

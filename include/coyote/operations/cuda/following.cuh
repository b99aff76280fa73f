// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/context.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Chains of short kernels on Hopper and later: each starts while the one before still runs, so that its blocks are in place when
// their inputs are there (programmatic dependent launch; captured graphs keep it).

/// Lets the next kernel of a chain start.
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/// Waits until the kernels before have ended. What a kernel touches earlier must be settled (Context::is_settled).
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Both. A kernel calls it before it touches memory.
__device__ inline void follow() {
  let_next_start();
  wait_for_previous();
}
/// Has `count` values from `at` on, a row's piece, brought to the second-level cache, whole or, where they are no vectors of 16
/// bytes, not at all. One thread asks for all of them and no register waits. Unlike a load it may stand before
/// `wait_for_previous`: all stores meet in that cache, so what the kernel before still writes is what later loads find there. A
/// kernel that asks for its first rows so has them come from memory while the one before ends.
template <class T>
__device__ inline void ask_for_row(const T* at, Index count) {
#if __CUDA_ARCH__ >= 900
  const auto bytes = static_cast<unsigned>(count * Index{sizeof(T)});
  if (reinterpret_cast<std::uintptr_t>(at) % 16 != 0 || bytes % 16 != 0) return;
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(at), "r"(bytes));
#endif
}
/// Does `follow` wait on this device? Where this unit's kernels were compiled for it, 9.0 or
/// later; else kernels start in order.
inline bool follows(const DeviceLimits& limits) {
  bool found = false;
#ifdef __CUDA_ARCH_LIST__
  for (const int architecture : {__CUDA_ARCH_LIST__}) found |= architecture / 100 == limits.major;
#endif
  return found && limits.major >= 9;
}
/// Launches a kernel that calls `follow`, with `bytes` of shared memory.
template <class... Parameters, class... Arguments>
void launch_following(const Context<Cuda>& context, void (*kernel)(Parameters...), const char* name, dim3 blocks, dim3 threads,
                      std::size_t bytes, const Arguments&... arguments) {
  if (bytes > std::size_t{48} << 10) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), name, __FILE__,
          __LINE__);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = bytes;
  config.stream = context.stream();
  config.attrs = &attribute;
  config.numAttrs = !context.starts_late() && follows(context.limits()) ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name, __FILE__, __LINE__);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "coyote/core/cuda/context.cuh"

/// What Hopper's kernels are made of: barriers in shared memory that count arrivals and copied bytes, the tensor copy engine,
/// and products by whole warpgroups (wgmma) whose operands stand in shared memory.
namespace coyote::inline v0::cuda {

/// How the tensor copy engine reads bf16 in three dimensions, the inner one first and without gaps, the others' strides in bytes,
/// multiples of 16: a box has 64 inner elements, 128 bytes in shared memory, the 16-byte chunks of row r at (chunk ^ r % 8). What
/// lies beyond the extents becomes 0.
inline CUtensorMap tensor_map(const bf16* data, const cuuint64_t (&extents)[3], const cuuint64_t (&strides)[2],
                              const cuuint32_t (&box)[3]) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  void* found = nullptr;
  cudaDriverEntryPointQueryResult status;
  COYOTE_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &status));
  if (status != cudaDriverEntryPointSuccess) throw Error("Cuda", "a driver that encodes tensor maps", "none");
  CUtensorMap map;
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result =
      reinterpret_cast<Encode>(found)(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16*>(data), extents, strides, box,
                                      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw Error("cuTensorMapEncodeTiled", "success", words("error ", static_cast<int>(result)));
  return map;
}

inline namespace COYOTE_CUDA_ARCHITECTURES {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ inline void init_barrier(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ inline void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void arrive_and_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void wait_barrier(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra end;\nbra "
      "again;\nend:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// Copies a box that begins there, inner place first.
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap& map, int inner, int middle, int outer,
                                std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(inner), "r"(middle), "r"(outer), "r"(barrier)
      : "memory");
}
/// Copies neighbouring bytes, a multiple of 16.
__device__ inline void copy_bytes(std::uint32_t to, const void* from, int bytes, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
               "r"(bytes), "r"(barrier)
               : "memory");
}
/// Makes ordinary stores to shared memory visible to the copy engine and the tensor cores.
__device__ inline void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
template <int Registers>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
/// Barriers of some warpgroups, by number.
__device__ inline void meet(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void pass(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/// Describes an operand in shared memory with rows of 128 bytes: either its rows run along the product's sum (`panel` unused),
/// or across it, `panel` bytes from 64 columns to the next 64.
__device__ inline std::uint64_t operand(std::uint32_t address, std::uint32_t panel = 16) {
  return std::uint64_t{(address & 0x3FFFF) >> 4} | std::uint64_t{panel >> 4} << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}

__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
/// Keeps the compiler from moving uses of an accumulator across this point.
template <int N>
__device__ inline void pin(float (&d)[N]) {
#pragma unroll
  for (int n = 0; n < N; ++n) asm volatile("" : "+f"(d[n])::"memory");
}

#define COYOTE_WGMMA_LIST_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define COYOTE_WGMMA_LIST_32                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define COYOTE_WGMMA_LIST_64                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define COYOTE_WGMMA_4(c, d, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3])
#define COYOTE_WGMMA_16(c, d, i) \
  COYOTE_WGMMA_4(c, d, i), COYOTE_WGMMA_4(c, d, i + 4), COYOTE_WGMMA_4(c, d, i + 8), COYOTE_WGMMA_4(c, d, i + 12)
#define COYOTE_WGMMA_32(c, d, i) COYOTE_WGMMA_16(c, d, i), COYOTE_WGMMA_16(c, d, i + 16)
#define COYOTE_WGMMA_64(c, d, i) COYOTE_WGMMA_32(c, d, i), COYOTE_WGMMA_32(c, d, i + 32)
// For 64 x 16 times 16 x n, which gives `count` numbers a thread: set d = a b with both operands described, add d += a b so,
// or with `a` in registers. Numbers of the operands behind the accumulators come as strings. Where d is set its old values are
// no operands: else the compiler would move them about while earlier products still run, and make these wait.
#define COYOTE_WGMMA(n, count, o0, o1, o2, o3, o4, o5)                                                                          \
  template <bool Across>                                                                                                        \
  __device__ inline void set_product(float(&d)[count], std::uint64_t left, std::uint64_t right) {                               \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\nwgmma.mma_async.sync.aligned.m64n" #n                                 \
                 "k16.f32.bf16.bf16 {" COYOTE_WGMMA_LIST_##count "}, " o0 ", " o1 ", p, 1, 1, 0, " o2 ";\n}"                    \
                 : COYOTE_WGMMA_##count("=f", d, 0)                                                                             \
                 : "l"(left), "l"(right), "n"(Across ? 1 : 0));                                                                 \
  }                                                                                                                             \
  template <bool Across>                                                                                                        \
  __device__ inline void add_product(float(&d)[count], std::uint64_t left, std::uint64_t right) {                               \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" COYOTE_WGMMA_LIST_##count "}, " o0 ", " o1        \
                                                                                                        ", 1, 1, 1, 0, " o2 ";" \
                 : COYOTE_WGMMA_##count("+f", d, 0)                                                                             \
                 : "l"(left), "l"(right), "n"(Across ? 1 : 0));                                                                 \
  }                                                                                                                             \
  template <bool Across>                                                                                                        \
  __device__ inline void add_product(float(&d)[count], const std::uint32_t(&left)[4], std::uint64_t right) {                    \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" COYOTE_WGMMA_LIST_##count                         \
                 "}, {" o0 ", " o1 ", " o2 ", " o3 "}, " o4 ", 1, 1, 1, " o5 ";"                                                \
                 : COYOTE_WGMMA_##count("+f", d, 0)                                                                             \
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "n"(Across ? 1 : 0));                    \
  }
COYOTE_WGMMA(32, 16, "%16", "%17", "%18", "%19", "%20", "%21")
COYOTE_WGMMA(64, 32, "%32", "%33", "%34", "%35", "%36", "%37")
COYOTE_WGMMA(128, 64, "%64", "%65", "%66", "%67", "%68", "%69")
#undef COYOTE_WGMMA_LIST_16
#undef COYOTE_WGMMA_LIST_32
#undef COYOTE_WGMMA_LIST_64
#undef COYOTE_WGMMA_4
#undef COYOTE_WGMMA_16
#undef COYOTE_WGMMA_32
#undef COYOTE_WGMMA_64
#undef COYOTE_WGMMA

#endif
}  // namespace COYOTE_CUDA_ARCHITECTURES

}  // namespace coyote::inline v0::cuda

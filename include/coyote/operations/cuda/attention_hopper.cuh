// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "coyote/operations/cuda/attention_tiles.cuh"

namespace coyote::inline v0::cuda {

/// How the tensor copy engine reads one head's rows: a box is 64 columns of `box_rows` rows, 128 bytes a row in shared memory,
/// the 16-byte chunks of row r at (chunk ^ r % 8). Columns beyond the head's width and rows beyond the matrix become 0.
inline CUtensorMap map_of_heads(Rows<const bf16> view, int heads, int width, int box_rows) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  void* found = nullptr;
  cudaDriverEntryPointQueryResult status;
  COYOTE_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &status));
  if (status != cudaDriverEntryPointSuccess) throw Error("Cuda", "a driver that encodes tensor maps", "none");
  CUtensorMap map;
  const cuuint64_t extents[3] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(heads),
                                 static_cast<cuuint64_t>(view.rows)};
  const cuuint64_t strides[2] = {2 * static_cast<cuuint64_t>(width), 2 * static_cast<cuuint64_t>(view.stride)};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(box_rows)}, steps[3] = {1, 1, 1};
  const CUresult result =
      reinterpret_cast<Encode>(found)(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16*>(view.data), extents, strides,
                                      box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw Error("cuTensorMapEncodeTiled", "success", words("error ", static_cast<int>(result)));
  return map;
}
/// Can that engine read the view?
inline bool can_map(Rows<const bf16> view, int width) {
  return width % 8 == 0 && view.stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0 && view.rows < (1 << 30);
}

inline namespace COYOTE_CUDA_ARCHITECTURES {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What Hopper's kernels are made of: barriers in shared memory that count arrivals and copied bytes, the tensor copy engine,
// and products by whole warpgroups (wgmma) whose operands stand in shared memory.

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
/// Copies a box whose first column of the head, head and row are given.
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap& map, int column, int head, int row, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(column), "r"(head), "r"(row), "r"(barrier)
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

/// x, or 0 where it is negative; NaN stays.
__device__ inline float not_negative(float x) {
  float r;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(r) : "f"(x));
  return r;
}

/// Sixteen columns of probabilities as the left operand of a product.
__device__ inline void as_left(std::uint32_t (&left)[4], const float* p) {
  left[0] = pack(p[0], p[1]);
  left[1] = pack(p[2], p[3]);
  left[2] = pack(p[4], p[5]);
  left[3] = pack(p[6], p[7]);
}

/// A matrix of `Rows` rows in shared memory, as boxes of 64 columns behind each other.
template <int Width, int Count>
struct Panels {
  static constexpr int panel_bytes = 128 * Count, bytes = panel_bytes * (Width / 64);
  std::uint32_t address;

  __device__ void copy(const CUtensorMap& map, int head, int row, std::uint32_t barrier) const {
#pragma unroll
    for (int p = 0; p < Width / 64; ++p) copy_box(address + p * panel_bytes, map, 64 * p, head, row, barrier);
  }
  /// Rows row and on, as an operand summed over columns 16 k .. 16 k + 15.
  __device__ std::uint64_t along(int row, int k) const {
    return operand(address + static_cast<std::uint32_t>(k / 4 * panel_bytes + row * 128 + k % 4 * 32));
  }
  /// All columns, as an operand summed over rows 16 k .. 16 k + 15.
  __device__ std::uint64_t across(int k) const { return operand(address + static_cast<std::uint32_t>(k * 2048), panel_bytes); }
  /// Sets rows first and on to 0, by the threads of a warpgroup, so that nothing behind a sequence's end counts, NaN included.
  __device__ void clear_from(int first) const {
    for (int n = first * 8 + static_cast<int>(threadIdx.x % 128); n < 8 * Count; n += 128) {
#pragma unroll
      for (int p = 0; p < Width / 64; ++p) {
        asm volatile(
            "st.shared.v4.b32 [%0], {%1,%1,%1,%1};" ::"r"(address + static_cast<std::uint32_t>(p * panel_bytes + n * 16)), "r"(0)
            : "memory");
      }
    }
    fence_async();
  }
};

/// s = rows row .. row + 63 of `a` times the transpose of `b`.
template <int Width, int CountA, int CountB, int N>
__device__ void multiply_transposed(float (&s)[N], Panels<Width, CountA> a, int row, Panels<Width, CountB> b) {
#pragma unroll
  for (int k = 0; k < Width / 16; ++k) {
    k == 0 ? set_product<false>(s, a.along(row, k), b.along(0, k)) : add_product<false>(s, a.along(row, k), b.along(0, k));
  }
}
/// acc += p times `b`, where p [64, Count] is held as left operands.
template <int Width, int Count, int N>
__device__ void multiply(float (&acc)[N], const std::uint32_t (&p)[Count / 16][4], Panels<Width, Count> b) {
#pragma unroll
  for (int k = 0; k < Count / 16; ++k) add_product<true>(acc, p[k], b.across(k));
}

/// Stores an accumulator of 64 rows, times a factor for each of the lane's two rows: through the rows `own` and on of a tile in
/// shared memory that nobody else needs any more, so that 16 bytes leave at a time.
template <int Width, int Count, int N>
__device__ void store_group(const float (&acc)[N], float factor_0, float factor_1, Panels<Width, Count> tile, int own, bf16* data,
                            Index stride, std::int32_t row, std::int32_t rows, int width, int barrier) {
  const int thread = threadIdx.x % 128, lane = thread % 32;
#pragma unroll
  for (int n = 0; n < N / 4; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float factor = half == 0 ? factor_0 : factor_1;
      const int r = own + thread / 32 * 16 + lane / 4 + 8 * half;
      const std::uint32_t to = tile.address + static_cast<std::uint32_t>(n / 8 * tile.panel_bytes + r * 128 +
                                                                         (((n % 8) ^ (r & 7)) << 4) + lane % 4 * 4);
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(to),
                   "r"(pack(acc[4 * n + 2 * half] * factor, acc[4 * n + 2 * half + 1] * factor))
                   : "memory");
    }
  }
  meet(barrier, 128);
  const bool in_chunks = stride % 8 == 0 && width % 8 == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
#pragma unroll 4
  for (int n = thread; n < 64 * Width / 8; n += 128) {
    const int r = n / (Width / 8), chunk = n % (Width / 8);
    if (row + r >= rows || 8 * chunk >= width) continue;
    std::uint32_t words[4];
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(tile.address + static_cast<std::uint32_t>(chunk / 8 * tile.panel_bytes + (own + r) * 128 +
                                                                 (((chunk % 8) ^ ((own + r) & 7)) << 4)))
                 : "memory");
    store_chunk(data + (row + r) * stride + 8 * chunk, words, width - 8 * chunk, in_chunks);
  }
}

#endif
}  // namespace COYOTE_CUDA_ARCHITECTURES
}  // namespace coyote::inline v0::cuda

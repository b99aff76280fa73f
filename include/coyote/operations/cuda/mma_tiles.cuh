// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coyote/core/cuda/bf16.cuh"
#include "coyote/core/cuda/check.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Tiles of bf16 matrices in shared memory, and their products by mma.m16n8k16: what the tensor-core kernels of sm_80 and up
// are made of. A tile holds rows of `Width` numbers; the 16-byte chunks of row r stand at (chunk ^ r % 8), so that eight rows'
// chunks of one column lie in different banks.
//
// Fragments of a warp, lane = 4 g + t: an accumulator of 16 x 8 holds rows g and g + 8, columns 2 t and 2 t + 1.

__device__ inline std::uint32_t shared_address(const void* p) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(p)); }

__device__ inline void copy_16_bytes(std::uint32_t to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;"); }
template <int Pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/// d += a b for 16 x 16 times 16 x 8.
__device__ inline void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void store_word(std::uint32_t address, std::uint32_t word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}
/// Two numbers as bf16, the first in the low half.
__device__ inline std::uint32_t pack(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

/// A tile of rows in shared memory.
template <int Width>
struct Tile {
  static constexpr int chunks = Width / 8, row_bytes = 2 * Width;
  std::uint32_t address;

  /// The rows from `row` on, a multiple of 8.
  __device__ Tile below(int row) const { return {address + static_cast<std::uint32_t>(row * row_bytes)}; }
  __device__ std::uint32_t at(int row, int chunk) const {
    return address + static_cast<std::uint32_t>(row * row_bytes + ((chunk ^ (row & 7)) << 4));
  }
  /// Rows row .. row + 15 and columns 16 k .. 16 k + 15, as the left operand.
  __device__ void left(std::uint32_t (&a)[4], int row, int k) const {
    const int lane = threadIdx.x % 32;
    load_matrices(a, at(row + lane % 16, 2 * k + lane / 16));
  }
  /// The transpose of rows row .. row + 15 and columns 16 k .. 16 k + 15, as the left operand.
  __device__ void left_transposed(std::uint32_t (&a)[4], int row, int k) const {
    const int lane = threadIdx.x % 32;
    load_transposed(a, at(row + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
  }
  /// The transpose of rows row .. row + 15 and columns 16 k .. + 15, as two right operands of 8 columns.
  __device__ void right_transposed(std::uint32_t (&b)[4], int row, int k) const {
    const int lane = threadIdx.x % 32;
    load_matrices(b, at(row + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
  }
  /// Rows row .. row + 15 and columns 16 n .. + 15, as two right operands of 8 columns.
  __device__ void right(std::uint32_t (&b)[4], int row, int n) const {
    const int lane = threadIdx.x % 32;
    load_transposed(b, at(row + lane % 16, 2 * n + lane / 16));
  }
  /// Rows row .. row + 31 and columns 8 n .. + 7, as a right operand of 16 rows and the one below it.
  __device__ void right_pair(std::uint32_t (&b)[4], int row, int n) const {
    const int lane = threadIdx.x % 32;
    load_transposed(b, at(row + lane, n));
  }
};

template <int N>
__device__ void clear(float (&acc)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

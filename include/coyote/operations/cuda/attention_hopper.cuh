// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_tiles.cuh"
#include "coyote/operations/cuda/hopper.cuh"

namespace coyote::inline v0::cuda {

/// How the tensor copy engine reads one head's rows: a box is 64 columns of `box_rows` rows, 128 bytes a row in shared memory,
/// the 16-byte chunks of row r at (chunk ^ r % 8). Columns beyond the head's width and rows beyond the matrix become 0.
inline CUtensorMap map_of_heads(Rows<const bf16> view, int heads, int width, int box_rows) {
  const cuuint64_t extents[3] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(heads),
                                 static_cast<cuuint64_t>(view.rows)};
  const cuuint64_t strides[2] = {2 * static_cast<cuuint64_t>(width), 2 * static_cast<cuuint64_t>(view.stride)};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(box_rows)};
  return tensor_map(view.data, extents, strides, box);
}
/// Can that engine read the view?
inline bool can_map(Rows<const bf16> view, int width) {
  return width % 8 == 0 && view.stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0 && view.rows < (1 << 30);
}

inline namespace COYOTE_CUDA_ARCHITECTURES {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_problem.cuh"
#include "coyote/operations/cuda/mma_tiles.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// How the tensor-core kernels of attention fill their tiles and multiply them.

__device__ inline float exp2_fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

/// Where a head's rows of one sequence stand: row i at data + i * stride, for i < rows, `width` numbers each.
struct HeadRows {
  const bf16* data;
  Index stride;
  std::int32_t rows, width;
  bool in_chunks;  // rows begin on 16-byte boundaries and are whole chunks

  __device__ HeadRows(Rows<const bf16> view, std::int64_t begin, std::int32_t rows_, std::int32_t head, std::int32_t width_)
      : data(view.row(begin) + head * width_), stride(view.stride), rows(rows_), width(width_) {
    in_chunks = width % 8 == 0 && stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  }
};

/// Starts copying rows first .. first + Count - 1 into a tile; what does not exist becomes 0.
template <int Width, int Count, int Threads>
__device__ void copy_tile(Tile<Width> tile, const HeadRows& from, std::int32_t first) {
  constexpr int chunks = Tile<Width>::chunks;
  static_assert(Count * chunks % Threads == 0 || Count * chunks < Threads);
#pragma unroll 4
  for (int n = threadIdx.x; n < Count * chunks; n += Threads) {
    const int row = n / chunks, chunk = n % chunks;
    const bool exists = first + row < from.rows && 8 * chunk < from.width;
    const bf16* source = from.data + (exists ? (first + row) * from.stride + 8 * chunk : 0);
    if (from.in_chunks) {
      copy_16_bytes(tile.at(row, chunk), source, exists);
    } else {
      std::uint32_t words[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const bf16 low = exists && 8 * chunk + 2 * w < from.width ? source[2 * w] : bf16(0.0f);
        const bf16 high = exists && 8 * chunk + 2 * w + 1 < from.width ? source[2 * w + 1] : bf16(0.0f);
        words[w] = static_cast<std::uint32_t>(__bfloat16_as_ushort(high)) << 16 | __bfloat16_as_ushort(low);
      }
      asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(tile.at(row, chunk)), "r"(words[0]), "r"(words[1]),
                   "r"(words[2]), "r"(words[3])
                   : "memory");
    }
  }
}

/// acc += rows row .. row + 15 of `a` times the transpose of the first 8 * N rows of `b`.
template <int Width, int N>
__device__ void multiply_transposed(float (&acc)[N][4], Tile<Width> a, int row, Tile<Width> b) {
#pragma unroll
  for (int k = 0; k < Width / 16; ++k) {
    std::uint32_t left[4];
    a.left(left, row, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t right[4];
      b.right_transposed(right, 8 * n, k);
      multiply_add(acc[n], left, right[0], right[1]);
      multiply_add(acc[n + 1], left, right[2], right[3]);
    }
  }
}
/// acc += p times columns 8 * column .. of the first 8 * K rows of `b`, with p in the layout of accumulators.
template <int Width, int K, int N>
__device__ void multiply(float (&acc)[N][4], const float (&p)[K][4], Tile<Width> b, int column) {
#pragma unroll
  for (int k = 0; k < K / 2; ++k) {
    const std::uint32_t left[4] = {pack(p[2 * k][0], p[2 * k][1]), pack(p[2 * k][2], p[2 * k][3]),
                                   pack(p[2 * k + 1][0], p[2 * k + 1][1]), pack(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t right[4];
      b.right(right, 16 * k, column / 2 + n / 2);
      multiply_add(acc[n], left, right[0], right[1]);
      multiply_add(acc[n + 1], left, right[2], right[3]);
    }
  }
}

/// Stores an accumulator of 16 rows, times a factor for each of the lane's two rows, where rows and columns exist.
template <int N>
__device__ void store_rows(const float (&acc)[N][4], float factor_0, float factor_1, bf16* data, Index stride, std::int32_t row,
                           std::int32_t rows, int column, int width) {
  const int lane = threadIdx.x % 32;
  const bool pairs = stride % 2 == 0 && reinterpret_cast<std::uintptr_t>(data) % 4 == 0 && width % 2 == 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int32_t i = row + lane / 4 + 8 * half;
    if (i >= rows) continue;
    bf16* const to = data + i * stride;
    const float factor = half == 0 ? factor_0 : factor_1;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int c = column + 8 * n + 2 * (lane % 4);
      const float low = acc[n][2 * half] * factor, high = acc[n][2 * half + 1] * factor;
      if (pairs) {
        if (c < width) *reinterpret_cast<std::uint32_t*>(to + c) = pack(low, high);
      } else {
        if (c < width) to[c] = __float2bfloat16(low);
        if (c + 1 < width) to[c + 1] = __float2bfloat16(high);
      }
    }
  }
}

/// What a block works on: `extent` rows (or keys) of one head of one sequence. Blocks of one head are neighbours, so that
/// they share keys in the second-level cache, those with the most work first.
struct TileTask {
  std::int32_t sequence, head, tile, size;
  std::int64_t begin;

  __device__ TileTask(const Sequences& sequences, std::int32_t heads, std::int32_t extent, bool last_first) {
    const std::int32_t tiles = (sequences.length + extent - 1) / extent;
    tile = static_cast<std::int32_t>(blockIdx.x) % tiles;
    if (last_first) tile = tiles - 1 - tile;
    head = static_cast<std::int32_t>(blockIdx.x) / tiles % heads;
    sequence = static_cast<std::int32_t>(blockIdx.x) / tiles / heads;
    size = sequences.size(sequence);
    begin = sequences.begin(sequence);
  }
};
inline unsigned tile_blocks(const Sequences& sequences, std::int32_t heads, int extent) {
  return static_cast<unsigned>(ceil_div(sequences.length, extent) * heads * sequences.sequences);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

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
  constexpr int chunks = Tile<Width>::chunks, together = Threads / chunks;
  static_assert(Threads % chunks == 0 && (Count % together == 0 || Count < together));
  const int chunk = static_cast<int>(threadIdx.x) % chunks, row = static_cast<int>(threadIdx.x) / chunks;
  if (Count < together && row >= Count) return;
  const std::int32_t there = 8 * chunk < from.width ? from.rows - first - row : 0;  // rows from the thread's first on
  const bf16* source = from.data + (there > 0 ? (first + row) * from.stride + 8 * chunk : 0);
  if (from.in_chunks) {
#pragma unroll
    for (int n = 0; n < Count; n += together) {
      copy_16_bytes(tile.at(row + n, chunk), source, n < there);
      if (n + together < there) source += together * from.stride;
    }
    return;
  }
#pragma unroll 1
  for (int n = 0; n < Count; n += together) {
    std::uint32_t words[4] = {0, 0, 0, 0};
    for (int w = 0; w < 8 && n < there && 8 * chunk + w < from.width; ++w) {
      words[w / 2] |= static_cast<std::uint32_t>(__bfloat16_as_ushort(source[n * from.stride + w])) << 16 * (w % 2);
    }
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(tile.at(row + n, chunk)), "r"(words[0]), "r"(words[1]),
                 "r"(words[2]), "r"(words[3])
                 : "memory");
  }
}

/// acc += rows row .. row + 15 of `a` times the transpose of the first 8 * N rows of `b`: part `part` of `Parts` of the sum over
/// columns.
template <int Parts = 1, int Width, int N>
__device__ void multiply_transposed(float (&acc)[N][4], Tile<Width> a, int row, Tile<Width> b, int part = 0) {
  constexpr int steps = Width / 16 / Parts;
#pragma unroll
  for (int k = 0; k < steps; ++k) {
    std::uint32_t left[4];
    a.left(left, row, part * steps + k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t right[4];
      b.right_transposed(right, 8 * n, part * steps + k);
      multiply_add(acc[n], left, right[0], right[1]);
      multiply_add(acc[n + 1], left, right[2], right[3]);
    }
  }
}
/// The same with the rows of `a` held as left operands.
template <int K, int Width, int N>
__device__ void multiply_transposed(float (&acc)[N][4], const std::uint32_t (&a)[K][4], Tile<Width> b) {
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t right[4];
      b.right_transposed(right, 8 * n, k);
      multiply_add(acc[n], a[k], right[0], right[1]);
      multiply_add(acc[n + 1], a[k], right[2], right[3]);
    }
  }
}
/// An accumulator of 16 x 8 K as left operands.
template <int K>
__device__ void as_operands(std::uint32_t (&left)[K / 2][4], const float (&p)[K][4]) {
#pragma unroll
  for (int n = 0; n < K; ++n) {
    left[n / 2][n % 2 * 2] = pack(p[n][0], p[n][1]);
    left[n / 2][n % 2 * 2 + 1] = pack(p[n][2], p[n][3]);
  }
}
/// acc += p times columns 8 * column .. of the first 16 * K rows of `b`.
template <int Width, int K, int N>
__device__ void multiply(float (&acc)[N][4], const std::uint32_t (&p)[K][4], Tile<Width> b, int column) {
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t right[4];
      b.right(right, 16 * k, column / 2 + n / 2);
      multiply_add(acc[n], p[k], right[0], right[1]);
      multiply_add(acc[n + 1], p[k], right[2], right[3]);
    }
  }
}

/// Stores eight columns of bf16, of which `columns` exist.
__device__ inline void store_chunk(bf16* to, const std::uint32_t (&words)[4], int columns, bool in_chunks) {
  if (in_chunks) {
    *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
    return;
  }
#pragma unroll
  for (int w = 0; w < 8; ++w) {
    if (w < columns) to[w] = __ushort_as_bfloat16(static_cast<unsigned short>(words[w / 2] >> 16 * (w % 2)));
  }
}

/// Stores an accumulator of 16 rows, times a factor for each of the lane's two rows, where rows and columns exist: through rows
/// own .. own + 15 and these columns of a tile, which nobody else needs any more, so that 16 bytes leave at a time.
template <int Width, int N>
__device__ void store_rows(const float (&acc)[N][4], float factor_0, float factor_1, Tile<Width> tile, int own, int column,
                           bf16* data, Index stride, std::int32_t row, std::int32_t rows, int width) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const std::uint32_t to = tile.at(own + lane / 4, column / 8 + n) + 4 * (lane % 4);
    store_word(to, pack(acc[n][0] * factor_0, acc[n][1] * factor_0));
    store_word(to + 8 * Tile<Width>::row_bytes, pack(acc[n][2] * factor_1, acc[n][3] * factor_1));
  }
  __syncwarp();
  const bool in_chunks = stride % 8 == 0 && width % 8 == 0 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
#pragma unroll 2
  for (int n = lane; n < 16 * N; n += 32) {
    const int r = n / N, c = column + n % N * 8;
    if (row + r >= rows || c >= width) continue;
    std::uint32_t words[4];
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(tile.at(own + r, c / 8))
                 : "memory");
    store_chunk(data + (row + r) * stride + c, words, width - c, in_chunks);
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
  /// The sequence's rows of the head.
  __device__ HeadRows of(Rows<const bf16> view, std::int32_t width) const { return {view, begin, size, head, width}; }
};
inline unsigned tile_blocks(const Sequences& sequences, std::int32_t heads, int extent) {
  return static_cast<unsigned>(ceil_div(sequences.length, extent) * heads * sequences.sequences);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_problem.cuh"

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
__device__ inline float exp2_fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
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
  /// The transpose of rows 16 k .. 16 k + 15 and columns column .. column + 15, as the left operand.
  __device__ void left_transposed(std::uint32_t (&a)[4], int column, int k) const {
    const int lane = threadIdx.x % 32;
    load_transposed(a, at(16 * k + lane % 8 + lane / 16 * 8, column / 8 + lane / 8 % 2));
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
};

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

template <int N>
__device__ void clear(float (&acc)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0;
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
};
inline unsigned tile_blocks(const Sequences& sequences, std::int32_t heads, int extent) {
  return static_cast<unsigned>(ceil_div(sequences.length, extent) * heads * sequences.sequences);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

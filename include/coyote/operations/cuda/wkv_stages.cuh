// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/wkv_sums.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// Copies so many bytes to shared memory: 4 and more without waiting for them.
template <int Bytes>
__device__ void copy_piece(void* to, const void* from) {
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))), "l"(from)
                 : "memory");
  } else if constexpr (Bytes == 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))), "l"(from)
                 : "memory");
  } else {
    using Word = typename detail::Word<Bytes>::type;
    *static_cast<Word*>(to) = *static_cast<const Word*>(from);
  }
}

inline constexpr int wkv_stages = 2;

/// The keys and values of a warp's slice on their way through shared memory, one step ahead: registers hold sums alone. Lanes
/// copy pieces of Piece bytes of neighbouring rows, so that a step takes a few instructions; every warp reads what it copied
/// itself.
template <class Tile, class S, int Piece>
struct WkvStages {
  static constexpr int row_bytes = 32 * Tile::N * static_cast<int>(sizeof(S));
  static constexpr int pieces = row_bytes / Piece, rows_at_once = 32 / pieces, elements = Piece / static_cast<int>(sizeof(S));
  static constexpr int matrix_bytes = Tile::rows * row_bytes;
  static constexpr int warp_bytes = 2 * wkv_stages * matrix_bytes;
  using Pieces = RawPack<elements, S>;

  unsigned char* memory;  // of this warp
  Index column;           // of this lane's pieces
  bool inside;

  __device__ WkvStages(unsigned char* block_memory, Index block_column, Index width)
      : memory(block_memory + static_cast<int>(threadIdx.x) / 32 * warp_bytes),
        column(block_column + static_cast<int>(threadIdx.x) % pieces * elements),
        inside(column < width) {}

  /// Where row i of the slice lies; matrix 0: keys, 1: values.
  __device__ unsigned char* row(int stage, int matrix, int i) const {
    return memory + (2 * stage + matrix) * matrix_bytes + i * row_bytes;
  }

  /// Begins to copy the slice's rows from `first` on, those behind the sequence's end as keys of minus infinity.
  __device__ void copy(int stage, const WkvProblem<S>& problem, std::int64_t begin, std::int32_t first, std::int32_t size) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, above = lane / pieces, offset = lane % pieces * Piece;
    const std::int32_t own = first + above;
    const S *k = problem.k.row(begin + own) + column, *v = problem.v.row(begin + own) + column;
    const bool whole = inside && first + Tile::rows <= size;
#pragma unroll
    for (int i = 0; i < Tile::rows; i += rows_at_once) {
      unsigned char *keys = row(stage, 0, i) + above * row_bytes + offset,
                    *values = row(stage, 1, i) + above * row_bytes + offset;
      if (whole || (inside && own + i < size)) {
        copy_piece<Piece>(keys, k);
        copy_piece<Piece>(values, v);
      } else {
        Pieces none = {}, no_key;
#pragma unroll
        for (int e = 0; e < elements; ++e) no_key.element[e] = from_float<S>(inside ? -INFINITY : 0.0f);
        *reinterpret_cast<typename Pieces::Word*>(keys) = no_key.word[0];
        *reinterpret_cast<typename Pieces::Word*>(values) = none.word[0];
      }
      k += rows_at_once * problem.k.stride;
      v += rows_at_once * problem.v.stride;
    }
  }
  __device__ static void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  /// Until all but the latest copies are there, of all lanes.
  __device__ static void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(wkv_stages - 1) : "memory");
    __syncwarp();
  }

  /// One number of the thread's channels.
  __device__ float element(int stage, int matrix, int j, int i) const {
    const auto* from = reinterpret_cast<const S*>(row(stage, matrix, j)) + static_cast<int>(threadIdx.x) % 32 * Tile::N;
    return load_raw<Tile::N>(from).at(i);
  }
};

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

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

/// The keys and values of a warp's slices in shared memory. Lanes copy pieces of Piece bytes of neighbouring rows, so that a step
/// takes a few instructions; every warp reads what it copied itself.
template <class Tile, class S, int Piece, int Count>
struct WkvStages {
  static constexpr int row_bytes = 32 * Tile::N * static_cast<int>(sizeof(S));
  static constexpr int pieces = row_bytes / Piece, rows_at_once = 32 / pieces, elements = Piece / static_cast<int>(sizeof(S));
  static constexpr int matrix_bytes = Tile::rows * row_bytes;
  static constexpr int warp_bytes = 2 * Count * matrix_bytes;
  using Pieces = RawPack<elements, S>;

  unsigned char* memory;  // of this warp
  Index column;           // of this lane's pieces
  bool inside;

  __device__ WkvStages(unsigned char* block_memory, Index block_column, Index width)
      : memory(block_memory + static_cast<int>(threadIdx.x) / 32 * warp_bytes),
        column(block_column + static_cast<int>(threadIdx.x) % pieces * elements),
        inside(column < width) {}

  __device__ static int above() { return static_cast<int>(threadIdx.x) % 32 / pieces; }
  /// Matrix 0: keys, 1: values.
  __device__ unsigned char* matrix(int stage, int matrix) const { return memory + (2 * stage + matrix) * matrix_bytes; }

  /// Begins to copy the slice's rows from `first` on, those behind the sequence's end as keys of minus infinity.
  __device__ void copy(int stage, const WkvProblem<S>& problem, std::int64_t begin, std::int32_t first, std::int32_t size) const {
    unsigned char* to = matrix(stage, 0) + static_cast<int>(threadIdx.x) % 32 * Piece;
    const std::int32_t own = first + above();
    const S *from_k = problem.k.row(begin + own) + column, *from_v = problem.v.row(begin + own) + column;
    if (inside && first + Tile::rows <= size) {
#pragma unroll
      for (int i = 0; i < Tile::rows; i += rows_at_once) {
        copy_piece<Piece>(to + i * row_bytes, from_k);
        copy_piece<Piece>(to + i * row_bytes + matrix_bytes, from_v);
        from_k += rows_at_once * problem.k.stride;
        from_v += rows_at_once * problem.v.stride;
      }
    } else {
      Pieces none = {}, no_key;
#pragma unroll
      for (int e = 0; e < elements; ++e) no_key.element[e] = from_float<S>(inside ? -INFINITY : 0.0f);
#pragma unroll 1
      for (int i = 0; i < Tile::rows; i += rows_at_once) {
        if (inside && own + i < size) {
          copy_piece<Piece>(to + i * row_bytes, from_k);
          copy_piece<Piece>(to + i * row_bytes + matrix_bytes, from_v);
        } else {
          *reinterpret_cast<typename Pieces::Word*>(to + i * row_bytes) = no_key.word[0];
          *reinterpret_cast<typename Pieces::Word*>(to + i * row_bytes + matrix_bytes) = none.word[0];
        }
        from_k += rows_at_once * problem.k.stride;
        from_v += rows_at_once * problem.v.stride;
      }
    }
  }
  __device__ static void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  /// Until all but the latest so many copies are there, of all lanes.
  template <int Latest>
  __device__ static void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Latest) : "memory");
    __syncwarp();
  }

  /// The thread's channels of one row.
  __device__ RawPack<Tile::N, S> get(int stage, int which, int j) const {
    return load_raw<Tile::N>(reinterpret_cast<const S*>(matrix(stage, which) + j * row_bytes) +
                             static_cast<int>(threadIdx.x) % 32 * Tile::N);
  }
};

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cfloat>

#include "coyote/operations/cuda/attention_hopper.cuh"
#include "coyote/operations/cuda/attention_mma.cuh"
#include "coyote/operations/cuda/following.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// What the passes of a tied head's cross entropy on Hopper (cross_entropy_wgmma.cuh) have in common: how they are cut, how both
// matrices lie in tiles, the ring through which tiles pass, and the products of one.

/// How a pass cuts its work: `groups` warpgroups keep 64 rows each; so many blocks share a multiprocessor; tiles of 64 streamed
/// rows in flight, a power of two.
struct LossShape {
  int width, groups, blocks, stages;
  bool operator==(const LossShape&) const = default;

  COYOTE_HOST_DEVICE constexpr int threads() const { return 128 * groups; }
  COYOTE_HOST_DEVICE constexpr int tile_bytes() const { return 128 * width; }
  /// Of one streamed tile, and of 1024 bytes for what goes with its rows.
  COYOTE_HOST_DEVICE constexpr int stage_bytes() const { return tile_bytes() + 1024; }
  /// With room to begin on a boundary of 1024.
  constexpr int bytes() const { return 1024 + groups * tile_bytes() + stages * stage_bytes(); }
};
COYOTE_HOST_DEVICE constexpr LossShape loss_shape(int width) {
  if (width == 64) return {.width = 64, .groups = 2, .blocks = 2, .stages = 8};
  if (width == 128) return {.width = 128, .groups = 3, .blocks = 1, .stages = 8};
  return {.width = 256, .groups = 2, .blocks = 1, .stages = 4};
}

/// Streamed tiles in parts of `each`.
struct LossCut {
  int tiles, each;
  COYOTE_HOST_DEVICE constexpr int parts() const { return (tiles + each - 1) / each; }
};
/// The cut that takes the least time: waves of blocks times the tiles of each (and about 3 tiles' time to begin and end), and
/// then the sums of all parts to join.
constexpr LossCut loss_cut(int kept_blocks, int tiles, int slots) {
  LossCut best{tiles, tiles};
  double least = DBL_MAX;
  for (int parts = 1; parts <= 32 && parts <= tiles; ++parts) {
    const LossCut cut{tiles, (tiles + parts - 1) / parts};
    const int waves = (kept_blocks * cut.parts() + slots - 1) / slots;
    const double time = waves * (cut.each + 3) + 0.02 * kept_blocks * cut.parts();
    if (time < least) {
      least = time;
      best = cut;
    }
  }
  return best;
}

/// What a pass over part of the table found out about a row: sums are of exp2(s log2(e) - shift); the largest score, and its
/// place: the tile times 8, plus the thread of four that held its columns 8 m + 2 t and 8 m + 2 t + 1, or 4 for more than one.
struct alignas(16) RowPart {
  float shift, total, best;
  int place;
};
inline constexpr int no_place = 0x7FFFFFFC;  // behind every place, and its own when it meets itself

/// Eight columns of a row that may end before, as bf16.
template <class S>
__device__ uint4 round_chunk(Rows<const S> m, Index row, int column) {
  float x[8] = {};
  if (row < m.rows && column < m.width) {
    const S* const from = m.row(row) + column;
    if (column + 8 <= m.width && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
      if constexpr (sizeof(S) == sizeof(bf16)) {
        return *reinterpret_cast<const uint4*>(from);
      } else {
        const float4 low = reinterpret_cast<const float4*>(from)[0], high = reinterpret_cast<const float4*>(from)[1];
        return {pack(low.x, low.y), pack(low.z, low.w), pack(high.x, high.y), pack(high.z, high.w)};
      }
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      if (column + e < m.width) x[e] = to_float(from[e]);
    }
  }
  return {pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])};
}

/// Where the 16-byte chunk with that column of that row stands in a tile, and in tiles, in chunks: tiles of 64 rows behind each
/// other, in them panels of 64 columns, in these rows of 128 bytes in the hardware's swizzle.
__device__ inline int panel_place(int row, int column) { return (column / 64 * 64 + row) * 8 + ((column % 64 / 8) ^ (row & 7)); }
__device__ inline Index chunk_place(int width, Index row, int column) {
  return row / 64 * (8 * width) + panel_place(static_cast<int>(row % 64), column);
}

/// Both matrices as tiles of `width` columns; what does not exist is 0.
template <class S>
__global__ void __launch_bounds__(256)
    lay_tiles_kernel(Rows<const S> hidden, Rows<const float> table, int width, uint4* hidden_tiles, Index hidden_chunks,
                     uint4* table_tiles, Index table_chunks) {
  follow();
  const Index n = Index{blockIdx.x} * 256 + threadIdx.x, at = n < table_chunks ? n : n - table_chunks;
  const Index row = at / (width / 8);
  const int column = static_cast<int>(at % (width / 8)) * 8;
  if (n < table_chunks) {
    table_tiles[chunk_place(width, row, column)] = round_chunk(table, row, column);
  } else if (at < hidden_chunks) {
    hidden_tiles[chunk_place(width, row, column)] = round_chunk(hidden, row, column);
  }
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// This thread's warpgroup, in a form that the compiler knows to be the same for a warp.
__device__ inline int warpgroup() { return __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / 128, 0); }

/// A block's shared memory: the kept tiles of its warpgroups, and the ring through which tiles 0 .. count - 1 of the streamed
/// matrix pass, with 128 words for each tile's rows where there are any. Thread 0 asks for copies; a warp says when it is done.
template <int Width>
struct LossTiles {
  static constexpr LossShape shape = loss_shape(Width);
  static constexpr int slack = 2;  // tiles that a warpgroup may be ahead of another before thread 0 waits for that
  using Tile64 = Panels<Width, 64>;
  std::uint32_t base, barriers;
  const unsigned char* tiles;
  const float* terms;
  int count;

  /// @param words  1 + 2 * stages words of 8 bytes for barriers
  __device__ LossTiles(unsigned char* memory, std::uint64_t* words, const bf16* kept, const bf16* streamed, const float* terms_,
                       LossCut cut)
      : base((shared_address(memory) + 1023) / 1024 * 1024),
        barriers(shared_address(words)),
        tiles(reinterpret_cast<const unsigned char*>(streamed) + Index{blockIdx.y} * cut.each * shape.tile_bytes()),
        terms(terms_ == nullptr ? nullptr : terms_ + Index{blockIdx.y} * cut.each * 128),
        count(min(cut.each, cut.tiles - static_cast<int>(blockIdx.y) * cut.each)) {
    if (threadIdx.x == 0) {
      init_barrier(barriers, 1);
      for (int s = 0; s < shape.stages; ++s) {
        init_barrier(full(s), 1);
        init_barrier(empty(s), shape.threads() / 32);
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      fence_async();
    }
    follow();
    if (threadIdx.x == 0) {
      constexpr int bytes = shape.groups * shape.tile_bytes();
      arrive_and_expect(barriers, bytes);
      copy_bytes(base, reinterpret_cast<const unsigned char*>(kept) + Index{blockIdx.x} * bytes, bytes, barriers);
      for (int n = 0; n < min(shape.stages, count); ++n) fetch(n);
    }
    __syncthreads();
  }
  __device__ std::uint32_t full(int n) const { return barriers + 8 + static_cast<std::uint32_t>(n % shape.stages * 16); }
  __device__ std::uint32_t empty(int n) const { return full(n) + 8; }
  __device__ std::uint32_t stage(int n) const {
    return base + static_cast<std::uint32_t>(shape.groups * shape.tile_bytes() + n % shape.stages * shape.stage_bytes());
  }
  __device__ Tile64 kept(int group) const { return {base + static_cast<std::uint32_t>(group * shape.tile_bytes())}; }
  __device__ Tile64 tile(int n) const { return {stage(n)}; }
  __device__ std::uint32_t row_terms(int n) const { return stage(n) + shape.tile_bytes(); }

  __device__ void fetch(int n) const {
    arrive_and_expect(full(n), shape.tile_bytes() + (terms == nullptr ? 0 : 512));
    copy_bytes(stage(n), tiles + Index{n} * shape.tile_bytes(), shape.tile_bytes(), full(n));
    if (terms != nullptr) copy_bytes(row_terms(n), terms + n * 128, 512, full(n));
  }
  __device__ void wait(int n) const {
    if (n == 0) wait_barrier(barriers, 0);
    wait_barrier(full(n), static_cast<std::uint32_t>(n / shape.stages % 2));
  }
  __device__ void release(int n) const {
    if (threadIdx.x % 32 == 0) arrive(empty(n));
  }
  /// While tile n is worked on: the stage of an earlier tile takes its next one.
  __device__ void refill(int n) const {
    const int done = n - slack, next = done + shape.stages;
    if (threadIdx.x == 0 && done >= 0 && next < count) {
      wait_barrier(empty(done), static_cast<std::uint32_t>(done / shape.stages % 2));
      fetch(next);
    }
    __syncwarp();
  }
};

/// Starts s = a times the transpose of b, of 64 rows each. Descriptors count in 16 bytes.
template <int Width>
__device__ void multiply_scores(float (&s)[32], Panels<Width, 64> a, Panels<Width, 64> b) {
  const std::uint64_t left = operand(a.address), right = operand(b.address);
  pin(s);
  begin_products();
#pragma unroll
  for (int k = 0; k < Width / 16; ++k) {
    const auto at = static_cast<std::uint64_t>(k / 4 * (a.panel_bytes / 16) + k % 4 * 2);
    k == 0 ? set_product<false>(s, left, right) : add_product<false>(s, left + at, right + at);
  }
  commit_products();
}

/// Sums over streamed rows of 64 kept ones: products of 64 x 64 weights with tiles, accumulated in registers, 128 columns to a
/// product at most.
template <int Width>
struct LossSums {
  static constexpr int columns = Width < 128 ? Width : 128, products = Width / columns;
  float sums[products][columns / 2];
  std::uint32_t left[4][4];

  __device__ void clear() {
#pragma unroll
    for (int p = 0; p < products; ++p) {
#pragma unroll
      for (int n = 0; n < columns / 2; ++n) sums[p][n] = 0;
    }
  }
  __device__ void scale(float factor_0, float factor_1) {
#pragma unroll
    for (int p = 0; p < products; ++p) {
#pragma unroll
      for (int n = 0; n < columns / 2; ++n) sums[p][n] *= n % 4 < 2 ? factor_0 : factor_1;
    }
  }
  /// The weights of the next product.
  __device__ void weights(const float (&s)[32]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) as_left(left[k], s + 8 * k);
  }
  /// Starts adding the weights times a tile; until `finish` the tile must stay.
  __device__ void add(Panels<Width, 64> tile) {
    const std::uint64_t right = operand(tile.address, tile.panel_bytes);
    hold();
    begin_products();
#pragma unroll
    for (int p = 0; p < products; ++p) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        add_product<true>(sums[p], left[k], right + static_cast<std::uint64_t>(p * (columns / 64) * 512 + k * 128));
      }
    }
    commit_products();
  }
  __device__ void finish() {
    wait_products<0>();
    hold();
  }
  __device__ void hold() {
#pragma unroll
    for (int p = 0; p < products; ++p) pin(sums[p]);
#pragma unroll
    for (int n = 0; n < 16; ++n) asm volatile("" : "+r"(left[n / 4][n % 4])::"memory");
  }
  /// to[row, :] of this lane's rows, of Width columns.
  __device__ void store(float* to) const {
    const int thread = threadIdx.x % 128, lane = thread % 32;
#pragma unroll
    for (int p = 0; p < products; ++p) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float* const row = to + (thread / 32 * 16 + lane / 4 + 8 * half) * Width + p * columns + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < columns / 8; ++n) {
          *reinterpret_cast<float2*>(row + 8 * n) = {sums[p][4 * n + 2 * half], sums[p][4 * n + 2 * half + 1]};
        }
      }
    }
  }
};
#endif

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

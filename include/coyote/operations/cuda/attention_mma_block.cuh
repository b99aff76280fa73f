// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_keep.cuh"
#include "coyote/operations/cuda/attention_mma_split.cuh"
#include "coyote/operations/cuda/following.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// What the kernels of attention on mma.sync share: the cut of their work, shared memory and the tiles that go by in it, what a
// warp has of a block's rows, and launches.

/// How a kernel cuts its work. `kept` rows stay in the block, 16 a warp; tiles of `streamed` rows go by, `stages` of them in
/// memory. The columns of what is summed are split over `split` warps, which share the scores, where a thread's registers would
/// not hold them. Registers suffice for `blocks` blocks a multiprocessor.
struct TileShape {
  int width, kept, streamed, split, stages, blocks = 1;
  bool operator==(const TileShape&) const = default;

  COYOTE_HOST_DEVICE constexpr int warps() const { return kept / 16 * split; }
  COYOTE_HOST_DEVICE constexpr int threads() const { return 32 * warps(); }
  /// Bytes of `kept_tiles` kept tiles and two streamed ones in each stage.
  COYOTE_HOST_DEVICE constexpr int tile_bytes(int kept_tiles) const {
    return 2 * width * (kept_tiles * kept + stages * 2 * streamed);
  }
  /// The same with what warps tell each other of one product of 16 rows for each kept tile.
  constexpr int bytes(int kept_tiles) const {
    return tile_bytes(kept_tiles) + (split > 1 ? kept_tiles * kept / 16 * split * streamed * 64 : 0);
  }
};

/// The padded width of a head.
constexpr int padded_width(int width) { return width <= 64 ? 64 : width <= 128 ? 128 : width <= 256 ? 256 : 512; }

/// The smallest of a number over a block, with a barrier.
__device__ inline std::int32_t block_least(std::int32_t mine, std::int32_t* shared) {
  if (threadIdx.x == 0) *shared = mine;
  __syncthreads();
  atomicMin(shared, mine);
  __syncthreads();
  return *shared;
}

constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

/// A block's shared memory: `Kept` tiles of the kept rows, a ring of pairs of streamed tiles, and what warps that share scores
/// tell each other.
template <TileShape Shape, int Kept>
struct BlockTiles {
  using Scores = SharedScores<Shape.split, Shape.streamed / 8>;
  std::uint32_t address;

  explicit __device__ BlockTiles(const void* memory) : address(shared_address(memory)) {}
  __device__ Tile<Shape.width> kept(int which) const { return at(which * Shape.kept); }
  /// Of a pair, in turn `turn`.
  __device__ Tile<Shape.width> streamed(int turn, int which) const {
    return at(Kept * Shape.kept + (turn % Shape.stages * 2 + which) * Shape.streamed);
  }
  /// Of the warps that share 16 kept rows, the group, for the product with a kept tile.
  __device__ Scores scores(int part, int group, int which = 0) const {
    return {address + static_cast<std::uint32_t>(Shape.tile_bytes(Kept) + (Kept * group + which) * Scores::bytes), part,
            1 + group};
  }

  /// Start copying rows first and on.
  __device__ void keep(int which, const HeadRows& rows, std::int32_t first) const {
    copy_tile<Shape.width, Shape.kept, Shape.threads()>(kept(which), rows, first);
  }
  __device__ void fetch(int turn, int which, const HeadRows& rows, std::int32_t first) const {
    copy_tile<Shape.width, Shape.streamed, Shape.threads()>(streamed(turn, which), rows, first);
  }
  /// Lets tiles begin .. end - 1 go by: fetch(n) starts copying tile n, use(n) is called when everything that was started is
  /// there.
  template <class Fetch, class Use>
  __device__ void stream(std::int32_t begin, std::int32_t end, Fetch&& fetch, Use&& use) const {
    const auto start = [&](std::int32_t n) {
      if (n < end) fetch(n);
      commit_copies();
    };
    for (int n = 0; n < Shape.stages - 1; ++n) start(begin + n);
    for (std::int32_t n = begin; n < end; ++n) {
      start(n + Shape.stages - 1);
      wait_copies<Shape.stages - 1>();
      __syncthreads();
      use(n);
      __syncthreads();
    }
    wait_copies<0>();
    __syncthreads();
  }

 private:
  __device__ Tile<Shape.width> at(int row) const { return {address + static_cast<std::uint32_t>(2 * Shape.width * row)}; }
};

/// What a warp has of the kept rows, own .. own + 15, and of the columns of what is summed over streamed ones: its part.
template <TileShape Shape>
struct WarpShare {
  static constexpr int columns = Shape.width / Shape.split;
  int lane, part, group, own, column;

  __device__ WarpShare()
      : lane(threadIdx.x % 32),
        part(static_cast<int>(threadIdx.x) / 32 / (Shape.kept / 16)),
        group(static_cast<int>(threadIdx.x) / 32 % (Shape.kept / 16)),
        own(16 * group),
        column(part * columns) {}
  /// The lane's rows of an accumulator, two.
  __device__ int row(int half) const { return own + lane / 4 + 8 * half; }
};

/// The first keys that the lane's two rows see, and the first tile of keys that any row of the block sees.
struct FirstKeys {
  std::int32_t of_row[2] = {0, 0}, tile = 0;

  __device__ FirstKeys(const AttentionProblem<bf16>& p, const TileTask& task, const std::int32_t (&row)[2], int tile_keys,
                       std::int32_t* shared) {
    if (p.index.first == nullptr) return;
    std::int32_t mine = task.size;
    for (int half = 0; half < 2; ++half) {
      if (row[half] < task.size) mine = min(mine, of_row[half] = p.index.first[task.begin + row[half]]);
    }
    tile = block_least(mine, shared) / tile_keys;
  }
};

/// Lets a kernel, which calls `follow`, use that much shared memory, and launches it.
template <class Kernel, class... Arguments>
void launch_with_memory(Context<Cuda>& context, Kernel* kernel, const char* name, unsigned blocks, int threads, int bytes,
                        const Arguments&... arguments) {
  COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  launch_following(context, kernel, name, blocks, static_cast<unsigned>(threads), static_cast<std::size_t>(bytes), arguments...);
}

/// Calls f(std::integral_constant<int, n>) with the padded width n of a head, at most 512.
template <class F>
void with_padded_width(int width, F&& f) {
  switch (padded_width(width)) {
    case 64:
      return f(std::integral_constant<int, 64>{});
    case 128:
      return f(std::integral_constant<int, 128>{});
    case 256:
      return f(std::integral_constant<int, 256>{});
    default:
      return f(std::integral_constant<int, 512>{});
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_hopper.cuh"
#include "coyote/operations/cuda/attention_mma.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// What the kernels of attention on wgmma share: the cut of their work, and tiles that the copy engine brings.

/// How a kernel cuts its work: warpgroups of 64 rows each, rows of a streamed tile, tiles in flight.
struct GroupShape {
  int width, groups, streamed, stages;
  COYOTE_HOST_DEVICE constexpr int kept() const { return 64 * groups; }
  COYOTE_HOST_DEVICE constexpr int threads() const { return 128 * (groups + 1); }
  /// Bytes of so many kept and streamed tiles, and room to begin on a boundary of 1024.
  constexpr int bytes(int kept_tiles, int streamed_tiles) const {
    return 1024 + 2 * width * (kept_tiles * kept() + stages * streamed_tiles * streamed);
  }
};
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// A block's shared memory: `Kept` tiles of the kept rows, a ring of pairs of streamed tiles, and their barriers. One thread asks
/// for tiles, in turns 0, 1, ...; of a stage's pair it waits until the first `Releases` are released: the second with the first,
/// or each by itself.
template <GroupShape Shape, int Kept, int Releases>
struct GroupTiles {
  static constexpr int stages = Shape.stages, a_stage = 2 + Releases, barrier_count = 1 + a_stage * stages;
  using KeptTile = Panels<Shape.width, Shape.kept()>;
  using Streamed = Panels<Shape.width, Shape.streamed>;
  std::uint32_t base, barriers;

  /// With a barrier of the block.
  __device__ GroupTiles(const void* memory, const std::uint64_t (&shared)[barrier_count])
      : base((shared_address(memory) + 1023) / 1024 * 1024), barriers(shared_address(shared)) {
    if (threadIdx.x == 0) {
      init_barrier(kept_are_there(), 1);
      for (int s = 0; s < stages; ++s) {
        for (int which = 0; which < 2; ++which) init_barrier(is_there(s, which), 1);
        for (int which = 0; which < Releases; ++which) init_barrier(is_free(s, which), 4 * Shape.groups);
      }
      fence_async();
    }
    __syncthreads();
  }
  __device__ KeptTile kept(int which) const { return {base + static_cast<std::uint32_t>(which * KeptTile::bytes)}; }
  /// Of the pair in turn `turn`.
  __device__ Streamed streamed(int turn, int which) const {
    return {base + static_cast<std::uint32_t>(Kept * KeptTile::bytes + (2 * (turn % stages) + which) * Streamed::bytes)};
  }
  __device__ std::uint32_t is_there(int turn, int which) const { return barrier(turn % stages, which); }

  /// Asks for kept rows; by one thread, after expect_kept.
  __device__ void expect_kept() const { arrive_and_expect(kept_are_there(), Kept * KeptTile::bytes); }
  __device__ void keep(int which, const CUtensorMap& map, int head, int row) const {
    kept(which).copy(map, head, row, kept_are_there());
  }
  __device__ void wait_for_kept() const { wait_barrier(kept_are_there(), 0); }
  /// Asks for a streamed tile, and says that `more_bytes` will arrive with it.
  __device__ void fetch(int turn, int which, const CUtensorMap& map, int head, int row, int more_bytes = 0) const {
    if (which < Releases) wait_barrier(is_free(turn, which), static_cast<std::uint32_t>(turn / stages % 2) ^ 1);
    arrive_and_expect(is_there(turn, which), Streamed::bytes + more_bytes);
    streamed(turn, which).copy(map, head, row, is_there(turn, which));
  }
  __device__ void wait(int turn, int which) const {
    wait_barrier(is_there(turn, which), static_cast<std::uint32_t>(turn / stages % 2));
  }
  /// By one lane of every warp that multiplies.
  __device__ void release(int turn, int which = 0) const { arrive(is_free(turn, which)); }

 private:
  __device__ std::uint32_t barrier(int stage, int which) const {
    return barriers + static_cast<std::uint32_t>(8 * (1 + a_stage * stage + which));
  }
  __device__ std::uint32_t kept_are_there() const { return barriers; }
  __device__ std::uint32_t is_free(int turn, int which) const { return barrier(turn % stages, 2 + which); }
};

#endif

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

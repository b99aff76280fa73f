// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>

#include "coyote/core/cuda/context.cuh"
#include "coyote/operations/cuda/pack.cuh"
#include "coyote/operations/wkv.hpp"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// A sequence's rows are cut into slices, one or two for each warp of a block; the slices that a block has at a time are a chunk.
// A thread owns N neighbouring channels of its slice. In every step a block
//
//   1. sums up each slice by itself (numerator, denominator, exponent),
//   2. joins, for each warp, what stands before its slice: the sums that the step begins with and those of earlier slices,
//   3. finishes the slices' rows, all at the same time.
//
// So every row is read once, and those of the next step are on their way while this one's are worked on. Where there are few
// channels and sequences, a cluster of blocks shares a sequence's chunks and exchanges its sums through distributed shared memory
// (Hopper). Nothing spins on memory, and the order of all sums is fixed.

inline constexpr int wkv_warps = 8, most_wkv_cluster = 8;
/// Forward leaves the sums before every so many rows of a sequence as a checkpoint; backward works on chunks of that many.
inline constexpr int wkv_checkpoint_rows = 64;

/// Exponents are to the base 2, the hardware's own: keys, bonus and decay are multiplied by this first.
inline constexpr float wkv_log2_e = 1.4426950408889634f;
/// `highest` of sums without terms.
inline constexpr float wkv_empty = static_cast<float>(empty_exponent);

/// 2^x, log2(x) and 1 / x, good to 2^-22; numbers below the normal ones are 0.
__device__ inline float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ inline float log_of_two(float x) {
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ inline float reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// Two sums, kept as first * 2^highest and second * 2^highest: numerator and denominator, or the gradients by them.
struct WkvSums {
  float first = 0, second = 0, highest = wkv_empty;
};

/// What two exponents' powers come to next to the larger of both: one of them is 1.
struct WkvWeights {
  float a, b;
  __device__ WkvWeights(float exponent_a, float exponent_b) {
    const float difference = exponent_a - exponent_b, smaller = power_of_two(-fabsf(difference));
    a = difference >= 0 ? 1.0f : smaller;
    b = difference >= 0 ? smaller : 1.0f;
  }
};

/// past * 2^(-decay) + more
__device__ inline WkvSums combine(const WkvSums& past, float decay, const WkvSums& more) {
  const float decayed = past.highest - decay;
  const WkvWeights weights(decayed, more.highest);
  return {fmaf(weights.a, past.first, weights.b * more.first), fmaf(weights.a, past.second, weights.b * more.second),
          fmaxf(decayed, more.highest)};
}

/// The same sums, the larger of them in [1, 2): `highest` then says how large they are, however often they were decayed.
__device__ inline WkvSums normalised(const WkvSums& sums) {
  const float larger = fmaxf(fabsf(sums.first), fabsf(sums.second));
  const int exponent = __float_as_int(larger) / (1 << 23) - 127;
  if (exponent <= -127) return {};
  if (exponent >= 127) return sums;
  const float scale = __int_as_float((127 - exponent) << 23);
  return {scale * sums.first, scale * sums.second, sums.highest + static_cast<float>(exponent)};
}

/// A row's output from the sums before it.
struct WkvOutput {
  float highest, current, denominator, value;  // the shift, 2^(bonus + k - shift), the sum below, the ratio
  __device__ WkvOutput(const WkvSums& sums, float bonus, float k, float v) {
    const float key = bonus + k;
    const WkvWeights weights(sums.highest, key);
    highest = fmaxf(sums.highest, key);
    current = weights.b;
    denominator = fmaf(weights.a, sums.second, current);
    value = fmaf(weights.a, sums.first, current * v) * reciprocal(denominator);
  }
};

/// What a thread and a warp have of a slice: N neighbouring channels of so many rows, and as many times that as there are lanes;
/// the rest of the warp has the next slice.
template <int N_, int Rows_, int Lanes_>
struct WkvTile {
  static constexpr int N = N_, rows = Rows_, lanes = Lanes_, slices = 32 / Lanes_, warp_rows = Rows_ * slices;
  static_assert(slices <= 2 && wkv_checkpoint_rows % rows == 0);
};

struct WkvBlock {
  int warps, cluster;  // of a block, of blocks
};

template <class S>
struct WkvProblem {
  Sequences sequences;
  Rows<const float> decay, bonus;
  Rows<const S> k, v;
  Rows<float> checkpoints;  // forward: absent if not wanted

  /// The place of the checkpoint before a row. Packed sequences leave gaps, so that it does not depend on the sizes of others.
  __device__ std::int64_t checkpoint(std::int32_t s, std::int32_t row) const {
    const std::int32_t chunk = row / wkv_checkpoint_rows;
    if (sequences.offsets == nullptr) {
      return static_cast<std::int64_t>(s) * ((sequences.length + wkv_checkpoint_rows - 1) / wkv_checkpoint_rows) + chunk;
    }
    return sequences.begin(s) / wkv_checkpoint_rows + s + chunk;
  }
  /// How much exponents fall in a row. Finite, so that no rows times it are none: what is beyond leaves nothing anyway.
  __device__ float decay_of(Index column) const { return fminf(wkv_log2_e * expf(decay(0, column)), -wkv_empty); }
};

/// Which sequence, channels and rows a thread works on.
template <class Tile, class S>
struct WkvPlace {
  std::int32_t sequence, size;
  std::int64_t begin;
  int rank, warp, steps;
  Index block_column, column;  // the block's first, the thread's first
  bool inside;

  __device__ WkvPlace(const WkvProblem<S>& problem, WkvBlock block, Index width) {
    constexpr int channels = Tile::lanes * Tile::N;
    const auto groups = static_cast<std::int32_t>((width + channels - 1) / channels);
    const auto unit = static_cast<std::int32_t>(blockIdx.x) / block.cluster;
    rank = static_cast<int>(blockIdx.x) % block.cluster;
    sequence = unit / groups;
    begin = problem.sequences.begin(sequence);
    size = problem.sequences.size(sequence);
    warp = static_cast<int>(threadIdx.x) / 32;
    block_column = Index{unit % groups} * channels;
    column = block_column + static_cast<int>(threadIdx.x) % Tile::lanes * Tile::N;
    inside = column < width;
    const int rows = block.cluster * block.warps * Tile::warp_rows;
    steps = (size + rows - 1) / rows;
  }
  /// The first row of the block's chunk and of the thread's slice, counted in the sequence.
  __device__ std::int32_t chunk(WkvBlock block, int step) const {
    return (step * block.cluster + rank) * block.warps * Tile::warp_rows;
  }
  __device__ std::int32_t first(WkvBlock block, int step) const {
    return chunk(block, step) + static_cast<int>(threadIdx.x) / Tile::lanes * Tile::rows;
  }
};

/// Sums of all channels of a warp in shared memory.
template <class Tile>
struct SharedWkvSums {
  static constexpr int N = Tile::N;
  float values[3][N][Tile::lanes];

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % Tile::lanes; }
  /// Lanes of the warp's other slice have the same.
  __device__ void put(const WkvSums (&sums)[N]) {
    if (static_cast<int>(threadIdx.x) % 32 >= Tile::lanes) return;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[0][i][lane()] = sums[i].first;
      values[1][i][lane()] = sums[i].second;
      values[2][i][lane()] = sums[i].highest;
    }
  }
  __device__ float highest(int i) const { return values[2][i][lane()]; }
  __device__ WkvSums get(int i) const { return {values[0][i][lane()], values[1][i][lane()], highest(i)}; }
};

/// Of parts of a sequence that follow one another, the `count` ones up to `last` are added to the sums before them; each is
/// `rows` rows long. Descending: from the end of the sequence. No term waits for another; the new exponent is a whole number,
/// from which differences are exact.
template <bool Descending, int Most, class Tile, int N>
__device__ void join_sums(WkvSums (&sums)[N], const SharedWkvSums<Tile>* parts, int last, int count, int rows,
                          const float (&decay)[N]) {
  if (count == 0) return;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float per_part = -static_cast<float>(rows) * decay[i], whole = static_cast<float>(count) * per_part;
    float highest = sums[i].highest + whole;
#pragma unroll
    for (int j = 0; j < Most; ++j) {
      if (j >= count) break;
      highest = fmaxf(highest, fmaf(static_cast<float>(j), per_part, parts[Descending ? last + j : last - j].highest(i)));
    }
    highest = rintf(highest);
    const float weight = power_of_two(sums[i].highest - highest + whole);
    WkvSums joined{weight * sums[i].first, weight * sums[i].second, highest};
#pragma unroll
    for (int j = 0; j < Most; ++j) {
      if (j >= count) break;
      const WkvSums part = parts[Descending ? last + j : last - j].get(i);
      const float w = power_of_two(fmaf(static_cast<float>(j), per_part, part.highest - highest));
      joined.first = fmaf(w, part.first, joined.first);
      joined.second = fmaf(w, part.second, joined.second);
    }
    sums[i] = joined;
  }
}

/// past * 2^(-decay) + more, as join_sums does it.
__device__ inline WkvSums join(const WkvSums& past, float decay, const WkvSums& more) {
  const float highest = rintf(fmaxf(past.highest - decay, more.highest));
  const float a = power_of_two(past.highest - highest - decay), b = power_of_two(more.highest - highest);
  return {fmaf(a, past.first, b * more.first), fmaf(a, past.second, b * more.second), highest};
}

/// What the warps of a block and the blocks of a cluster tell each other, twice: what one step reads, the next does not
/// overwrite.
template <class Tile, bool Clustered>
struct WkvExchange {
  SharedWkvSums<Tile> warps[2][wkv_warps], carried[2], chunks[2][Clustered ? most_wkv_cluster : 1];

  /// Before the first step, whose parity this is, nothing is carried.
  __device__ void begin(int parity) {
    if (threadIdx.x < 32) carried[parity].put({});
  }
};

/// Publishes a slice's sums and gives what stands before the slice: of earlier rows or, descending, of later ones. What this step
/// leaves behind is `carried` of the next.
template <bool Clustered, bool Descending, class Tile, int N>
__device__ void exchange_sums(WkvExchange<Tile, Clustered>& shared, int parity, WkvBlock block, int rank, const float (&decay)[N],
                              const WkvSums (&slice)[N], WkvSums (&before)[N]) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  constexpr int step = Descending ? -1 : 1;
  const int last_warp = Descending ? 0 : block.warps - 1, earlier_warps = Descending ? block.warps - 1 - warp : warp;
  const int last_rank = Descending ? 0 : block.cluster - 1, earlier_ranks = Descending ? block.cluster - 1 - rank : rank;
  // Of a warp's two slices each thread has its own and learns the other.
  const bool is_second = (static_cast<int>(threadIdx.x) % 32 >= Tile::lanes) != Descending;
  WkvSums other[N], both[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    both[i] = slice[i];
    if constexpr (Tile::slices == 2) {
      const auto across = [](float x) { return __shfl_xor_sync(0xffffffffu, x, Tile::lanes); };
      other[i] = {across(slice[i].first), across(slice[i].second), across(slice[i].highest)};
      both[i] = join(is_second ? other[i] : slice[i], Tile::rows * decay[i], is_second ? slice[i] : other[i]);
    }
  }
  shared.warps[parity][warp].put(both);
  __syncthreads();
#if __CUDA_ARCH__ >= 900
  if constexpr (Clustered) {
    auto cluster = cooperative_groups::this_cluster();
    for (int to = warp; to < block.cluster; to += block.warps) {
      WkvSums chunk[N];
      join_sums<Descending, wkv_warps>(chunk, shared.warps[parity], last_warp, block.warps, Tile::warp_rows, decay);
      cluster.map_shared_rank(&shared, static_cast<unsigned>(to))->chunks[parity][rank].put(chunk);
    }
    cluster.sync();
  }
#endif
#pragma unroll
  for (int i = 0; i < N; ++i) before[i] = shared.carried[parity].get(i);
  const int chunk_rows = block.warps * Tile::warp_rows;
  if constexpr (Clustered) {
    join_sums<Descending, most_wkv_cluster>(before, shared.chunks[parity], rank - step, earlier_ranks, chunk_rows, decay);
  }
  join_sums<Descending, wkv_warps>(before, shared.warps[parity], warp - step, earlier_warps, Tile::warp_rows, decay);
  if (warp == last_warp) {
    WkvSums after[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      after[i] = Clustered ? shared.carried[parity].get(i) : join(before[i], Tile::warp_rows * decay[i], both[i]);
    }
    if constexpr (Clustered) {
      join_sums<Descending, most_wkv_cluster>(after, shared.chunks[parity], last_rank, block.cluster, chunk_rows, decay);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) after[i] = normalised(after[i]);
    shared.carried[1 - parity].put(after);
  }
  if constexpr (Tile::slices == 2) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (is_second) before[i] = join(before[i], Tile::rows * decay[i], other[i]);
    }
  }
}

/// How many warps share a chunk, and how many blocks a sequence: as many as find room at once, `resident` on a multiprocessor, so
/// that no block waits for another wave.
inline WkvBlock wkv_block(const Context<Cuda>& context, const Batch& batch, Index groups, int warp_rows, int resident) {
  const auto warps = static_cast<int>(std::min<Index>(wkv_warps, ceil_div(batch.length, warp_rows)));
  if (context.limits().major < 9) return {warps, 1};
  const Index room = Index{resident} * context.limits().multiprocessors / (batch.sequences * groups);
  const Index most = std::min<Index>(most_wkv_cluster, batch.length / (2 * wkv_warps * warp_rows));
  return {warps, static_cast<int>(std::clamp<Index>(room, 1, std::max<Index>(most, 1)))};
}

/// Starts kernel(arguments...) with clusters of so many blocks.
template <class... Parameters, class... Arguments>
void launch_clusters(Context<Cuda>& context, int cluster, unsigned blocks, int threads, int shared_memory,
                     void (*kernel)(Parameters...), Arguments... arguments) {
  if (shared_memory > 0) {
    COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_memory));
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = blocks;
  configuration.blockDim = static_cast<unsigned>(threads);
  configuration.dynamicSmemBytes = static_cast<std::size_t>(shared_memory);
  configuration.stream = context.stream();
  configuration.attrs = &attribute;
  configuration.numAttrs = cluster > 1 ? 1 : 0;
  COYOTE_CUDA_CHECK(cudaLaunchKernelEx(&configuration, kernel, arguments...));
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

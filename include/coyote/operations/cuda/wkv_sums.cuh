// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/context.cuh"
#include "coyote/operations/cuda/pack.cuh"
#include "coyote/operations/wkv.hpp"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// A sequence's rows are cut into slices, one for each warp of a block; the slices that a block has at a time are a chunk. A
// thread owns N neighbouring channels of its slice. In every step
//
//   1. each slice is summed up by itself (numerator, denominator, exponent),
//   2. what stands before each slice is joined: the sums that the step begins with and those of earlier slices,
//   3. the slices' rows are finished, all at the same time.
//
// So every row is read from memory once. Where there are few channels and sequences, a team of blocks shares a sequence's chunks
// and tells each other the sums by letters. The order of all sums is fixed.

inline constexpr int most_wkv_warps = 16, most_wkv_team = 16;
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

  /// `highest`, of sums without terms at whatever exponent they stand the lowest.
  __device__ float exponent() const { return first == 0 && second == 0 ? wkv_empty : highest; }
};

/// Sums of the channels that a warp has, in shared memory.
template <int N>
struct SharedWkvSums {
  static constexpr int channels = 32 * N;
  float2 pairs[channels];  // first, second
  float exponents[channels];

  /// first and second, read where this stands: a load that the compiler moves into the branch of its use waits there.
  __device__ float2 pair(int at) const {
    float2 result;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(result.x), "=f"(result.y)
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(pairs + at)))
                 : "memory");
    return result;
  }
  __device__ WkvSums get(int at) const { return {pairs[at].x, pairs[at].y, exponents[at]}; }
  __device__ void put(int at, const WkvSums& sums) {
    pairs[at] = {sums.first, sums.second};
    exponents[at] = sums.highest;
  }
  /// Those of a lane's channels.
  __device__ void put(const WkvSums (&sums)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) put(place(i), sums[i]);
  }
  /// Where a lane's channel i stands: neighbouring lanes are neighbours.
  __device__ static int place(int i) { return 32 * i + static_cast<int>(threadIdx.x) % 32; }
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

/// What a thread has of a slice: N neighbouring channels of so many rows.
template <int N_, int Rows_>
struct WkvTile {
  static constexpr int N = N_, rows = Rows_;
  static_assert(wkv_checkpoint_rows % rows == 0);
};

struct WkvBlock {
  int warps, team;  // that work on rows, of a block; blocks that share a sequence
};

/// How much exponents fall in a row. Finite, so that no rows times it are none: what is beyond leaves nothing anyway.
__device__ inline float wkv_decay(float decay) { return fminf(wkv_log2_e * expf(decay), -wkv_empty); }

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
  /// Leaves what stands before a row as a checkpoint, if one is wanted there.
  template <int N>
  __device__ void keep(std::int32_t s, std::int32_t row, Index column, const WkvSums (&before)[N]) const {
    if (checkpoints.rows == 0 || row % wkv_checkpoint_rows != 0) return;
    float* to = checkpoints.row(checkpoint(s, row)) + column;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      to[i] = before[i].first;
      to[k.width + i] = before[i].second;
      to[2 * k.width + i] = before[i].highest;
    }
  }
};

/// Which sequence, channels and rows a thread works on.
template <class Tile, class S>
struct WkvPlace {
  std::int32_t unit, sequence, size;  // which team
  std::int64_t begin;
  int rank, warp, steps;
  Index block_column, column;  // the block's first, the thread's first
  bool inside;

  __device__ WkvPlace(const WkvProblem<S>& problem, WkvBlock block, Index width) {
    constexpr int channels = 32 * Tile::N;
    const auto groups = static_cast<std::int32_t>((width + channels - 1) / channels);
    unit = static_cast<std::int32_t>(blockIdx.x) / block.team;
    rank = static_cast<int>(blockIdx.x) % block.team;
    sequence = unit / groups;
    begin = problem.sequences.begin(sequence);
    size = problem.sequences.size(sequence);
    warp = static_cast<int>(threadIdx.x) / 32;
    block_column = Index{unit % groups} * channels;
    column = block_column + static_cast<int>(threadIdx.x) % 32 * Tile::N;
    inside = column < width;
    const int rows = block.team * block.warps * Tile::rows;
    steps = (size + rows - 1) / rows;
  }
  /// The first row of the block's chunk and of the warp's slice, counted in the sequence.
  __device__ std::int32_t chunk(WkvBlock block, int step) const { return (step * block.team + rank) * block.warps * Tile::rows; }
  __device__ std::int32_t first(WkvBlock block, int step) const { return chunk(block, step) + warp * Tile::rows; }
};

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_toeplitz.cuh"

/// Gradients of taps in bf16 on tensor cores: lags[t] = sum over sequences s and rows i of d[s, i] x[s, i - t].
///
/// With t = 8 u + v and i = p + v, lags[8 u + v] = sum over sequences and p of x[p - 8 u] d[p + v], a product of A [u, p] and
/// B [p, v], u < 16 and v < 8. A register of A holds two neighbours of x and serves every 64 lags as another fragment, so that a
/// line is read once or twice, and all lags of a channel are in registers. Flops: 2 L^2/2 per row of a channel, as forward.
/// Bytes: x and d once.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// Lags of `Blocks` blocks of 64 rows, in the accumulators of a warp: lane 4 r + q has lags 64 n + 8 r + 2 q and the next in the
/// upper half of at[n] and in the lower half of at[n + 1].
template <int Blocks>
struct LagSums {
  float at[Blocks][4] = {};

  __device__ float2 lags(int n) const {
    return n + 1 < Blocks ? make_float2(at[n][0] + at[n + 1][2], at[n][1] + at[n + 1][3]) : make_float2(at[n][0], at[n][1]);
  }
  __device__ static int first_lag(int n, int lane) { return 64 * n + 8 * (lane / 4) + 2 * (lane % 4); }

  /// lags[t] += sum over i of late[i] early[i - t] for one pair of lines. early: words of two neighbouring rows; late(j): the
  /// word of rows 8 j + 2 q + r and the next.
  template <class Late>
  __device__ void add(const unsigned* early, int lane, Late&& late) {
    constexpr int eights = 8 * Blocks;
    const int r = lane / 4;
    // Eights k - r of x as row r of the four matrices of a fragment: k = j, j + 8 (behind the last block: j again), j + 1, j + 9.
    const auto load_fragment = [&](unsigned(&to)[4], int j) {
      const int k = j + lane / 16 + (j + 8 < eights ? lane / 8 % 2 * 8 : 0);
      load_matrices(to, shared_address(early) + static_cast<unsigned>(16 * (j < 8 ? max(k - lane % 8, 0) : k - lane % 8)));
      if (j < 7 && r > j) to[0] = 0;
      if (j < 7 && r > j + 1) to[2] = 0;
    };
    // For 512 lags at a time, fragments of every other block of 64 rows and of the one behind it: each word has one register,
    // whatever its lag. (On the diagonal the block behind stands for negative lags, which nobody asks for.)
#pragma unroll
    for (int nearest = 0; nearest < Blocks; nearest += 8) {
      unsigned past[(Blocks + 1) / 2][4][4];
#pragma unroll
      for (int block = nearest; block < Blocks; ++block) {
        const int newest = block - nearest;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (newest % 2 == 0) load_fragment(past[newest / 2][i], 8 * newest + 2 * i);
          const unsigned b0 = late(8 * block + 2 * i), b1 = late(8 * block + 2 * i + 1);
#pragma unroll
          for (int k = 0; 2 * k <= newest; ++k) {
            if (newest - 2 * k < 8) multiply_add(at[block - 2 * k], past[k][i], b0, b1);
          }
        }
      }
    }
  }
};

/// Words of rows 8 j + 2 q + r and the next of a line of so many eights of rows, for LagSums.
template <int Eights>
struct TurnedLine {
  const unsigned* from;  // the lane's first word, rows rounded down to even
  int ahead;             // words from the line's to it
  bool odd;

  __device__ TurnedLine(const unsigned* line, int lane)
      : from(line + lane % 4 + lane / 8), ahead(lane % 4 + lane / 8), odd(lane / 4 % 2 != 0) {}
  __device__ unsigned operator()(int j) const {
    const auto word = [&](int n) { return j < Eights - 1 || ahead + n < 4 ? from[4 * j + n] : 0u; };
    return __byte_perm(word(0), word(1), odd ? 0x5432 : 0x3210);
  }
};

inline constexpr int lag_warps = 4;
inline constexpr int lag_stages = 3;         ///< pairs of lines that a warp has in shared memory
inline constexpr Index longest_lags = 1024;  ///< whose sums and words are in registers

/// A block takes one channel of a group of sequences, a warp one of them after the other, read ahead into a ring of its own. Of d
/// it makes a copy that begins with the second row, so that odd rows need no two words. Rows: as many as the lines have, a power
/// of two from 128 on. lags [groups][width][longest].
template <int Rows>
__global__ void __launch_bounds__(32 * lag_warps, Rows > 512 ? 3 : 4)
    lags_kernel(Lines lines, int width, int per_group, const bf16* x, const bf16* d, float* lags) {
  constexpr int vectors = Rows / 8, line = 2 * vectors;
  extern __shared__ uint4 toeplitz_memory[];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int c = static_cast<int>(blockIdx.x) % width, group = static_cast<int>(blockIdx.x) / width;
  const std::int64_t channel = c * lines.channel_pitch;
  const int end = min(lines.sequences, (group + 1) * per_group);
  uint4* const ring = toeplitz_memory + warp * lag_stages * line;
  // Half a line of banks away from the ring's, which are read in the same access.
  uint4* const shifted = toeplitz_memory + lag_warps * lag_stages * line + warp * vectors + 4;
  const bool aligned = (reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(d)) % 16 == 0;
  const auto load = [&](int s, int stage) {
    if (s < end) {
      const int n = lines.size(s);
      const std::int64_t begin = lines.begin(s) + channel;
      uint4* const to = ring + stage * line;
      if (n == Rows && aligned && begin % 8 == 0) {
        const bf16 *const x_from = x + begin + 8 * lane, *const d_from = d + begin + 8 * lane;
#pragma unroll
        for (int v = 0; v < vectors; v += 32) {
          if (vectors < 32 && lane >= vectors) break;
          copy_16_bytes(shared_address(to + v + lane), x_from + 8 * v, true);
          copy_16_bytes(shared_address(to + vectors + v + lane), d_from + 8 * v, true);
        }
      } else {
#pragma unroll 1
        for (int v = lane; v < line; v += 32)
          to[v] = load_8((v < vectors ? x : d) + begin + v % vectors * 8, n - v % vectors * 8);
      }
    }
    commit_copies();
  };
  LagSums<Rows / 64> sums;
  const int first = group * per_group + warp;
  for (int k = 0; k < lag_stages - 1; ++k) load(first + k * lag_warps, k);
  int stage = 0;
  for (int s = first; s < end; s += lag_warps) {
    load(s + (lag_stages - 1) * lag_warps, (stage + lag_stages - 1) % lag_stages);
    wait_copies<lag_stages - 1>();
    __syncwarp();
    const uint4* const early = ring + stage * line;
    const uint4* const late = early + vectors;
#pragma unroll
    for (int v = lane; v < vectors; v += 32) {
      const uint4 own = late[v];
      const unsigned next = v + 1 < vectors ? late[v + 1].x : 0u;
      shifted[v] = {__byte_perm(own.x, own.y, 0x5432), __byte_perm(own.y, own.z, 0x5432), __byte_perm(own.z, own.w, 0x5432),
                    __byte_perm(own.w, next, 0x5432)};
    }
    __syncwarp();
    const int ahead = lane % 4 + lane / 8;
    const unsigned* const from = reinterpret_cast<const unsigned*>(lane / 4 % 2 == 0 ? late : shifted) + ahead;
    sums.add(reinterpret_cast<const unsigned*>(early), lane,
             [&](int j) { return j < vectors - 1 || ahead < 4 ? from[4 * j] : 0u; });
    __syncwarp();
    stage = (stage + 1) % lag_stages;
  }
  wait_copies<0>();
  __syncthreads();
  float* const own = reinterpret_cast<float*>(toeplitz_memory);  // [lag_warps][Rows]
#pragma unroll
  for (int n = 0; n < Rows / 64; ++n) *reinterpret_cast<float2*>(own + warp * Rows + sums.first_lag(n, lane)) = sums.lags(n);
  __syncthreads();
  const int longest = lines.longest();
  for (int t = thread; t < longest; t += 32 * lag_warps) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < lag_warps; ++w) sum += own[w * Rows + t];
    lags[(static_cast<std::int64_t>(group) * width + c) * longest + t] = sum;
  }
}

template <int Rows>
constexpr int lags_shared_memory() {
  return lag_warps * (2 * lag_stages + 1) * Rows * static_cast<int>(sizeof(bf16)) + 64;
}
/// Does a batch's gradient of taps run here?
inline bool suits_lags(const Context<Cuda>& context, const Lines& lines, const LineTaps& taps) {
  return lines.longest() <= longest_lags && !taps.per_sequence &&
         lags_shared_memory<longest_lags>() <= context.limits().shared_memory;
}

/// lags [groups][width][longest] of a batch that suits, in groups of `per_group` sequences. A template so that only those who
/// call it compile it.
template <class S>
void toeplitz_lags(Context<Cuda>& context, const Lines& lines, Index width, Index groups, Index per_group, const S* x, const S* d,
                   float* lags) {
  const auto launch = [&]<int Rows>() {
    auto* const kernel = lags_kernel<Rows>;
    constexpr int bytes = lags_shared_memory<Rows>();
    if (bytes > 48 << 10) COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<static_cast<unsigned>(groups * width), 32 * lag_warps, bytes, context.stream()>>>(
        lines, static_cast<int>(width), static_cast<int>(per_group), x, d, lags);
    COYOTE_CUDA_CHECK_LAUNCH("lags_kernel");
  };
  if (lines.longest() <= 128) return launch.template operator()<128>();
  if (lines.longest() <= 256) return launch.template operator()<256>();
  if (lines.longest() <= 512) return launch.template operator()<512>();
  launch.template operator()<1024>();
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

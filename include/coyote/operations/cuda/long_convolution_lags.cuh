// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_toeplitz.cuh"

/// Gradients of taps in bf16 on tensor cores: lags[t] = sum over sequences s and rows i of d[s, i] x[s, i - t].
///
/// With t = 8 u + v and i = p + v, lags[8 u + v] = sum over sequences and p of x[p - 8 u] d[p + v], a product of A [u, p] and
/// B [p, v], u < 16 and v < 8. A register of A holds two neighbours of x and serves every 64 lags as another fragment, so that a
/// line is read once, and all lags of a channel are in registers. Flops: 2 L^2/2 per row of a channel, as forward. Bytes: x and d
/// once.
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

  /// lags[t] += sum over i of late[i] early[i - t] for one pair of lines, as words of two neighbouring rows.
  __device__ void add(const unsigned* early, const unsigned* late, int lane) {
    constexpr int eights = 8 * Blocks;
    const int r = lane / 4, q = lane % 4;
    const unsigned odd_row = r % 2 == 0 ? 0x3210 : 0x5432;  // the word of rows r and r + 1 of two words
    const unsigned* const left = early + q - 4 * r;
    const unsigned* const right = late + q + r / 2;
    // Words of rows 8 (k - r) + 2 q, and of rows 8 j + 2 q + r.
    const auto word = [&](int k) { return k < eights && (k >= 7 || r <= k) ? left[4 * k] : 0u; };
    const auto turned = [&](int j) {
      const bool last = j == eights - 1;
      const unsigned low = !last || q + r / 2 < 4 ? right[4 * j] : 0u, high = !last || q + r / 2 < 3 ? right[4 * j + 1] : 0u;
      return __byte_perm(low, high, odd_row);
    };
    // Fragments of every other block of 64 rows and of the one behind it: each word has one register, whatever its lag. (Below
    // the diagonal the block behind stands for negative lags, which nobody asks for.)
    unsigned past[(Blocks + 1) / 2][4][4];
#pragma unroll
    for (int block = 0; block < Blocks; ++block) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 8 * block + 2 * i;
        if (block % 2 == 0) {
          unsigned(&to)[4] = past[block / 2][i];
          to[0] = word(j), to[1] = word(j + 8), to[2] = word(j + 1), to[3] = word(j + 9);
        }
        const unsigned b0 = turned(j), b1 = turned(j + 1);
#pragma unroll
        for (int k = 0; 2 * k <= block; ++k) multiply_add(at[block - 2 * k], past[k][i], b0, b1);
      }
    }
  }
};

inline constexpr int lag_warps = 8;
inline constexpr int lag_stages = 3;         ///< lines that a warp has in shared memory
inline constexpr Index longest_lags = 1024;  ///< whose sums and words are in registers

/// A block takes one channel of a group of sequences, a warp one of them after the other, read ahead into a ring of its own.
/// Rows: as many as the lines have, a power of two from 128 on. lags [groups][width][longest].
template <int Rows>
__global__ void __launch_bounds__(32 * lag_warps, Rows > 512 ? 1 : 2)
    lags_kernel(Lines lines, int width, int per_group, const bf16* x, const bf16* d, float* lags) {
  constexpr int vectors = Rows / 8, line = 2 * vectors;
  extern __shared__ uint4 toeplitz_memory[];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int c = static_cast<int>(blockIdx.x) % width, group = static_cast<int>(blockIdx.x) / width;
  const std::int64_t channel = c * lines.channel_pitch;
  const int end = min(lines.sequences, (group + 1) * per_group);
  uint4* const ring = toeplitz_memory + warp * lag_stages * line;
  const auto load = [&](int s, int stage) {
    const int n = s < end ? lines.size(s) : 0;
    const std::int64_t begin = s < end ? lines.begin(s) + channel : 0;
#pragma unroll
    for (int v = lane; v < line; v += 32) {
      uint4* const to = ring + stage * line + v;
      const int t = v % vectors * 8;
      const bf16* const from = (v < vectors ? x : d) + begin + t;
      if (t >= n) {
        *to = make_uint4(0, 0, 0, 0);
      } else if (t + 8 <= n && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
        copy_16_bytes(shared_address(to), from, true);
      } else {
        *to = load_8(from, n - t);
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
    const unsigned* const words = reinterpret_cast<const unsigned*>(ring + stage * line);
    sums.add(words, words + 4 * vectors, lane);
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
  return lag_warps * lag_stages * 2 * Rows * static_cast<int>(sizeof(bf16));
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

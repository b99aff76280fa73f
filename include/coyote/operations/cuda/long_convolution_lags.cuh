// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_toeplitz.cuh"

/// Gradients of taps in bf16 on tensor cores: lags[t] = sum over sequences s and rows i of d[s, i] x[s, i - t].
///
/// For one channel, G[i, j] = sum_s d[s, i] x[s, j] is a product over sequences, of which only the sums along diagonals are
/// wanted. A warp takes one distance between a chunk of 64 rows of d and one of 32 rows of x, adds up all pairs of chunks at that
/// distance in the same accumulators, and adds along their diagonals once in the end. Flops: 2 L^2/2 per row of a channel, as
/// forward. Bytes: x and d once.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

inline constexpr int lag_rows = 64, lag_columns = 32;    ///< a warp's tile of G
inline constexpr int lag_sums = lag_rows + lag_columns;  ///< its diagonals, -31 .. 63, and one more
inline constexpr int lag_threads = 256;

__device__ inline void load_transposed(unsigned (&to)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

/// Adds the diagonals of a warp's tile to sums[32 + r - c], r its row and c its column.
__device__ inline void add_diagonals(const float (&tile)[4][4][4], float* sums, int lane) {
  const int g = lane / 4, q = lane % 4;
  // Numbers of equal 8 v = 16 m + 8 upper - 8 n share their diagonals: r - c = 8 v + g - 2 q - odd.
  float by_block[11][2] = {};  // [v + 3][odd]
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) by_block[2 * m + e / 2 - n + 3][e % 2] += tile[m][n][e];
    }
  }
  // Lane (w, q) gathers from its q what belongs to diagonals 8 v + w, v = -4 .. 7.
  float gathered[12] = {};
#pragma unroll
  for (int odd = 0; odd < 2; ++odd) {
    const int from = g + 2 * q + odd;  // this row of the block, or of the next one
#pragma unroll
    for (int v = 0; v < 11; ++v) {
      const float value = __shfl_sync(0xFFFFFFFFu, by_block[v][odd], from % 8 * 4 + q);
      gathered[v + 1] += from < 8 ? value : 0.0f;
      gathered[v] += from < 8 ? 0.0f : value;
    }
  }
#pragma unroll
  for (int v = 0; v < 12; ++v) {
    gathered[v] += __shfl_xor_sync(0xFFFFFFFFu, gathered[v], 1);
    gathered[v] += __shfl_xor_sync(0xFFFFFFFFu, gathered[v], 2);
    if (q == v % 4) sums[8 * v + g] += gathered[v];
  }
}

/// A block takes one channel of a group of sequences, `slab` of them (a multiple of 16) at a time. lags [groups][width][longest].
template <int Threads>
__global__ void __launch_bounds__(Threads, 512 / Threads)
    lags_kernel(Lines lines, int width, int per_group, int slab, const bf16* x, const bf16* d, float* lags) {
  constexpr int warps = Threads / 32;
  extern __shared__ uint4 toeplitz_memory[];
  const int longest = lines.longest(), padded = (longest + lag_rows - 1) / lag_rows * lag_rows, stride = padded + 8;
  bf16* const x_rows = reinterpret_cast<bf16*>(toeplitz_memory);
  bf16* const d_rows = x_rows + slab * stride;
  float* const sums = reinterpret_cast<float*>(d_rows + slab * stride);  // [distances][lag_sums]
  const int distances = padded / lag_columns + 1;                        // distance k is 32 (k - 1) rows
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int c = static_cast<int>(blockIdx.x) % width, group = static_cast<int>(blockIdx.x) / width;
  const std::int64_t channel = c * lines.channel_pitch;
  const int end = min(lines.sequences, (group + 1) * per_group);
  for (int i = thread; i < distances * lag_sums; i += Threads) sums[i] = 0;

  const int vectors = padded / 8;
  const unsigned d_address = shared_address(d_rows + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8);
  const unsigned x_address = shared_address(x_rows + (lane % 8 + lane / 8 % 2 * 8) * stride + lane / 16 * 8);
  for (int s0 = group * per_group; s0 < end; s0 += slab) {
    __syncthreads();
    const int count = min(slab, (end - s0 + 15) / 16 * 16);
    for (int i = thread; i < 2 * count * vectors; i += Threads) {
      const int r = i / vectors, t = i % vectors * 8, s = s0 + r % count;
      const int n = s < end ? lines.size(s) : 0;
      bf16* const to = (r < count ? x_rows : d_rows - count * stride) + r * stride + t;
      if (t >= n) {
        *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
        continue;
      }
      const bf16* const from = (r < count ? x : d) + lines.begin(s) + channel + t;
      if (t + 8 <= n && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
        copy_16_bytes(to, from);
      } else {
        *reinterpret_cast<uint4*>(to) = load_8(from, n - t);
      }
    }
    wait_for_copies();
    __syncthreads();
    // Near distances have the most pairs of chunks: warps take them forth and back.
    for (int turn = 0; turn * warps < distances; ++turn) {
      const int k = turn * warps + (turn % 2 == 0 ? warp : warps - 1 - warp);
      if (k >= distances) continue;
      const int distance = (k - 1) * lag_columns;
      float tile[4][4][4] = {};
      for (int i0 = max(0, distance + lag_rows - 1) / lag_rows * lag_rows; i0 < padded; i0 += lag_rows) {
        const int j0 = i0 - distance;
        if (j0 > padded - lag_columns) break;
        for (int row = 0; row < count; row += 16) {
          unsigned left[4][4], right[2][4];
#pragma unroll
          for (int m = 0; m < 4; ++m)
            load_transposed(left[m], d_address + static_cast<unsigned>((row * stride + i0 + 16 * m) * 2));
#pragma unroll
          for (int n = 0; n < 2; ++n)
            load_transposed(right[n], x_address + static_cast<unsigned>((row * stride + j0 + 16 * n) * 2));
#pragma unroll
          for (int m = 0; m < 4; ++m) {
#pragma unroll
            for (int n = 0; n < 4; ++n) multiply_add(tile[m][n], left[m], right[n / 2][n % 2 * 2], right[n / 2][n % 2 * 2 + 1]);
          }
        }
      }
      add_diagonals(tile, sums + k * lag_sums, lane);
    }
  }
  __syncthreads();
  // Diagonal r - c of distance k is lag 32 (k - 1) + r - c: three distances know of each lag.
  float* const to = lags + (static_cast<std::int64_t>(group) * width + c) * longest;
  for (int t = thread; t < longest; t += Threads) {
    const int last = min(distances - 1, t / lag_columns + 2);
    float sum = 0;
    for (int k = max(0, t / lag_columns - 1); k <= last; ++k) {
      const int place = t - (k - 1) * lag_columns + lag_columns;
      if (place >= 1 && place < lag_sums) sum += sums[k * lag_sums + place];
    }
    to[t] = sum;
  }
}

inline int lags_shared_memory(Index longest, int slab) {
  const int padded = static_cast<int>(round_up(longest, lag_rows));
  return 2 * slab * (padded + 8) * 2 + (padded / lag_columns + 1) * lag_sums * 4;
}
/// As many sequences at once as two blocks per multiprocessor hold, 16 at least.
inline int lag_slab(const Context<Cuda>& context, Index longest, Index sequences) {
  int slab = 64;
  while (slab > 16 && (slab / 2 >= sequences || lags_shared_memory(longest, slab) > context.limits().shared_memory / 2))
    slab /= 2;
  return slab;
}
/// Does a batch's gradient of taps run here?
inline bool suits_lags(const Context<Cuda>& context, const Lines& lines, const LineTaps& taps) {
  return lines.longest() <= 1024 && !taps.per_sequence &&
         lags_shared_memory(lines.longest(), 16) <= context.limits().shared_memory;
}

/// lags [groups][width][longest] of a batch that suits, in groups of `per_group` sequences. A template so that only those who
/// call it compile it.
template <class S>
void toeplitz_lags(Context<Cuda>& context, const Lines& lines, Index width, Index groups, Index per_group, const S* x, const S* d,
                   float* lags) {
  const int slab = lag_slab(context, lines.longest(), per_group), bytes = lags_shared_memory(lines.longest(), slab);
  auto* const kernel = lags_kernel<lag_threads>;
  if (bytes > 48 << 10) COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  kernel<<<static_cast<unsigned>(groups * width), lag_threads, bytes, context.stream()>>>(
      lines, static_cast<int>(width), static_cast<int>(per_group), slab, x, d, lags);
  COYOTE_CUDA_CHECK_LAUNCH("lags_kernel");
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

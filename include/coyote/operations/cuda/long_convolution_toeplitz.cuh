// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_words.cuh"

/// Long convolutions in bf16 as products with Toeplitz matrices on tensor cores (mma.sync, any device from 8.0 on).
///
/// For one channel, Y [sequences, l] = X [sequences, j] T, T[j, l] = taps[l - j]. The operand T never exists: in a fragment of
/// m16n8k16 a register holds two neighbours of a column, that is taps[x] and taps[x - 1] with x = l - j; it depends on the
/// diagonal alone. So one register per 8 diagonals, read from an array of pairs, serves all tiles on that diagonal.
/// Flops: 2 L^2/2 per row. Bytes: each row once in and out; the filter once per block of sequences.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

inline constexpr int toeplitz_chunk = 64;  ///< rows are cut in chunks: a warp makes 16 sequences x 64 columns at a time

/// words[i] of lane 4 r + q becomes what word q of lane 4 r + i was: a transposition among the four lanes of a row.
__device__ inline void transpose_quad(unsigned (&words)[4], int q) {
#pragma unroll
  for (int reach = 1; reach <= 2; reach *= 2) {
    const bool upper = (q & reach) != 0;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int low = reach == 1 ? 2 * k : k, high = low + reach;
      const unsigned other = __shfl_xor_sync(0xFFFFFFFFu, upper ? words[low] : words[high], reach);
      if (upper) {
        words[low] = other;
      } else {
        words[high] = other;
      }
    }
  }
}

/// Pairs of neighbouring taps by diagonal: pairs[16 + x] = (taps[x], taps[x - 1]), or (taps[x], taps[x + 1]) for the adjoint, for
/// -16 <= x < padded; taps outside 0 .. count - 1 are 0.
template <bool Adjoint>
__device__ inline void fill_pairs(unsigned* pairs, const float* taps, int count, int padded, int thread, int threads) {
  for (int x = thread - 16; x < padded; x += threads) {
    const int other = Adjoint ? x + 1 : x - 1;
    pairs[16 + x] = pack(x >= 0 && x < count ? taps[x] : 0.0f, other >= 0 && other < count ? taps[other] : 0.0f);
  }
}

/// The sums of one chunk of columns, for 16 sequences in shared memory from `rows` on (`stride` values apart), over all chunks of
/// inputs that it sees: sums[i] is the fragment of columns 8 i .. 8 i + 7.
template <bool Adjoint>
__device__ inline void toeplitz_chunk_sums(float (&sums)[8][4], const bf16* rows, int stride, const unsigned* pairs, int chunk,
                                           int chunks) {
  const int lane = static_cast<int>(threadIdx.x) % 32, n = lane / 4, q = lane % 4;
  const unsigned* const own = pairs + 16 + (Adjoint ? 2 * q - n : n - 2 * q);
  const unsigned address = shared_address(rows + (lane % 16) * stride + lane / 16 * 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[i][e] = 0;
  }
  // diagonals[8 + s]: the pairs of diagonal 64 * distance + 8 s; the lower half is the upper one of the distance before.
  unsigned diagonals[16];
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    diagonals[e] = 0;
    diagonals[8 + e] = own[8 * e];
  }
  const auto step = [&](int source, auto on_diagonal) {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      unsigned a[4];
      load_matrices(a, address + static_cast<unsigned>((source * toeplitz_chunk + m * 16) * 2));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int s = Adjoint ? 2 * m - i : i - 2 * m;
        if (decltype(on_diagonal)::value && s < (Adjoint ? -1 : 0)) continue;
        multiply_add(sums[i], a, diagonals[8 + s], diagonals[Adjoint ? 9 + s : 7 + s]);
      }
    }
  };
  step(chunk, std::true_type{});
  const int distances = Adjoint ? chunks - chunk : chunk + 1;
#pragma unroll 1
  for (int distance = 1; distance < distances; ++distance) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      diagonals[e] = diagonals[8 + e];
      diagonals[8 + e] = own[toeplitz_chunk * distance + 8 * e];
    }
    step(Adjoint ? chunk + distance : chunk - distance, std::false_type{});
  }
}

/// How a block divides lines: 16 * row_warps sequences; chunks of columns among column_warps warps each.
struct ToeplitzShape {
  int row_warps = 4, column_warps = 1;
  friend bool operator==(const ToeplitzShape&, const ToeplitzShape&) = default;
};

/// One channel of 16 * RowWarps sequences, all of whose values stand in shared memory.
template <int RowWarps, int ColumnWarps, bool Adjoint>
__global__ void __launch_bounds__(32 * RowWarps * ColumnWarps, 768 / (32 * RowWarps * ColumnWarps))
    toeplitz_lines_kernel(Lines lines, int row_blocks, const bf16* x, LineTaps taps, bf16* y) {
  constexpr int threads = 32 * RowWarps * ColumnWarps, rows = 16 * RowWarps;
  extern __shared__ uint4 toeplitz_memory[];
  const int chunks = (lines.longest() + toeplitz_chunk - 1) / toeplitz_chunk;
  const int padded = chunks * toeplitz_chunk, stride = padded + 8;
  bf16* const shared = reinterpret_cast<bf16*>(toeplitz_memory);
  unsigned* const pairs = reinterpret_cast<unsigned*>(shared + rows * stride);
  const int thread = static_cast<int>(threadIdx.x);
  const int c = static_cast<int>(blockIdx.x) / row_blocks, s0 = static_cast<int>(blockIdx.x) % row_blocks * rows;
  const std::int64_t channel = c * lines.channel_pitch;

  const int vectors = padded / 8;
  for (int i = thread; i < rows * vectors; i += threads) {
    const int r = i / vectors, t = i % vectors * 8, s = s0 + r;
    const int n = s < lines.sequences ? lines.size(s) : 0;
    bf16* const to = shared + r * stride + t;
    if (t >= n) {
      *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
      continue;
    }
    const bf16* const from = x + lines.begin(s) + channel + t;
    if (t + 8 <= n && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
      copy_16_bytes(shared_address(to), from, true);
    } else {
      *reinterpret_cast<uint4*>(to) = load_8(from, n - t);
    }
  }
  fill_pairs<Adjoint>(pairs, taps.data + c * taps.channel_pitch, taps.count, padded, thread, threads);
  commit_copies();
  wait_copies<0>();
  __syncthreads();

  const int warp = thread / 32, row_warp = warp % RowWarps, column_warp = warp / RowWarps;
  const int lane = thread % 32, n_lane = lane / 4, q = lane % 4;
  // Chunks have 1, 2, .. units of work: a warp takes pairs of them whose sum is the same.
  for (int pair = column_warp; 2 * pair < chunks; pair += ColumnWarps) {
#pragma unroll 1
    for (int half = 0; half < 2; ++half) {
      const int chunk = half == 0 ? chunks - 1 - pair : pair;
      if (half == 1 && chunk == chunks - 1 - pair) break;
      float sums[8][4];
      toeplitz_chunk_sums<Adjoint>(sums, shared + row_warp * 16 * stride, stride, pairs, chunk, chunks);
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const int s = s0 + row_warp * 16 + upper * 8 + n_lane;
        const int n = s < lines.sequences ? lines.size(s) : 0;
#pragma unroll
        for (int g = 0; g < 2; ++g) {
          unsigned words[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) words[i] = pack(sums[4 * g + i][2 * upper], sums[4 * g + i][2 * upper + 1]);
          transpose_quad(words, q);
          const int t = chunk * toeplitz_chunk + (4 * g + q) * 8;
          if (t < n) store_8(y + lines.begin(s) + channel + t, make_uint4(words[0], words[1], words[2], words[3]), n - t);
        }
      }
    }
  }
}

/// Bytes of shared memory of a block.
inline Index toeplitz_shared_memory(const ToeplitzShape& shape, Index longest) {
  const Index padded = round_up(longest, toeplitz_chunk);
  return 16 * shape.row_warps * (padded + 8) * static_cast<Index>(sizeof(bf16)) +
         (padded + 16) * static_cast<Index>(sizeof(unsigned));
}

/// As many sequences per block as a third of 220 KB holds, so that blocks overlap each other's loads; fewer where there are
/// fewer.
constexpr ToeplitzShape toeplitz_shape(Index longest, Index sequences) {
  if (longest <= 128 && sequences > 32) return {4, 1};
  if (longest <= 512 && sequences > 32) return {4, 2};
  if (longest <= 1024 && sequences > 16) return {2, 4};
  return {1, 8};
}

/// The longest rows that Toeplitz products on mma.sync take over from transforms.
inline constexpr Index longest_toeplitz = 2048;

/// y = taps * x, or for the adjoint y[j] = sum_t taps[t] x[j + t]; y may be x. A template so that
/// only those who call it compile it.
template <class S>
void toeplitz_convolve(Context<Cuda>& context, const Lines& lines, Index width, const S* x, const LineTaps& taps, S* y,
                       bool adjoint) {
  const ToeplitzShape shape = toeplitz_shape(lines.longest(), lines.sequences);
  const auto launch = [&]<int RowWarps, int ColumnWarps, bool Adjoint>() {
    auto* const kernel = toeplitz_lines_kernel<RowWarps, ColumnWarps, Adjoint>;
    const int bytes = static_cast<int>(toeplitz_shared_memory(shape, lines.longest()));
    if (bytes > 48 << 10) {
      COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
    const Index row_blocks = ceil_div(lines.sequences, 16 * RowWarps);
    kernel<<<static_cast<unsigned>(row_blocks * width), 32 * RowWarps * ColumnWarps, bytes, context.stream()>>>(
        lines, static_cast<int>(row_blocks), x, taps, y);
    COYOTE_CUDA_CHECK_LAUNCH("toeplitz_lines_kernel");
  };
  const auto launch_shape = [&]<bool Adjoint>() {
    if (shape == ToeplitzShape{4, 1}) launch.template operator()<4, 1, Adjoint>();
    if (shape == ToeplitzShape{4, 2}) launch.template operator()<4, 2, Adjoint>();
    if (shape == ToeplitzShape{2, 4}) launch.template operator()<2, 4, Adjoint>();
    if (shape == ToeplitzShape{1, 8}) launch.template operator()<1, 8, Adjoint>();
  };
  if (adjoint) {
    launch_shape.template operator()<true>();
  } else {
    launch_shape.template operator()<false>();
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

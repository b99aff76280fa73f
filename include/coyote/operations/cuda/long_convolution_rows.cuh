// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_layout.cuh"
#include "coyote/operations/cuda/long_convolution_toeplitz.cuh"

/// Toeplitz products on tensor cores for rows [rows, width] as they are, causal sequences of up to 512 rows.
///
/// A block takes 16 channels of 8 sequences, turns them in shared memory to [channel][sequence][row] on the way in and back on
/// the way out; the epilogue (bias, gate) is done on whole rows. A warp has a channel: Y [row, sequence] = T X, T the 16 x 16
/// tiles of taps[l - j] in registers, one per 8 diagonals as in long_convolution_toeplitz.cuh. Results overwrite the channel's
/// inputs from the last chunk to the first, when nobody reads them any more. The adjoint is the same on sequences read backwards.
/// Bytes: each value once in and out, filters once per 8 sequences (from cache).
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

inline constexpr int tile_channels = 16, tile_sequences = 8;
/// The longest rows that fit in shared memory.
inline constexpr Index longest_row_tile = 512;

/// A channel's values: words of two neighbouring rows. The upper 8 channels stand 16 words across, so that a warp that turns rows
/// of 16 channels meets no bank twice.
struct RowTile {
  unsigned* words;
  int stride;  ///< words per sequence: half the padded length and 4, so that 8 sequences' vectors meet no bank twice

  __device__ static int across(int channel) { return channel / 8 * 16; }
  __device__ unsigned* line(int channel, int sequence) const { return words + (channel * tile_sequences + sequence) * stride; }
  /// Rows 2 p and 2 p + 1.
  __device__ unsigned& at(int channel, int sequence, int p) const { return line(channel, sequence)[p ^ across(channel)]; }
};

/// Transposes an 8 x 8 matrix of bf16, a row's four words in four neighbouring lanes.
__device__ inline unsigned transpose_matrix(unsigned words) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(words));
  return result;
}

/// One channel: y = T x for the chunks of 64 rows of 8 sequences, in place. pairs as in fill_pairs.
__device__ inline void toeplitz_channel(const RowTile& tile, int channel, const unsigned* pairs, int chunks, int lane) {
  const int n = lane / 4, q = lane % 4, across = 2 * RowTile::across(channel);
  const unsigned* const own = pairs + 16 + n - 2 * q;
  const unsigned base = shared_address(tile.line(channel, lane % 8));
#pragma unroll 1
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    float sums[4][4] = {};
    unsigned diagonals[16];
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      diagonals[e] = 0;
      diagonals[8 + e] = own[8 * e];
    }
    const auto step = [&](int source, auto on_diagonal) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        unsigned b[4];
        load_matrices(b, base + static_cast<unsigned>(((source * toeplitz_chunk + half * 32 + lane / 8 * 8) ^ across) * 2));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int s = 2 * i - 2 * (2 * half + m);
            if (decltype(on_diagonal)::value && s < 0) continue;
            const unsigned a[4] = {diagonals[8 + s], diagonals[9 + s], diagonals[7 + s], diagonals[8 + s]};
            multiply_add(sums[i], a, b[2 * m], b[2 * m + 1]);
          }
        }
      }
    };
    step(chunk, std::true_type{});
#pragma unroll 1
    for (int distance = 1; distance <= chunk; ++distance) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        diagonals[e] = diagonals[8 + e];
        diagonals[8 + e] = own[toeplitz_chunk * distance + 8 * e];
      }
      step(chunk - distance, std::false_type{});
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const unsigned words = transpose_matrix(pack(sums[i][2 * upper], sums[i][2 * upper + 1]));
        tile.at(channel, n, (chunk * toeplitz_chunk + i * 16 + upper * 8) / 2 + q) = words;
      }
    }
    __syncwarp();
  }
}

template <int Warps, bool Adjoint>
__global__ void __launch_bounds__(32 * Warps, Warps == 8 ? 3 : 1)
    toeplitz_rows_kernel(Sequences sequences, int channel_tiles, Rows<const bf16> x, Rows<const float> taps,
                         Epilogue<bf16> epilogue) {
  constexpr int threads = 32 * Warps;
  extern __shared__ uint4 toeplitz_memory[];
  const int padded = (sequences.length + toeplitz_chunk - 1) / toeplitz_chunk * toeplitz_chunk;
  const RowTile tile{reinterpret_cast<unsigned*>(toeplitz_memory), padded / 2 + 4};
  unsigned* const all_pairs = tile.words + tile_channels * tile_sequences * tile.stride;
  const int pair_stride = padded + 17, width = static_cast<int>(x.width);
  const int c0 = static_cast<int>(blockIdx.x) % channel_tiles * tile_channels;
  const int s0 = static_cast<int>(blockIdx.x) / channel_tiles * tile_sequences;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int half = lane % 2, c = c0 + 8 * half, valid = width - c;

  // A warp moves pieces of 32 rows of 16 channels of one sequence: use(which of the batch, sequence in the tile, its rows, where
  // it begins, this lane's pair of rows).
  constexpr int batch = Warps == 8 ? 2 : 4;  // pieces that a warp has under way
  const auto each_piece = [&](int first, auto&& use) {
    const int pieces = padded / 32;
#pragma unroll
    for (int k = 0; k < batch; ++k) {
      const int piece = first + k * Warps;
      if (piece >= tile_sequences * pieces) return;
      const int b = piece / pieces, s = s0 + b;
      const int n = s < sequences.sequences ? sequences.size(s) : 0;
      use(k, b, n, n > 0 ? sequences.begin(s) : 0, piece % pieces * 16 + lane / 2);
    }
  };
  const auto row_at = [](int n, int position) { return Adjoint ? n - 1 - position : position; };

  for (int first = warp; first < tile_sequences * (padded / 32); first += batch * Warps) {
    uint4 rows[batch][2];
#pragma unroll
    for (int k = 0; k < batch; ++k) rows[k][0] = rows[k][1] = make_uint4(0, 0, 0, 0);
    each_piece(first, [&](int k, int, int n, Index begin, int p) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (2 * p + r < n && valid > 0) rows[k][r] = load_8(&x(begin + row_at(n, 2 * p + r), c), valid);
      }
    });
    each_piece(first, [&](int k, int b, int, Index, int p) {
      const unsigned even[4] = {rows[k][0].x, rows[k][0].y, rows[k][0].z, rows[k][0].w};
      const unsigned odd[4] = {rows[k][1].x, rows[k][1].y, rows[k][1].z, rows[k][1].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        tile.at(8 * half + 2 * i, b, p) = __byte_perm(even[i], odd[i], 0x5410);
        tile.at(8 * half + 2 * i + 1, b, p) = __byte_perm(even[i], odd[i], 0x7632);
      }
    });
  }
#pragma unroll 4
  for (int i = thread; i < tile_channels * (padded + 16); i += threads) {
    const int channel = i % tile_channels, t = i / tile_channels - 16;
    const bool there = c0 + channel < width;
    const auto tap = [&](int k) { return there && k >= 0 && k < sequences.length ? taps(k, c0 + channel) : 0.0f; };
    all_pairs[channel * pair_stride + t + 16] = pack(tap(t), tap(t - 1));
  }
  int longest = 0;
  for (int b = 0; b < tile_sequences; ++b) {
    if (s0 + b < sequences.sequences) longest = max(longest, sequences.size(s0 + b));
  }
  __syncthreads();
  for (int channel = warp; channel < tile_channels; channel += Warps) {
    toeplitz_channel(tile, channel, all_pairs + channel * pair_stride, (longest + toeplitz_chunk - 1) / toeplitz_chunk, lane);
  }
  __syncthreads();
  for (int first = warp; first < tile_sequences * (padded / 32); first += batch * Warps) {
    uint4 gates[batch][2];
    each_piece(first, [&](int k, int, int n, Index begin, int p) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (2 * p + r < n && valid > 0) gates[k][r] = epilogue.load_gate(begin + row_at(n, 2 * p + r), c, valid);
      }
    });
    each_piece(first, [&](int k, int b, int n, Index begin, int p) {
      if (2 * p >= n || valid <= 0) return;
      Eight values[2];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const unsigned word = tile.at(8 * half + i, b, p);
        values[0].at[i] = low_half(word);
        values[1].at[i] = high_half(word);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int position = row_at(n, 2 * p + r);
        if (2 * p + r < n) epilogue.finish(begin + position, position, c, values[r], valid, gates[k][r]);
      }
    });
  }
}

inline int row_tile_shared_memory(Index longest) {
  const int padded = static_cast<int>(round_up(longest, toeplitz_chunk));
  return tile_channels * (tile_sequences * (padded + 8) * 2 + (padded + 17) * 4);
}
/// Does a batch of causal sequences run on row tiles?
inline bool suits_row_tiles(const Context<Cuda>& context, const Sequences& sequences) {
  return sequences.length <= longest_row_tile && row_tile_shared_memory(sequences.length) <= context.limits().shared_memory;
}

/// epilogue(taps * x), or of the adjoint, for causal sequences that suit.
inline void toeplitz_rows(Context<Cuda>& context, const Sequences& sequences, Rows<const bf16> x, Rows<const float> taps,
                          bool adjoint, const Epilogue<bf16>& epilogue) {
  const int bytes = row_tile_shared_memory(sequences.length);
  const Index tiles = ceil_div(x.width, tile_channels);
  const auto launch = [&](auto* kernel, int warps) {
    if (bytes > 48 << 10) {
      COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
    kernel<<<static_cast<unsigned>(tiles * ceil_div(sequences.sequences, tile_sequences)), 32 * warps, bytes, context.stream()>>>(
        sequences, static_cast<int>(tiles), x, taps, epilogue);
    COYOTE_CUDA_CHECK_LAUNCH("toeplitz_rows_kernel");
  };
  // Two blocks or more per multiprocessor overlap each other's copies; one alone needs the more warps.
  if (sequences.length <= 256) {
    launch(adjoint ? toeplitz_rows_kernel<8, true> : toeplitz_rows_kernel<8, false>, 8);
  } else {
    launch(adjoint ? toeplitz_rows_kernel<16, true> : toeplitz_rows_kernel<16, false>, 16);
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_keep.cuh"
#include "coyote/operations/cuda/attention_mma_split.cuh"
#include "coyote/operations/cuda/following.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Attention over intervals of keys on the tensor cores of sm_80 and up (mma.m16n8k16), bf16, any head up to 512 wide, padded
// with zeros to a power of two; any stride and alignment. The algorithm is FlashAttention-2's (Dao, arXiv 2307.08691): a block
// keeps a tile of queries, streams tiles of keys and values through shared memory and holds the running softmax and the
// output in registers. 4 * width flop per pair; bytes: q, k, v, y once, as far as the second-level cache holds keys.

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

COYOTE_HOST_DEVICE constexpr TileShape forward_shape(int width) {
  if (width == 64) return {.width = 64, .kept = 64, .streamed = 64, .split = 1, .stages = 2, .blocks = 4};
  if (width == 128) return {.width = 128, .kept = 64, .streamed = 64, .split = 1, .stages = 2, .blocks = 2};
  if (width == 256) return {.width = 256, .kept = 64, .streamed = 32, .split = 2, .stages = 2, .blocks = 2};
  return {.width = 512, .kept = 64, .streamed = 32, .split = 2, .stages = 2};
}

/// The smallest of a number over a block, with a barrier.
__device__ inline std::int32_t block_least(std::int32_t mine, std::int32_t* shared) {
  if (threadIdx.x == 0) *shared = mine;
  __syncthreads();
  atomicMin(shared, mine);
  __syncthreads();
  return *shared;
}

constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

template <int Width>
__global__ void __launch_bounds__(forward_shape(Width).threads(), forward_shape(Width).blocks)
    mma_forward(AttentionProblem<bf16> p, Rows<bf16> y, Rows<float> log_sum_exp) {
  constexpr TileShape shape = forward_shape(Width);
  constexpr int width = Width, kept = shape.kept, keys = shape.streamed, threads = shape.threads();
  constexpr int columns = width / shape.split;
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ std::int32_t least;
  follow();
  const TileTask task(p.sequences, p.heads, kept, true);
  const std::int32_t first_row = task.tile * kept;
  if (first_row >= task.size) return;
  const Tile<width> queries{shared_address(memory)};
  const auto stage = [&](int n, int which) {
    return Tile<width>{queries.address + static_cast<std::uint32_t>(2 * width * (kept + (n % shape.stages * 2 + which) * keys))};
  };
  const HeadRows q(p.q, task.begin, task.size, task.head, p.width), k(p.k, task.begin, task.size, task.head, p.width),
      v(p.v, task.begin, task.size, task.head, p.width);
  copy_tile<width, kept, threads>(queries, q, first_row);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int part = warp / (kept / 16), group = warp % (kept / 16), own = 16 * group, column = part * columns;
  const std::int32_t row[2] = {first_row + own + lane / 4, first_row + own + lane / 4 + 8};
  std::int32_t first_key[2] = {0, 0}, begin_tile = 0;
  if (p.index.first != nullptr) {
    std::int32_t mine = task.size;
    for (int half = 0; half < 2; ++half) {
      if (row[half] < task.size) mine = min(mine, first_key[half] = p.index.first[task.begin + row[half]]);
    }
    begin_tile = block_least(mine, &least) / keys;
  }
  const std::int32_t tiles = (min(task.size, first_row + kept) + keys - 1) / keys;
  const auto fetch = [&](std::int32_t n) {
    if (n < tiles) {
      copy_tile<width, keys, threads>(stage(n, 0), k, n * keys);
      copy_tile<width, keys, threads>(stage(n, 1), v, n * keys);
    }
    commit_copies();
  };
  for (int n = 0; n < shape.stages - 1; ++n) fetch(begin_tile + n);

  using Scores = SharedScores<shape.split, keys / 8>;
  const Scores scores{queries.address + static_cast<std::uint32_t>(shape.tile_bytes(1) + group * Scores::bytes), part, 1 + group};
  float out[columns / 8][4], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  clear(out);
  const float scale = p.scale * log2_e;
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  for (std::int32_t n = begin_tile; n < tiles; ++n) {
    fetch(n + shape.stages - 1);
    wait_copies<shape.stages - 1>();
    __syncthreads();
    const std::int32_t key = n * keys;
    // Keys behind all of a warp's rows have nothing to give.
    if (key <= first_row + own + 15) {
      float s[keys / 8][4];
      if constexpr (shape.split == 1) {
        clear(s);
        multiply_transposed(s, queries, own, stage(n, 0));
      } else {
        scores.give_sums(queries, own, stage(n, 0));
        scores.meet();
        scores.take_sums(s, 0);
      }
      const bool masked = p.index.first != nullptr || key + keys - 1 > first_row + own;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = most[half];
#pragma unroll
        for (int m = 0; m < keys / 8; ++m) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s[m][e] *= scale;
            if (masked) {
              const std::int32_t j = key + 8 * m + 2 * (lane % 4) + e % 2;
              if (j > row[half] || j < first_key[half]) s[m][e] = -INFINITY;
            }
            highest = fmaxf(highest, s[m][e]);
          }
        }
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
        const float shift = highest == -INFINITY ? 0.0f : highest, shrink = exp2_fast(most[half] - shift);
        most[half] = highest;
        total[half] *= shrink;
#pragma unroll
        for (int m = 0; m < keys / 8; ++m) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) total[half] += s[m][e] = exp2_fast(s[m][e] - shift);
        }
#pragma unroll
        for (int m = 0; m < columns / 8; ++m) {
          out[m][2 * half] *= shrink;
          out[m][2 * half + 1] *= shrink;
        }
        if (p.dropout.active()) {
          const std::uint64_t bits =
              row_keeps<keys>(p.dropout, step, static_cast<std::uint64_t>((task.begin + row[half]) * p.heads + task.head),
                              static_cast<std::uint64_t>(task.begin + key)) >>
              2 * (lane % 4);
#pragma unroll
          for (int m = 0; m < keys / 8; ++m) {
#pragma unroll
            for (int i = 0; i < 2; ++i) s[m][2 * half + i] = bits >> (8 * m + i) & 1 ? s[m][2 * half + i] : 0.0f;
          }
        }
      }
      std::uint32_t left[keys / 16][4];
      as_operands(left, s);
      multiply(out, left, stage(n, 1), column / 8);
    }
    __syncthreads();
  }
  wait_copies<0>();
  __syncthreads();

  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(0xffffffffu, total[half], 1);
    total[half] += __shfl_xor_sync(0xffffffffu, total[half], 2);
    inverse[half] = total[half] == 0 ? 0.0f : p.dropout.scale / total[half];
    if (log_sum_exp.rows > 0 && column == 0 && lane % 4 == 0 && row[half] < task.size) {
      log_sum_exp(task.begin + row[half], task.head) = total[half] == 0 ? -INFINITY : (most[half] + log2f(total[half])) * ln_2;
    }
  }
  store_rows(out, inverse[0], inverse[1], queries, own, column, y.row(task.begin) + task.head * p.width, y.stride,
             first_row + own, task.size, p.width);
}

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

/// Sequences so short that blocks of 64 rows, several on a multiprocessor, beat Hopper's of 128.
template <class S>
bool suits_small_tiles(const AttentionProblem<S>& p) {
  return padded_width(p.width) * p.sequences.length <= 64 * 128;
}

/// False when the device has too little shared memory, or the head is too wide: the general path takes over.
template <class S>
bool launch_mma(Context<Cuda>& context, const AttentionProblem<S>& p, Rows<S> y, Rows<float> log_sum_exp) {
  if (p.width > 512 || forward_shape(padded_width(p.width)).bytes(1) > context.limits().shared_memory) return false;
  with_padded_width(p.width, [&](auto width) {
    constexpr TileShape shape = forward_shape(decltype(width)::value);
    launch_with_memory(context, mma_forward<shape.width>, "launch of mma_forward", tile_blocks(p.sequences, p.heads, shape.kept),
                       shape.threads(), shape.bytes(1), p, y, log_sum_exp);
  });
  return true;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

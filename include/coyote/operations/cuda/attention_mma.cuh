// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_mma_block.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Attention over intervals of keys on the tensor cores of sm_80 and up (mma.m16n8k16), bf16, any head up to 512 wide, padded
// with zeros to a power of two; any stride and alignment. The algorithm is FlashAttention-2's (Dao, arXiv 2307.08691): a block
// keeps a tile of queries, streams tiles of keys and values through shared memory and holds the running softmax and the
// output in registers. 4 * width flop per pair; bytes: q, k, v, y once, as far as the second-level cache holds keys.

COYOTE_HOST_DEVICE constexpr TileShape forward_shape(int width) {
  if (width == 64) return {.width = 64, .kept = 64, .streamed = 64, .split = 1, .stages = 2, .blocks = 4};
  if (width == 128) return {.width = 128, .kept = 64, .streamed = 64, .split = 1, .stages = 2, .blocks = 2};
  if (width == 256) return {.width = 256, .kept = 64, .streamed = 32, .split = 2, .stages = 2, .blocks = 2};
  return {.width = 512, .kept = 64, .streamed = 32, .split = 2, .stages = 2};
}

template <int Width>
__global__ void __launch_bounds__(forward_shape(Width).threads(), forward_shape(Width).blocks)
    mma_forward(AttentionProblem<bf16> p, Rows<bf16> y, Rows<float> log_sum_exp) {
  constexpr TileShape shape = forward_shape(Width);
  constexpr int keys = shape.streamed, columns = WarpShare<shape>::columns;
  constexpr bool alone = shape.split == 1;
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ std::int32_t least;
  follow();
  const TileTask task(p.sequences, p.heads, shape.kept, true);
  const std::int32_t first_row = task.tile * shape.kept;
  if (first_row >= task.size) return;
  const BlockTiles<shape, 1> tiles(memory);
  const Tile<Width> queries = tiles.kept(0);
  const HeadRows q = task.of(p.q, p.width), k = task.of(p.k, p.width), v = task.of(p.v, p.width);
  tiles.keep(0, q, first_row);

  const WarpShare<shape> warp;
  const int lane = warp.lane, own = warp.own;
  const std::int32_t row[2] = {first_row + warp.row(0), first_row + warp.row(1)};
  const FirstKeys first_keys(p, task, row, keys, &least);
  const auto scores = tiles.scores(warp.part, warp.group);
  float out[columns / 8][4], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  clear(out);
  const float scale = p.scale * log2_e;
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  const auto fetch = [&](std::int32_t n) {
    tiles.fetch(n, 0, k, n * keys);
    tiles.fetch(n, 1, v, n * keys);
  };
  tiles.stream(first_keys.tile, (min(task.size, first_row + shape.kept) + keys - 1) / keys, fetch, [&](std::int32_t n) {
    const std::int32_t key = n * keys;
    // Keys behind all of a warp's rows have nothing to give.
    if (key <= first_row + own + 15) {
      float s[keys / 8][4];
      if constexpr (alone) {
        clear(s);
        multiply_transposed(s, queries, own, tiles.streamed(n, 0));
      } else {
        scores.give_sums(queries, own, tiles.streamed(n, 0));
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
              if (j > row[half] || j < first_keys.of_row[half]) s[m][e] = -INFINITY;
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
          RowKeeps<keys> keeps;
          keeps.draw(p.dropout, step, p.rule_row(task.begin + row[half], task.head),
                     static_cast<std::uint64_t>(task.begin + key));
#pragma unroll
          for (int m = 0; m < keys / 8; ++m) {
#pragma unroll
            for (int i = 0; i < 2; ++i) s[m][2 * half + i] = keeps.has(m, i) ? s[m][2 * half + i] : 0.0f;
          }
        }
      }
      std::uint32_t left[keys / 16][4];
      as_operands(left, s);
      multiply(out, left, tiles.streamed(n, 1), warp.column / 8);
    }
  });

  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(0xffffffffu, total[half], 1);
    total[half] += __shfl_xor_sync(0xffffffffu, total[half], 2);
    inverse[half] = total[half] == 0 ? 0.0f : p.dropout.scale / total[half];
    if (log_sum_exp.rows > 0 && warp.part == 0 && lane % 4 == 0 && row[half] < task.size) {
      log_sum_exp(task.begin + row[half], task.head) = total[half] == 0 ? -INFINITY : (most[half] + log2f(total[half])) * ln_2;
    }
  }
  store_rows(out, inverse[0], inverse[1], queries, own, warp.column, y.row(task.begin) + task.head * p.width, y.stride,
             first_row + own, task.size, p.width);
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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_mma.cuh"
#include "coyote/operations/cuda/attention_walk.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Backward on tensor cores in two passes that each own what they sum, so that nothing is added across blocks: one keeps
// queries and streams keys (3 products of tiles: scores, <dy, v>, dq), one keeps keys and streams queries (4: scores,
// <dy, v>, dv, dk). The scores are computed twice, 14 * width flop per pair instead of 10: the price of sums in a fixed order
// without atomics, locks or a float copy of dq in memory.

COYOTE_HOST_DEVICE constexpr TileShape queries_shape(int width) {
  if (width == 64) return {.width = 64, .kept = 128, .streamed = 64, .split = 1, .stages = 2};
  if (width == 128) return {.width = 128, .kept = 128, .streamed = 64, .split = 1, .stages = 2};
  if (width == 256) return {.width = 256, .kept = 64, .streamed = 32, .split = 2, .stages = 2};
  return {.width = 512, .kept = 64, .streamed = 16, .split = 2, .stages = 2};
}
COYOTE_HOST_DEVICE constexpr TileShape keys_shape(int width) {
  if (width == 64) return {.width = 64, .kept = 128, .streamed = 64, .split = 1, .stages = 2};
  if (width == 128) return {.width = 128, .kept = 128, .streamed = 32, .split = 1, .stages = 2};
  if (width == 256) return {.width = 256, .kept = 64, .streamed = 32, .split = 2, .stages = 2};
  return {.width = 512, .kept = 32, .streamed = 32, .split = 4, .stages = 2};
}

/// The inner product of eight numbers.
__device__ inline float chunk_product(const uint4& x, const uint4& z) {
  const std::uint32_t xs[4] = {x.x, x.y, x.z, x.w}, zs[4] = {z.x, z.y, z.z, z.w};
  float sum = 0;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    sum += __uint_as_float(xs[n] << 16) * __uint_as_float(zs[n] << 16);
    sum += __uint_as_float(xs[n] & 0xffff0000u) * __uint_as_float(zs[n] & 0xffff0000u);
  }
  return sum;
}
/// The sum over `Lanes` neighbouring lanes, in each of them.
template <int Lanes>
__device__ float lanes_sum(float sum) {
#pragma unroll
  for (int n = Lanes / 2; n > 0; n /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, n);
  return sum;
}

/// The inner product of two rows, in each of the `Lanes` neighbouring lanes that share it.
template <int Lanes>
__device__ float row_product(const bf16* a, const bf16* b, int width, bool in_chunks) {
  const int lane = threadIdx.x % Lanes;
  float sum = 0;
  if (in_chunks) {
    for (int c = 8 * lane; c < width; c += 8 * Lanes) {
      sum += chunk_product(*reinterpret_cast<const uint4*>(a + c), *reinterpret_cast<const uint4*>(b + c));
    }
  } else {
#pragma unroll 1
    for (int c = lane; c < width; c += Lanes) sum += to_float(a[c]) * to_float(b[c]);
  }
  return lanes_sum<Lanes>(sum);
}

/// delta [rows, heads] = <y, dy> of every head: `Lanes` lanes each.
template <int Lanes>
__global__ void __launch_bounds__(256)
    sum_of_products(std::int64_t rows, int heads, int width, Rows<const bf16> y, Rows<const bf16> dy, Rows<float> delta) {
  follow();
  const std::int64_t task = (static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x) / Lanes;
  const std::int64_t row = min(task / heads, rows - 1);
  const int head = static_cast<int>(task % heads);
  const HeadRows a(y, row, 1, head, width), b(dy, row, 1, head, width);
  const float sum = row_product<Lanes>(a.data, b.data, width, a.in_chunks && b.in_chunks);
  if (threadIdx.x % Lanes == 0 && task / heads < rows) delta(row, head) = sum;
}

/// p becomes the probability and dp the gradient of the score, without the scale, for an accumulator element; `p` came as the
/// score times scale and log2(e). What is kept was multiplied by dropout's `factor`.
__device__ inline void probability_and_slope(float& p, float& dp, float log2_sum, float delta, bool exists, bool kept,
                                             float factor) {
  p = exists ? exp2_fast(not_positive(p - log2_sum)) : 0.0f;
  dp = p * ((kept ? dp * factor : 0.0f) - delta);
}

template <int Width>
__global__ void __launch_bounds__(queries_shape(Width).threads(), 1)
    mma_queries(AttentionProblem<bf16> p, AttentionErrors<bf16> e, Rows<bf16> dq) {
  constexpr TileShape shape = queries_shape(Width);
  constexpr int keys = shape.streamed, columns = WarpShare<shape>::columns;
  constexpr bool alone = shape.split == 1;
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ std::int32_t least;
  follow();
  const TileTask task(p.sequences, p.heads, shape.kept, true);
  const std::int32_t first_row = task.tile * shape.kept;
  if (first_row >= task.size) return;
  const BlockTiles<shape, 2> tiles(memory);
  const Tile<Width> queries = tiles.kept(0), errors = tiles.kept(1);
  const HeadRows q = task.of(p.q, p.width), k = task.of(p.k, p.width), v = task.of(p.v, p.width), dy = task.of(e.dy, p.width);
  tiles.keep(0, q, first_row);
  tiles.keep(1, dy, first_row);

  const WarpShare<shape> warp;
  const int lane = warp.lane, own = warp.own;
  const std::int32_t row[2] = {first_row + warp.row(0), first_row + warp.row(1)};
  float log2_sum[2] = {0, 0}, delta[2] = {0, 0};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (row[half] >= task.size) continue;
    log2_sum[half] = e.log_sum_exp(task.begin + row[half], task.head) * log2_e;
    delta[half] = e.delta(task.begin + row[half], task.head);
  }
  const FirstKeys first_keys(p, task, row, keys, &least);
  using Scores = typename BlockTiles<shape, 2>::Scores;
  const Scores scores = tiles.scores(warp.part, warp.group, 0), slopes = tiles.scores(warp.part, warp.group, 1);
  float sum[columns / 8][4];
  clear(sum);
  const float scale = p.scale * log2_e;
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  const auto fetch = [&](std::int32_t n) {
    tiles.fetch(n, 0, k, n * keys);
    tiles.fetch(n, 1, v, n * keys);
  };
  tiles.stream(first_keys.tile, (min(task.size, first_row + shape.kept) + keys - 1) / keys, fetch, [&](std::int32_t n) {
    const std::int32_t key = n * keys;
    if (key <= first_row + own + 15) {
      float s[Scores::owned][4], dp[Scores::owned][4];
      two_products(s, dp, scores, slopes, queries, tiles.streamed(n, 0), errors, tiles.streamed(n, 1), own);
      const int first_block = slopes.first_block();
      const bool masked = p.index.first != nullptr || key + keys - 1 > first_row + own;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        RowKeeps<keys> keeps{~std::uint64_t{0}};
        if (p.dropout.active()) {
          keeps.draw(p.dropout, step, p.rule_row(task.begin + row[half], task.head), static_cast<std::uint64_t>(task.begin + key),
                     8 * first_block);
        }
#pragma unroll
        for (int m = 0; m < Scores::owned; ++m) {
          const std::int32_t j = key + 8 * (first_block + m) + 2 * (lane % 4);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const bool exists = !masked || (j + i <= row[half] && j + i >= first_keys.of_row[half]);
            float& score = s[m][2 * half + i];
            score *= scale;
            probability_and_slope(score, dp[m][2 * half + i], log2_sum[half], delta[half], exists, keeps.has(m, i),
                                  p.dropout.scale);
          }
        }
      }
      std::uint32_t left[keys / 16][4];
      if constexpr (alone) {
        as_operands(left, dp);
      } else {
        slopes.give_operands(dp);
        slopes.meet();
        slopes.take_operands(left);
      }
      multiply(sum, left, tiles.streamed(n, 0), warp.column / 8);
    }
  });
  store_rows(sum, p.scale, p.scale, queries, own, warp.column, dq.row(task.begin) + task.head * p.width, dq.stride,
             first_row + own, task.size, p.width);
}

template <int Width>
__global__ void __launch_bounds__(keys_shape(Width).threads(), 1)
    mma_keys(AttentionProblem<bf16> p, AttentionErrors<bf16> e, Rows<bf16> dk, Rows<bf16> dv) {
  constexpr TileShape shape = keys_shape(Width);
  constexpr int rows = shape.streamed, columns = WarpShare<shape>::columns;
  constexpr bool alone = shape.split == 1;
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ std::int32_t least;
  // Of each row in the stages: the logarithm of its sum, its delta and its first key.
  __shared__ float log2_sums[shape.stages][rows], deltas[shape.stages][rows];
  __shared__ std::int32_t first_keys[shape.stages][rows];
  follow();
  const TileTask task(p.sequences, p.heads, shape.kept, false);
  const std::int32_t first_key = task.tile * shape.kept;
  if (first_key >= task.size) return;
  const BlockTiles<shape, 2> tiles(memory);
  const Tile<Width> keys = tiles.kept(0), values = tiles.kept(1);
  const HeadRows q = task.of(p.q, p.width), k = task.of(p.k, p.width), v = task.of(p.v, p.width), dy = task.of(e.dy, p.width);
  tiles.keep(0, k, first_key);
  tiles.keep(1, v, first_key);

  const WarpShare<shape> warp;
  const int lane = warp.lane, own = warp.own;
  const std::int32_t key[2] = {first_key + warp.row(0), first_key + warp.row(1)};
  std::int32_t end_row = task.size;
  if (p.index.first != nullptr) {  // behind the last row that sees one of these keys
    std::int32_t mine = 0;
    for (std::int32_t i = first_key + static_cast<std::int32_t>(threadIdx.x); i < task.size; i += shape.threads()) {
      if (p.index.first[task.begin + i] < first_key + shape.kept) mine = i + 1;
    }
    end_row = -block_least(-mine, &least);
  }
  using Scores = typename BlockTiles<shape, 2>::Scores;
  const Scores scores = tiles.scores(warp.part, warp.group, 0), slopes = tiles.scores(warp.part, warp.group, 1);
  float dkey[columns / 8][4], dvalue[columns / 8][4];
  clear(dkey);
  clear(dvalue);
  const float scale = p.scale * log2_e;
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  const auto fetch = [&](std::int32_t n) {
    tiles.fetch(n, 0, q, n * rows);
    tiles.fetch(n, 1, dy, n * rows);
    for (int r = threadIdx.x; r < rows; r += shape.threads()) {
      const std::int32_t i = n * rows + r;
      const bool exists = i < task.size;
      log2_sums[n % shape.stages][r] = exists ? e.log_sum_exp(task.begin + i, task.head) * log2_e : 0.0f;
      deltas[n % shape.stages][r] = exists ? e.delta(task.begin + i, task.head) : 0.0f;
      first_keys[n % shape.stages][r] = !exists ? task.size : p.index.first != nullptr ? p.index.first[task.begin + i] : 0;
    }
  };
  tiles.stream(first_key / rows, (end_row + rows - 1) / rows, fetch, [&](std::int32_t n) {
    const std::int32_t row = n * rows;
    if (row + rows - 1 >= first_key + own) {
      // Transposed: rows of the accumulators are keys, their columns are queries.
      float s[Scores::owned][4], dp[Scores::owned][4];
      two_products(s, dp, scores, slopes, keys, tiles.streamed(n, 0), values, tiles.streamed(n, 1), own);
      constexpr int drawn = Scores::owned >= 4 ? 32 : 8 * Scores::owned;  // rows whose draws lanes share
      const int first_row = 8 * scores.first_block();
      std::uint32_t bits[8 * Scores::owned / drawn];
#pragma unroll
      for (int some = 0; some < 8 * Scores::owned / drawn; ++some) {
        bits[some] = ~0u;
        if (p.dropout.active()) {
          const std::int32_t i = row + first_row + some * drawn + lane % drawn;
          bits[some] = sixteen_keeps<drawn>(p.dropout, step, p.rule_row(task.begin + i, task.head),
                                            static_cast<std::uint64_t>(task.begin + first_key + own));
        }
      }
#pragma unroll
      for (int m = 0; m < Scores::owned; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int r = first_row + 8 * m + 2 * (lane % 4) + i;
          const float log2_sum = log2_sums[n % shape.stages][r], delta = deltas[n % shape.stages][r];
          const std::int32_t least_key = first_keys[n % shape.stages][r];
          const std::uint32_t kept_keys = __shfl_sync(0xffffffffu, bits[8 * m / drawn], r % drawn) >> lane / 4;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float &score = s[m][2 * half + i], &slope = dp[m][2 * half + i];
            const bool exists = key[half] <= row + r && key[half] >= least_key, kept_key = kept_keys >> 8 * half & 1;
            score *= scale;
            probability_and_slope(score, slope, log2_sum, delta, exists, kept_key, p.dropout.scale);
            score = kept_key ? score : 0.0f;
          }
        }
      }
      std::uint32_t kept_probabilities[rows / 16][4], slope[rows / 16][4];
      if constexpr (alone) {
        as_operands(kept_probabilities, s);
        as_operands(slope, dp);
      } else {
        scores.give_operands(s);
        slopes.give_operands(dp);
        scores.meet();
        scores.take_operands(kept_probabilities);
        slopes.take_operands(slope);
      }
      multiply(dvalue, kept_probabilities, tiles.streamed(n, 1), warp.column / 8);
      multiply(dkey, slope, tiles.streamed(n, 0), warp.column / 8);
    }
  });
  store_rows(dkey, p.scale, p.scale, keys, own, warp.column, dk.row(task.begin) + task.head * p.width, dk.stride, first_key + own,
             task.size, p.width);
  store_rows(dvalue, p.dropout.scale, p.dropout.scale, values, own, warp.column, dv.row(task.begin) + task.head * p.width,
             dv.stride, first_key + own, task.size, p.width);
}

/// False when the device has too little shared memory, or the head is too wide: the general path takes over.
template <class S>
bool launch_mma_backward(Context<Cuda>& context, const AttentionProblem<S>& p, const AttentionErrors<S>& e, Rows<S> dq,
                         Rows<S> dk, Rows<S> dv) {
  if (p.width > 512) return false;
  const int padded = padded_width(p.width), memory = context.limits().shared_memory - 2048;  // some is static
  if (queries_shape(padded).bytes(2) > memory || keys_shape(padded).bytes(2) > memory) return false;
  constexpr int lanes = 8;
  const auto blocks = static_cast<unsigned>(ceil_div(p.sequences.rows * p.heads * lanes, 256));
  launch_following(context, &sum_of_products<lanes>, "launch of sum_of_products", blocks, 256, 0, p.sequences.rows, p.heads,
                   p.width, e.y, e.dy, e.delta);
  with_padded_width(p.width, [&](auto width) {
    constexpr TileShape by_queries = queries_shape(decltype(width)::value), by_keys = keys_shape(decltype(width)::value);
    launch_with_memory(context, mma_queries<by_queries.width>, "launch of mma_queries",
                       tile_blocks(p.sequences, p.heads, by_queries.kept), by_queries.threads(), by_queries.bytes(2), p, e, dq);
    launch_with_memory(context, mma_keys<by_keys.width>, "launch of mma_keys", tile_blocks(p.sequences, p.heads, by_keys.kept),
                       by_keys.threads(), by_keys.bytes(2), p, e, dk, dv);
  });
  return true;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_mma_backward.cuh"
#include "coyote/operations/cuda/attention_wgmma.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Backward of dense causal attention on Hopper, in the two passes of attention_mma_backward.cuh: each owns what it sums, so
// that sums have a fixed order without locks, at 14 * width flop per pair. In both, one warpgroup copies and two multiply;
// a warpgroup's last product of a tile runs while it gives the first ones of the next tile to the tensor cores, and one
// warpgroup's exponentials hide behind the other's products.

COYOTE_HOST_DEVICE constexpr GroupShape group_queries_shape(int width) {
  if (width == 64) return {.width = 64, .groups = 2, .streamed = 128, .stages = 2};
  return {.width = 128, .groups = 2, .streamed = 64, .stages = 3};
}
COYOTE_HOST_DEVICE constexpr GroupShape group_keys_shape(int width) {
  if (width == 64) return {.width = 64, .groups = 2, .streamed = 64, .stages = 3};
  return {.width = 128, .groups = 2, .streamed = 64, .stages = 2};
}

/// What backward knows of every row and head, head by head so that neighbouring rows are neighbours in memory: log2 of the
/// softmax's denominator and <y, dy>. Every sequence begins on a boundary of 16 bytes.
struct RowSums {
  float *log2_sum, *delta;
  std::int64_t stride;  // of a head

  COYOTE_HOST_DEVICE static constexpr std::int64_t size(std::int64_t rows, std::int64_t sequences) {
    return round_up(rows + 4 * sequences + 128, 4);
  }
  __device__ static std::int64_t place(std::int64_t begin, std::int32_t sequence) { return (begin + 4 * sequence) / 4 * 4; }
};

/// Fills RowSums: `Lanes` lanes for each row and head, 8 columns each at a time.
template <int Lanes>
__global__ void __launch_bounds__(256) make_row_sums(Sequences sequences, int heads, int width, Rows<const bf16> y,
                                                     Rows<const bf16> dy, Rows<const float> log_sum_exp, RowSums sums) {
  follow();
  const std::int64_t task = (static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x) / Lanes;
  const std::int64_t row = min(task / heads, sequences.rows - 1);
  const int head = static_cast<int>(task % heads);
  const HeadRows a(y, row, 1, head, width), b(dy, row, 1, head, width);
  const float sum = row_product<Lanes>(a.data, b.data, width, a.in_chunks && b.in_chunks);
  if (threadIdx.x % Lanes != 0 || task / heads >= sequences.rows) return;
  const std::int32_t s = sequence_of(sequences, row);
  const std::int64_t begin = sequences.begin(s), to = head * sums.stride + RowSums::place(begin, s) + (row - begin);
  sums.log2_sum[to] = log_sum_exp(row, head) * log2_e;
  sums.delta[to] = sum;
}

struct BackwardMaps {
  CUtensorMap q, k, v, dy;
};

/// dq: a block keeps queries and errors, tiles of keys and values go by.
template <int Width>
__global__ void __launch_bounds__(group_queries_shape(Width).threads(), 1)
    wgmma_queries(const __grid_constant__ BackwardMaps maps, AttentionProblem<bf16> p, RowSums sums, Rows<bf16> dq) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr GroupShape shape = group_queries_shape(Width);
  constexpr int kept = shape.kept(), keys = shape.streamed;
  using Tiles = GroupTiles<shape, 2, 1>;
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[Tiles::barrier_count];
  follow();
  const TileTask task(p.sequences, p.heads, kept, true);
  const std::int32_t first_row = task.tile * kept;
  if (first_row >= task.size) return;
  const Tiles tiles(memory, barriers);
  const auto queries = tiles.kept(0), errors = tiles.kept(1);
  const std::int32_t count = (min(task.size, first_row + kept) - 1) / keys + 1;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, begin = static_cast<int>(task.begin);

  if (group < 0) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      tiles.expect_kept();
      tiles.keep(0, maps.q, task.head, begin + first_row);
      tiles.keep(1, maps.dy, task.head, begin + first_row);
      for (std::int32_t n = 0; n < count; ++n) {
        tiles.fetch(n, 0, maps.k, task.head, begin + n * keys);
        tiles.fetch(n, 1, maps.v, task.head, begin + n * keys);
      }
    }
  } else {
    take_registers<240>();
    const int lane = threadIdx.x % 32, own = 64 * group;
    const std::int32_t row = first_row + own + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;  // and row + 8
    const float scale = p.scale * log2_e;
    float log2_sum[2] = {0, 0}, delta[2] = {0, 0};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (row + 8 * half >= task.size) continue;
      const std::int64_t at = task.head * sums.stride + RowSums::place(task.begin, task.sequence) + row + 8 * half;
      log2_sum[half] = sums.log2_sum[at];
      delta[half] = sums.delta[at];
    }
    const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
    float sum[Width / 2], s[keys / 2], dp[keys / 2];
    std::uint32_t left[keys / 16][4];
#pragma unroll
    for (int n = 0; n < Width / 2; ++n) sum[n] = 0;
    tiles.wait_for_kept();
    pin(sum);  // zero before the first product begins: else all products wait for one another
    begin_products();
    for (std::int32_t n = 0; n < count; ++n) {
      // Draws while the last product of the tile before runs, when scores take no registers.
      RowKeeps<keys> keeps[2];
      if (p.dropout.active()) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          keeps[half].draw(p.dropout, step, p.rule_row(task.begin + row + 8 * half, task.head),
                           static_cast<std::uint64_t>(task.begin + n * keys));
        }
      }
      tiles.wait(n, 0);
      if (n * keys + keys > task.size) {
        tiles.streamed(n, 0).clear_from(task.size - n * keys);
        meet(1 + group, 128);
      }
      begin_products();
      multiply_transposed(s, queries, own, tiles.streamed(n, 0));
      commit_products();
      tiles.wait(n, 1);
      begin_products();
      multiply_transposed(dp, errors, own, tiles.streamed(n, 1));
      commit_products();
      wait_products<1>();
      pin(s);
      if (n > 0 && lane == 0) tiles.release(n - 1);
      const bool masked = n * keys + keys - 1 > first_row + own;
#pragma unroll
      for (int e = 0; e < keys / 2; ++e) s[e] = exp2_fast(not_positive(s[e] * scale - log2_sum[e % 4 / 2]));
      wait_products<0>();
      pin(dp);
      if (p.dropout.active()) {
#pragma unroll
        for (int e = 0; e < keys / 2; ++e) {
          dp[e] = keeps[e % 4 / 2].has(e / 4, e % 2) ? dp[e] * p.dropout.scale : 0.0f;
        }
      }
#pragma unroll
      for (int e = 0; e < keys / 2; ++e) dp[e] = s[e] * (dp[e] - delta[e % 4 / 2]);
      if (masked) {
#pragma unroll
        for (int e = 0; e < keys / 2; ++e) {
          if (n * keys + 8 * (e / 4) + 2 * (lane % 4) + e % 2 > row + e % 4 / 2 * 8) dp[e] = 0;
        }
      }
#pragma unroll
      for (int k = 0; k < keys / 16; ++k) as_left(left[k], dp + 8 * k);
      begin_products();
      multiply(sum, left, tiles.streamed(n, 0));
      commit_products();
    }
    wait_products<0>();
    pin(sum);
    store_group(sum, p.scale, p.scale, queries, own, dq.row(task.begin) + task.head * p.width, dq.stride, first_row + own,
                task.size, p.width, 1 + group);
  }
#endif
}

/// dk and dv: a block keeps keys and values, tiles of queries and errors go by. Scores are transposed: their rows are keys.
template <int Width>
__global__ void __launch_bounds__(group_keys_shape(Width).threads(), 1)
    wgmma_keys(const __grid_constant__ BackwardMaps maps, AttentionProblem<bf16> p, RowSums sums, Rows<bf16> dk, Rows<bf16> dv) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr GroupShape shape = group_keys_shape(Width);
  constexpr int kept = shape.kept(), rows = shape.streamed;
  using Tiles = GroupTiles<shape, 2, 1>;
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[Tiles::barrier_count];
  __shared__ __align__(16) float row_sums[shape.stages][2][rows];
  follow();
  const TileTask task(p.sequences, p.heads, kept, false);
  const std::int32_t first_key = task.tile * kept;
  if (first_key >= task.size) return;
  const Tiles tiles(memory, barriers);
  const auto keys = tiles.kept(0), values = tiles.kept(1);
  const std::int32_t first_tile = first_key / rows, last_tile = (task.size - 1) / rows;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, begin = static_cast<int>(task.begin);

  if (group < 0) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      tiles.expect_kept();
      tiles.keep(0, maps.k, task.head, begin + first_key);
      tiles.keep(1, maps.v, task.head, begin + first_key);
      const std::int64_t at = task.head * sums.stride + RowSums::place(task.begin, task.sequence);
      for (std::int32_t n = first_tile; n <= last_tile; ++n) {
        const int turn = n - first_tile;
        const auto fetch = [&](int which, const CUtensorMap& map, const float* of_rows) {
          tiles.fetch(turn, which, map, task.head, begin + n * rows, 4 * rows);
          copy_bytes(shared_address(row_sums[turn % shape.stages][which]), of_rows + at + n * rows, 4 * rows,
                     tiles.is_there(turn, which));
        };
        fetch(0, maps.q, sums.log2_sum);
        fetch(1, maps.dy, sums.delta);
      }
    }
  } else {
    take_registers<240>();
    const int lane = threadIdx.x % 32, own = 64 * group;
    const std::int32_t key = first_key + own + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;  // and key + 8
    const float scale = p.scale * log2_e;
    const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
    float dkey[Width / 2], dvalue[Width / 2], s[rows / 2], dp[rows / 2];
    std::uint32_t left[rows / 16][4], slopes[rows / 16][4];
#pragma unroll
    for (int n = 0; n < Width / 2; ++n) dkey[n] = dvalue[n] = 0;
    tiles.wait_for_kept();
    pin(dkey);  // zero before the first product begins: else all products wait for one another
    pin(dvalue);
    begin_products();
    for (std::int32_t n = first_tile; n <= last_tile; ++n) {
      const int turn = n - first_tile, stage = turn % shape.stages;
      // Of each lane's rows lane and lane + 32: which of the warp's keys are kept.
      std::uint32_t kept_keys = 0;
      static_assert(rows == 64);
      if (p.dropout.active()) {
        const auto keeps = [&](int r) {
          return sixteen_keeps<32>(p.dropout, step, p.rule_row(task.begin + n * rows + r, task.head),
                                   static_cast<std::uint64_t>(task.begin + key - lane / 4));
        };
        kept_keys = keeps(lane) | keeps(lane + 32) << 16;
      }
      tiles.wait(turn, 0);
      tiles.wait(turn, 1);
      if (n * rows + rows > task.size) {
        tiles.streamed(turn, 0).clear_from(task.size - n * rows);
        tiles.streamed(turn, 1).clear_from(task.size - n * rows);
        meet(1 + group, 128);
      }
      begin_products();
      multiply_transposed(s, keys, own, tiles.streamed(turn, 0));
      commit_products();
      begin_products();
      multiply_transposed(dp, values, own, tiles.streamed(turn, 1));
      commit_products();
      wait_products<1>();
      pin(s);
      if (turn > 0 && lane == 0) tiles.release(turn - 1);
      const bool masked = n * rows < first_key + own + 63 || n * rows + rows > task.size;
#pragma unroll
      for (int m = 0; m < rows / 8; ++m) {
        const float2 log2_sum = *reinterpret_cast<const float2*>(&row_sums[stage][0][8 * m + 2 * (lane % 4)]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          s[4 * m + 2 * half] = exp2_fast(not_positive(s[4 * m + 2 * half] * scale - log2_sum.x));
          s[4 * m + 2 * half + 1] = exp2_fast(not_positive(s[4 * m + 2 * half + 1] * scale - log2_sum.y));
        }
      }
      if (masked) {
#pragma unroll
        for (int e = 0; e < rows / 2; ++e) {
          const std::int32_t row = n * rows + 8 * (e / 4) + 2 * (lane % 4) + e % 2;
          if (key + e % 4 / 2 * 8 > row || row >= task.size) s[e] = 0;
        }
      }
      wait_products<0>();
      pin(dp);
      if (p.dropout.active()) {  // a negative probability is one that is dropped
#pragma unroll
        for (int m = 0; m < 4; ++m) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const std::uint32_t bits = __shfl_sync(0xffffffffu, kept_keys, 8 * m + 2 * (lane % 4) + i) >> lane / 4;
#pragma unroll
            for (int part = 0; part < 4; ++part) {  // keys key and key + 8 of this row and the one 32 rows on
              const int e = 4 * m + i + 2 * (part % 2) + 16 * (part / 2);
              const bool kept_key = bits >> 8 * part & 1;
              s[e] = kept_key ? s[e] : -s[e];
              dp[e] = kept_key ? dp[e] * p.dropout.scale : 0.0f;
            }
          }
        }
      }
#pragma unroll
      for (int k = 0; k < rows / 16; ++k) {
        float kept_p[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) kept_p[e] = not_negative(s[8 * k + e]);
        as_left(left[k], kept_p);
      }
#pragma unroll
      for (int m = 0; m < rows / 8; ++m) {
        const float2 delta = *reinterpret_cast<const float2*>(&row_sums[stage][1][8 * m + 2 * (lane % 4)]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float &a = dp[4 * m + 2 * half], &b = dp[4 * m + 2 * half + 1];
          a = fabsf(s[4 * m + 2 * half]) * (a - delta.x);
          b = fabsf(s[4 * m + 2 * half + 1]) * (b - delta.y);
        }
      }
      if (masked) {  // what stands behind a sequence may be NaN
#pragma unroll
        for (int e = 0; e < rows / 2; ++e) {
          const std::int32_t row = n * rows + 8 * (e / 4) + 2 * (lane % 4) + e % 2;
          if (row >= task.size) dp[e] = 0;
        }
      }
#pragma unroll
      for (int k = 0; k < rows / 16; ++k) as_left(slopes[k], dp + 8 * k);
      begin_products();
      multiply(dvalue, left, tiles.streamed(turn, 1));
      multiply(dkey, slopes, tiles.streamed(turn, 0));
      commit_products();
      if (Width > 64) wait_products<0>();  // the registers hold no further tile
    }
    wait_products<0>();
    pin(dkey);
    pin(dvalue);
    store_group(dkey, p.scale, p.scale, keys, own, dk.row(task.begin) + task.head * p.width, dk.stride, first_key + own,
                task.size, p.width, 1 + group);
    store_group(dvalue, p.dropout.scale, p.dropout.scale, values, own, dv.row(task.begin) + task.head * p.width, dv.stride,
                first_key + own, task.size, p.width, 1 + group);
  }
#endif
}

/// True when the device, the shapes and the addresses suit; the launches are then made.
template <class S>
bool launch_wgmma_backward(Context<Cuda>& context, const AttentionProblem<S>& p, const AttentionErrors<S>& e, Rows<S> dq,
                           Rows<S> dk, Rows<S> dv) {
  if (!context.limits().is_hopper() || p.width > 128 || p.index.first != nullptr) return false;
  if (!can_map(p.q, p.width) || !can_map(p.k, p.width) || !can_map(p.v, p.width) || !can_map(e.dy, p.width)) return false;
  const Index stride = RowSums::size(p.sequences.rows, p.sequences.sequences);
  const auto made = context.make<float>(2 * p.heads, stride);
  const RowSums sums{made.data, made.row(p.heads), stride};
  const auto launch = [&](auto width) {
    constexpr int lanes = decltype(width)::value / 8;
    const auto blocks = static_cast<unsigned>(ceil_div(p.sequences.rows * p.heads * lanes, 256));
    launch_following(context, &make_row_sums<lanes>, "launch of make_row_sums", blocks, 256, 0, p.sequences, p.heads, p.width,
                     e.y, e.dy, e.log_sum_exp, sums);
    constexpr GroupShape by_queries = group_queries_shape(decltype(width)::value),
                         by_keys = group_keys_shape(decltype(width)::value);
    const auto maps = [&](int rows, int keys) {
      return BackwardMaps{map_of_heads(p.q, p.heads, p.width, rows), map_of_heads(p.k, p.heads, p.width, keys),
                          map_of_heads(p.v, p.heads, p.width, keys), map_of_heads(e.dy, p.heads, p.width, rows)};
    };
    launch_with_memory(context, wgmma_keys<by_keys.width>, "launch of wgmma_keys",
                       tile_blocks(p.sequences, p.heads, by_keys.kept()), by_keys.threads(), by_keys.bytes(2, 2),
                       maps(by_keys.streamed, by_keys.kept()), p, sums, dk, dv);
    launch_with_memory(context, wgmma_queries<by_queries.width>, "launch of wgmma_queries",
                       tile_blocks(p.sequences, p.heads, by_queries.kept()), by_queries.threads(), by_queries.bytes(2, 2),
                       maps(by_queries.kept(), by_queries.streamed), p, sums, dq);
  };
  p.width <= 64 ? launch(std::integral_constant<int, 64>{}) : launch(std::integral_constant<int, 128>{});
  return true;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

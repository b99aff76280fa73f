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
  constexpr int kept = shape.kept(), keys = shape.streamed, stages = shape.stages, groups = shape.groups;
  using Kept = Panels<Width, kept>;
  using Keys = Panels<Width, keys>;
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[1 + 3 * stages];
  follow();
  const TileTask task(p.sequences, p.heads, kept, true);
  const std::int32_t first_row = task.tile * kept;
  if (first_row >= task.size) return;
  const std::uint32_t base = (shared_address(memory) + 1023) / 1024 * 1024;
  const Kept queries{base}, errors{base + Kept::bytes};
  const auto tile = [&](int stage, int which) {
    return Keys{base + static_cast<std::uint32_t>(2 * Kept::bytes + (2 * stage + which) * Keys::bytes)};
  };
  const std::uint32_t full_kept = shared_address(barriers);
  const auto barrier = [&](int stage, int which) { return full_kept + static_cast<std::uint32_t>(8 * (1 + 3 * stage + which)); };
  enum { full_keys, full_values, empty };
  if (threadIdx.x == 0) {
    init_barrier(full_kept, 1);
    for (int s = 0; s < stages; ++s) {
      init_barrier(barrier(s, full_keys), 1);
      init_barrier(barrier(s, full_values), 1);
      init_barrier(barrier(s, empty), 4 * groups);
    }
    fence_async();
  }
  __syncthreads();
  const std::int32_t tiles = (min(task.size, first_row + kept) - 1) / keys + 1;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, begin = static_cast<int>(task.begin);

  if (group < 0) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      arrive_and_expect(full_kept, 2 * Kept::bytes);
      queries.copy(maps.q, task.head, begin + first_row, full_kept);
      errors.copy(maps.dy, task.head, begin + first_row, full_kept);
      for (std::int32_t n = 0; n < tiles; ++n) {
        const int s = n % stages;
        wait_barrier(barrier(s, empty), static_cast<std::uint32_t>(n / stages % 2) ^ 1);
        arrive_and_expect(barrier(s, full_keys), Keys::bytes);
        tile(s, 0).copy(maps.k, task.head, begin + n * keys, barrier(s, full_keys));
        arrive_and_expect(barrier(s, full_values), Keys::bytes);
        tile(s, 1).copy(maps.v, task.head, begin + n * keys, barrier(s, full_values));
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
    wait_barrier(full_kept, 0);
    pin(sum);  // zero before the first product begins: else all products wait for one another
    begin_products();
    for (std::int32_t n = 0; n < tiles; ++n) {
      const int stage = n % stages;
      const auto parity = static_cast<std::uint32_t>(n / stages % 2);
      // Draws while the last product of the tile before runs, when scores take no registers.
      std::uint64_t kept_keys[2][keys / 64];
      if (p.dropout.active()) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const auto rule_row = static_cast<std::uint64_t>((task.begin + row + 8 * half) * p.heads + task.head);
#pragma unroll
          for (int word = 0; word < keys / 64; ++word) {
            kept_keys[half][word] =
                row_keeps<64>(p.dropout, step, rule_row, static_cast<std::uint64_t>(task.begin + n * keys + 64 * word)) >>
                2 * (lane % 4);
          }
        }
      }
      wait_barrier(barrier(stage, full_keys), parity);
      if (n * keys + keys > task.size) {
        tile(stage, 0).clear_from(task.size - n * keys);
        meet(1 + group, 128);
      }
      begin_products();
      multiply_transposed(s, queries, own, tile(stage, 0));
      commit_products();
      wait_barrier(barrier(stage, full_values), parity);
      begin_products();
      multiply_transposed(dp, errors, own, tile(stage, 1));
      commit_products();
      wait_products<1>();
      pin(s);
      if (n > 0 && lane == 0) arrive(barrier((n - 1) % stages, empty));
      const bool masked = n * keys + keys - 1 > first_row + own;
#pragma unroll
      for (int e = 0; e < keys / 2; ++e) s[e] = exp2_fast(not_positive(s[e] * scale - log2_sum[e % 4 / 2]));
      wait_products<0>();
      pin(dp);
      if (p.dropout.active()) {
#pragma unroll
        for (int e = 0; e < keys / 2; ++e) {
          const bool kept_key = kept_keys[e % 4 / 2][e / 32] >> (e % 32 / 4 * 8 + e % 2) & 1;
          dp[e] = kept_key ? dp[e] * p.dropout.scale : 0.0f;
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
      multiply(sum, left, tile(stage, 0));
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
  constexpr int kept = shape.kept(), rows = shape.streamed, stages = shape.stages, groups = shape.groups;
  using Kept = Panels<Width, kept>;
  using Tiles = Panels<Width, rows>;
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[1 + 3 * stages];
  __shared__ __align__(16) float row_sums[stages][2][rows];
  follow();
  const TileTask task(p.sequences, p.heads, kept, false);
  const std::int32_t first_key = task.tile * kept;
  if (first_key >= task.size) return;
  const std::uint32_t base = (shared_address(memory) + 1023) / 1024 * 1024;
  const Kept keys{base}, values{base + Kept::bytes};
  const auto tile = [&](int stage, int which) {
    return Tiles{base + static_cast<std::uint32_t>(2 * Kept::bytes + (2 * stage + which) * Tiles::bytes)};
  };
  const std::uint32_t full_kept = shared_address(barriers);
  const auto barrier = [&](int stage, int which) { return full_kept + static_cast<std::uint32_t>(8 * (1 + 3 * stage + which)); };
  enum { full_queries, full_errors, empty };
  if (threadIdx.x == 0) {
    init_barrier(full_kept, 1);
    for (int s = 0; s < stages; ++s) {
      init_barrier(barrier(s, full_queries), 1);
      init_barrier(barrier(s, full_errors), 1);
      init_barrier(barrier(s, empty), 4 * groups);
    }
    fence_async();
  }
  __syncthreads();
  const std::int32_t first_tile = first_key / rows, last_tile = (task.size - 1) / rows;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, begin = static_cast<int>(task.begin);

  if (group < 0) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      arrive_and_expect(full_kept, 2 * Kept::bytes);
      keys.copy(maps.k, task.head, begin + first_key, full_kept);
      values.copy(maps.v, task.head, begin + first_key, full_kept);
      const std::int64_t at = task.head * sums.stride + RowSums::place(task.begin, task.sequence);
      for (std::int32_t n = first_tile; n <= last_tile; ++n) {
        const int turn = n - first_tile, s = turn % stages;
        wait_barrier(barrier(s, empty), static_cast<std::uint32_t>(turn / stages % 2) ^ 1);
        arrive_and_expect(barrier(s, full_queries), Tiles::bytes + 4 * rows);
        tile(s, 0).copy(maps.q, task.head, begin + n * rows, barrier(s, full_queries));
        copy_bytes(shared_address(row_sums[s][0]), sums.log2_sum + at + n * rows, 4 * rows, barrier(s, full_queries));
        arrive_and_expect(barrier(s, full_errors), Tiles::bytes + 4 * rows);
        tile(s, 1).copy(maps.dy, task.head, begin + n * rows, barrier(s, full_errors));
        copy_bytes(shared_address(row_sums[s][1]), sums.delta + at + n * rows, 4 * rows, barrier(s, full_errors));
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
    wait_barrier(full_kept, 0);
    pin(dkey);  // zero before the first product begins: else all products wait for one another
    pin(dvalue);
    begin_products();
    for (std::int32_t n = first_tile; n <= last_tile; ++n) {
      const int turn = n - first_tile, stage = turn % stages;
      const auto parity = static_cast<std::uint32_t>(turn / stages % 2);
      // Of each lane's rows lane and lane + 32: which of the warp's keys are kept.
      std::uint32_t kept_keys = 0;
      static_assert(rows == 64);
      if (p.dropout.active()) {
        const auto keeps = [&](int r) {
          return sixteen_keeps<32>(p.dropout, step, static_cast<std::uint64_t>((task.begin + n * rows + r) * p.heads + task.head),
                                   static_cast<std::uint64_t>(task.begin + key - lane / 4));
        };
        kept_keys = keeps(lane) | keeps(lane + 32) << 16;
      }
      wait_barrier(barrier(stage, full_queries), parity);
      wait_barrier(barrier(stage, full_errors), parity);
      if (n * rows + rows > task.size) {
        tile(stage, 0).clear_from(task.size - n * rows);
        tile(stage, 1).clear_from(task.size - n * rows);
        meet(1 + group, 128);
      }
      begin_products();
      multiply_transposed(s, keys, own, tile(stage, 0));
      commit_products();
      begin_products();
      multiply_transposed(dp, values, own, tile(stage, 1));
      commit_products();
      wait_products<1>();
      pin(s);
      if (turn > 0 && lane == 0) arrive(barrier((turn - 1) % stages, empty));
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
      multiply(dvalue, left, tile(stage, 1));
      multiply(dkey, slopes, tile(stage, 0));
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

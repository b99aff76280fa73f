// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_mma_backward.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Backward of many sequences that are not long: a block has a head of a whole sequence, and makes dq, dk and dv in one pass, 10 *
// width flop per pair, scores and draws of dropout once. Tiles of keys go by, and for each of them the tiles of queries that see
// it. A warp owns 16 keys, whose dk and dv it holds; slopes go through shared memory to become a left operand for dq, whose sums
// over several tiles of keys wait in device memory, in the layout of accumulators, for the same thread to go on with them: the
// order of all sums is fixed. <y, dy> is made at the start.

/// How the kernel cuts its work: 16 keys a warp, tiles of `rows` queries; registers suffice for `blocks` blocks a multiprocessor.
struct SequenceShape {
  int width, warps, blocks;

  static constexpr int rows = 32, stages = 2;
  COYOTE_HOST_DEVICE constexpr int keys() const { return 16 * warps; }
  COYOTE_HOST_DEVICE constexpr int threads() const { return 32 * warps; }
  COYOTE_HOST_DEVICE constexpr int dq_columns() const { return width * (rows / 16) / warps; }
  /// Bytes of keys and values, tiles of queries and errors, slopes, and what is known of every row.
  constexpr int bytes(Index length) const {
    return 2 * width * (2 * keys() + 2 * stages * rows) + 2 * 64 * keys() + 12 * static_cast<int>(round_up(length, rows));
  }
};

template <int Width, int Warps, int Blocks>
__global__ void __launch_bounds__(32 * Warps, Blocks) mma_sequence(AttentionProblem<bf16> p, AttentionErrors<bf16> e,
                                                                   float4* dq_sums, Rows<bf16> dq, Rows<bf16> dk, Rows<bf16> dv) {
  constexpr SequenceShape shape{Width, Warps, Blocks};
  constexpr int keys_a_tile = shape.keys(), rows = SequenceShape::rows, stages = SequenceShape::stages;
  constexpr int threads = shape.threads(), dq_columns = shape.dq_columns();
  constexpr bool holds = Blocks == 1 && Width == 64;  // registers hold a warp's keys and values, too
  extern __shared__ __align__(128) unsigned char memory[];
  follow();
  const TileTask task(p.sequences, p.heads, p.sequences.length, false);
  const Tile<Width> keys{shared_address(memory)}, values{keys.address + 2 * Width * keys_a_tile};
  const auto stage = [&](int turn, int which) {
    return Tile<Width>{values.address +
                       static_cast<std::uint32_t>(2 * Width * (keys_a_tile + (turn % stages * 2 + which) * rows))};
  };
  const Tile<64> slopes{stage(0, 0).address + static_cast<std::uint32_t>(4 * Width * stages * rows)};  // [key][query]
  const std::int32_t row_tiles = (task.size + rows - 1) / rows, padded = row_tiles * rows;
  float* const log2_sums = reinterpret_cast<float*>(memory + (slopes.address - keys.address) + 128 * keys_a_tile);
  float* const deltas = log2_sums + padded;
  auto* const first_keys = reinterpret_cast<std::int32_t*>(deltas + padded);

  const HeadRows q = task.of(p.q, p.width), k = task.of(p.k, p.width), v = task.of(p.v, p.width), dy = task.of(e.dy, p.width),
                 y = task.of(e.y, p.width);
  const bool in_chunks = y.in_chunks && dy.in_chunks;
  // Tiles of queries go by in one row: those from the first key on for the first keys, then those for the second ...
  std::int32_t fetched_row = 0, fetched_key = 0, turn = 0, fetched_turn = 0;
  const auto fetch = [&] {
    if (fetched_key < task.size) {
      copy_tile<Width, rows, threads>(stage(fetched_turn, 0), q, fetched_row * rows);
      copy_tile<Width, rows, threads>(stage(fetched_turn, 1), dy, fetched_row * rows);
      ++fetched_turn;
      if (++fetched_row == row_tiles) fetched_row = (fetched_key += keys_a_tile) / rows;
    }
    commit_copies();
  };
  copy_tile<Width, keys_a_tile, threads>(keys, k, 0);
  copy_tile<Width, keys_a_tile, threads>(values, v, 0);
  fetch();

  // Of every row what backward knows: several rows at a time, so that their reads are under way together.
  constexpr int lanes = Width / 8, apart = threads / lanes, together = 4;
  for (std::int32_t first = static_cast<std::int32_t>(threadIdx.x) / lanes; first < padded; first += together * apart) {
    const int chunk = threadIdx.x % lanes;
    const auto row = [&](int n) { return static_cast<Index>(min(first + n * apart, task.size - 1)); };
    float products[together];
    if (in_chunks) {
      const bool exists = 8 * chunk < p.width;
      uint4 a[together], b[together];
#pragma unroll
      for (int n = 0; n < together; ++n) {
        a[n] = exists ? *reinterpret_cast<const uint4*>(y.data + row(n) * y.stride + 8 * chunk) : uint4{};
        b[n] = exists ? *reinterpret_cast<const uint4*>(dy.data + row(n) * dy.stride + 8 * chunk) : uint4{};
      }
#pragma unroll
      for (int n = 0; n < together; ++n) products[n] = lanes_sum<lanes>(chunk_product(a[n], b[n]));
    } else {
      for (int n = 0; n < together; ++n) {
        products[n] = row_product<lanes>(y.data + row(n) * y.stride, dy.data + row(n) * dy.stride, p.width, false);
      }
    }
#pragma unroll
    for (int n = 0; n < together; ++n) {
      const std::int32_t i = first + n * apart;
      if (chunk != 0 || i >= padded) continue;
      deltas[i] = products[n];
      log2_sums[i] = i < task.size ? e.log_sum_exp(task.begin + i, task.head) * log2_e : INFINITY;  // then p = 0
      if (p.index.first != nullptr && i < task.size) first_keys[i] = p.index.first[task.begin + i];
    }
  }

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = 16 * warp;
  const int dq_row = warp % (rows / 16) * 16, dq_column = warp / (rows / 16) * dq_columns;
  const float scale = p.scale * log2_e;
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  for (std::int32_t first_key = 0; first_key < task.size; first_key += keys_a_tile) {
    const std::int32_t key[2] = {first_key + own + lane / 4, first_key + own + lane / 4 + 8};
    float dkey[Width / 8][4], dvalue[Width / 8][4];
    std::uint32_t own_keys[Width / 16][4], own_values[Width / 16][4];
    clear(dkey);
    clear(dvalue);
    for (std::int32_t tile = first_key / rows; tile < row_tiles; ++tile, ++turn) {
      const std::int32_t row = tile * rows;
      const Tile<Width> queries = stage(turn, 0), errors = stage(turn, 1);
      wait_copies<0>();
      __syncthreads();
      fetch();
      if (holds && row == first_key) {
#pragma unroll
        for (int k = 0; k < Width / 16; ++k) {
          keys.left(own_keys[k], own, k);
          values.left(own_values[k], own, k);
        }
      }
      if (row + rows - 1 >= first_key + own) {
        // Transposed: rows of the accumulators are keys, their columns are queries.
        float s[rows / 8][4], dp[rows / 8][4];
        clear(s);
        clear(dp);
        if constexpr (holds) {
          multiply_transposed(s, own_keys, queries);
          multiply_transposed(dp, own_values, errors);
        } else {
          multiply_transposed(s, keys, own, queries);
          multiply_transposed(dp, values, own, errors);
        }
        std::uint32_t bits = ~0u;
        if (p.dropout.active()) {
          bits = sixteen_keeps<32>(p.dropout, step, p.rule_row(task.begin + row + lane, task.head),
                                   static_cast<std::uint64_t>(task.begin + first_key + own));
        }
#pragma unroll
        for (int m = 0; m < rows / 8; ++m) {
          const int r = 8 * m + 2 * (lane % 4);
          const float2 log2_sum = *reinterpret_cast<const float2*>(log2_sums + row + r),
                       delta = *reinterpret_cast<const float2*>(deltas + row + r);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const std::uint32_t kept_keys = __shfl_sync(0xffffffffu, bits, r + i) >> lane / 4;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              float &score = s[m][2 * half + i], &slope = dp[m][2 * half + i];
              const bool kept = kept_keys >> 8 * half & 1;
              score = exp2_fast(not_positive(score * scale - (i == 0 ? log2_sum.x : log2_sum.y)));
              slope = score * ((kept ? slope * p.dropout.scale : 0.0f) - (i == 0 ? delta.x : delta.y));
              score = kept ? score : 0.0f;
            }
          }
        }
        const auto clear_where = [&](auto&& hides) {
#pragma unroll
          for (int m = 0; m < rows / 8; ++m) {
#pragma unroll
            for (int n = 0; n < 4; ++n) {
              const bool hidden = hides(row + 8 * m + 2 * (lane % 4) + n % 2, key[n / 2]);
              s[m][n] = hidden ? 0.0f : s[m][n];
              dp[m][n] = hidden ? 0.0f : dp[m][n];
            }
          }
        };
        if (row < first_key + own + 15) clear_where([](int r, int j) { return j > r; });
        if (p.index.first != nullptr) clear_where([&](int r, int j) { return j < first_keys[r]; });
        std::uint32_t kept_probabilities[rows / 16][4], slope[rows / 16][4];
        as_operands(kept_probabilities, s);
        as_operands(slope, dp);
#pragma unroll
        for (int m = 0; m < rows / 8; ++m) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            store_word(slopes.at(own + lane / 4 + 8 * half, m) + 4 * (lane % 4), slope[m / 2][m % 2 * 2 + half]);
          }
        }
        multiply(dvalue, kept_probabilities, errors, 0);
        multiply(dkey, slope, queries, 0);
      }
      // dq of 16 queries, from those warps' keys that they see.
      float sum[dq_columns / 8][4];
      clear(sum);
      float4* const sums =
          dq_sums +
          (static_cast<std::int64_t>(blockIdx.x) * ((p.sequences.length + rows - 1) / rows) + tile) * (dq_columns / 8 * threads) +
          threadIdx.x;
      if (first_key > 0) {
#pragma unroll
        for (int n = 0; n < dq_columns / 8; ++n) {
          const float4 before = sums[n * threads];
          sum[n][0] = before.x, sum[n][1] = before.y, sum[n][2] = before.z, sum[n][3] = before.w;
        }
      }
      __syncthreads();
      const int steps = min(keys_a_tile, row + dq_row + 16 - first_key) / 16;
#pragma unroll 1
      for (int n = 0; n < steps; ++n) {
        std::uint32_t left[1][4];
        slopes.left_transposed(left[0], 16 * n, dq_row / 16);
        multiply(sum, left, keys.below(16 * n), dq_column / 8);
      }
      if (row + rows <= first_key + keys_a_tile || first_key + keys_a_tile >= task.size) {
        store_rows(sum, p.scale, p.scale, queries, dq_row, dq_column, dq.row(task.begin) + task.head * p.width, dq.stride,
                   row + dq_row, task.size, p.width);
      } else {
#pragma unroll
        for (int n = 0; n < dq_columns / 8; ++n) sums[n * threads] = {sum[n][0], sum[n][1], sum[n][2], sum[n][3]};
      }
    }
    __syncthreads();
    const auto store = [&](const auto& sum, float factor, Tile<Width> tile, Rows<bf16> to) {
      store_rows(sum, factor, factor, tile, own, 0, to.row(task.begin) + task.head * p.width, to.stride, first_key + own,
                 task.size, p.width);
    };
    store(dkey, p.scale, keys, dk);
    store(dvalue, p.dropout.scale, values, dv);
    if (first_key + keys_a_tile < task.size) {
      __syncthreads();
      copy_tile<Width, keys_a_tile, threads>(keys, k, first_key + keys_a_tile);
      copy_tile<Width, keys_a_tile, threads>(values, v, first_key + keys_a_tile);
      commit_copies();
    }
  }
}

template <int Width, int Warps, int Blocks>
void launch_sequence(Context<Cuda>& context, const AttentionProblem<bf16>& p, const AttentionErrors<bf16>& e, Rows<bf16> dq,
                     Rows<bf16> dk, Rows<bf16> dv) {
  constexpr SequenceShape shape{Width, Warps, Blocks};
  const unsigned blocks = tile_blocks(p.sequences, p.heads, p.sequences.length);
  const bool one_tile = p.sequences.length <= shape.keys();
  const Index sums = one_tile ? 0 : static_cast<Index>(blocks) * round_up(p.sequences.length, shape.rows) * Width / 4;
  launch_with_memory(context, mma_sequence<Width, Warps, Blocks>, "launch of mma_sequence", blocks, shape.threads(),
                     shape.bytes(p.sequences.length), p, e, context.make<float4>(sums, 1).data, dq, dk, dv);
}

/// True when this pays: for short sequences always; for longer ones with dropout, or where there is no wgmma, while blocks for
/// all sequences and heads fill the device. The launch is then made.
template <class S>
bool launch_sequence_backward(Context<Cuda>& context, const AttentionProblem<S>& p, const AttentionErrors<S>& e, Rows<S> dq,
                              Rows<S> dk, Rows<S> dv) {
  const DeviceLimits& limits = context.limits();
  const Index length = p.sequences.length, blocks = p.sequences.sequences * p.heads;
  if (p.width <= 64 && length <= 128) {
    launch_sequence<64, 4, 4>(context, p, e, dq, dk, dv);
    return true;
  }
  if (p.width <= 128 && length <= 64) {
    launch_sequence<128, 4, 1>(context, p, e, dq, dk, dv);
    return true;
  }
  if (p.width > 64 || length > 512 || 2 * blocks < limits.multiprocessors || p.index.first != nullptr) return false;
  if (p.dropout.threshold == 0 && limits.is_hopper()) return false;
  if (SequenceShape{64, 8, 1}.bytes(length) > limits.shared_memory) return false;
  blocks > limits.multiprocessors ? launch_sequence<64, 8, 2>(context, p, e, dq, dk, dv)
                                  : launch_sequence<64, 8, 1>(context, p, e, dq, dk, dv);
  return true;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_wgmma_block.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Dense causal attention on Hopper, bf16, heads up to 128 wide. The plan is FlashAttention-3's (Shah et al., arXiv
// 2407.08608): one warpgroup only copies tiles through the copy engine; two others own 64 queries each and take turns, so that
// the tensor cores multiply for one while the other computes exponentials; inside a warpgroup the scores of the next tile are
// multiplied while the present one's probabilities are made. Tiles go from the diagonal back to the first key.

COYOTE_HOST_DEVICE constexpr GroupShape group_forward_shape(int width) {
  if (width == 64) return {.width = 64, .groups = 2, .streamed = 128, .stages = 2};
  return {.width = 128, .groups = 2, .streamed = 128, .stages = 2};
}

/// The tensor maps of a kernel.
struct ForwardMaps {
  CUtensorMap q, k, v;
};

template <int Width>
__global__ void __launch_bounds__(group_forward_shape(Width).threads(), 1)
    wgmma_forward(const __grid_constant__ ForwardMaps maps, AttentionProblem<bf16> p, Rows<bf16> y, Rows<float> log_sum_exp) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr GroupShape shape = group_forward_shape(Width);
  constexpr int kept = shape.kept(), keys = shape.streamed, groups = shape.groups;
  using Tiles = GroupTiles<shape, 1, 2>;
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t barriers[Tiles::barrier_count];
  follow();
  const TileTask task(p.sequences, p.heads, kept, true);
  const std::int32_t first_row = task.tile * kept;
  if (first_row >= task.size) return;
  const Tiles tiles(memory, barriers);
  const auto queries = tiles.kept(0);
  const std::int32_t last_tile = (min(task.size, first_row + kept) - 1) / keys;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1;
  const int begin = static_cast<int>(task.begin);

  if (group < 0) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      tiles.expect_kept();
      tiles.keep(0, maps.q, task.head, begin + first_row);
      for (std::int32_t n = last_tile; n >= 0; --n) {
        tiles.fetch(last_tile - n, 0, maps.k, task.head, begin + n * keys);
        tiles.fetch(last_tile - n, 1, maps.v, task.head, begin + n * keys);
      }
    }
  } else {
    take_registers<240>();
    const int lane = threadIdx.x % 32, own = 64 * group;
    const std::int32_t row = first_row + own + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;  // and row + 8
    const float scale = p.scale * log2_e;
    const bool first_lane = lane == 0;
    const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
    float out[Width / 2], s[keys / 2], most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, shrink[2];
    float shifts[2] = {-INFINITY, -INFINITY};  // most * scale, rounded: the same number for the same maximum
    std::uint32_t left[keys / 16][4];
    RowKeeps<keys> keeps[2];
#pragma unroll
    for (int n = 0; n < Width / 2; ++n) out[n] = 0;

    // Draws for a tile, when its scores take no registers yet.
    const auto draw = [&](std::int32_t n) {
      if (!p.dropout.active()) return;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        keeps[half].draw(p.dropout, step, p.rule_row(task.begin + row + 8 * half, task.head),
                         static_cast<std::uint64_t>(task.begin + n * keys));
      }
    };
    // Scores become probabilities relative to the new maxima; shrink takes sums from the old maxima to the new.
    const auto soften = [&](std::int32_t n) {
      if (n * keys + keys - 1 > first_row + own) {
#pragma unroll
        for (int e = 0; e < keys / 2; ++e) {
          if (n * keys + 8 * (e / 4) + 2 * (lane % 4) + e % 2 > row + e % 4 / 2 * 8) s[e] = -INFINITY;
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = most[half];
#pragma unroll
        for (int m = 0; m < keys / 8; ++m) highest = fmaxf(highest, fmaxf(s[4 * m + 2 * half], s[4 * m + 2 * half + 1]));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
        const float shift = highest == -INFINITY ? 0.0f : __fmul_rn(highest, scale);
        shrink[half] = exp2_fast(shifts[half] - shift);
        shifts[half] = highest == -INFINITY ? -INFINITY : shift;
        most[half] = highest;
        float sum = 0;
#pragma unroll
        for (int m = 0; m < keys / 8; ++m) {
#pragma unroll
          for (int e = 4 * m + 2 * half; e < 4 * m + 2 * half + 2; ++e) sum += s[e] = exp2_fast(s[e] * scale - shift);
        }
        total[half] = total[half] * shrink[half] + sum;
        if (p.dropout.active()) {
#pragma unroll
          for (int m = 0; m < keys / 8; ++m) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              float& x = s[4 * m + 2 * half + i];
              x = keeps[half].has(m, i) ? x : 0.0f;
            }
          }
        }
      }
    };
    const auto pack_scores = [&] {
#pragma unroll
      for (int k = 0; k < keys / 16; ++k) as_left(left[k], s + 8 * k);
    };
    const auto wait_values = [&](int turn, std::int32_t n) {
      tiles.wait(turn, 1);
      if (n * keys + keys > task.size) {
        tiles.streamed(turn, 1).clear_from(task.size - n * keys);
        meet(1 + groups + group, 128);
      }
    };
    // The warpgroups take turns in giving the tensor cores work.
    const auto my_turn = [&] { meet(1 + group, 256); };
    const auto your_turn = [&] { pass(1 + (group + 1) % groups, 256); };
    if (group == groups - 1) your_turn();

    draw(last_tile);
    tiles.wait_for_kept();
    tiles.wait(0, 0);
    begin_products();
    multiply_transposed(s, queries, own, tiles.streamed(0, 0));
    commit_products();
    wait_products<0>();
    pin(s);
    if (first_lane) tiles.release(0, 0);
    soften(last_tile);
    pack_scores();
    int turn = 0;
    for (std::int32_t n = last_tile; n > 0; --n, ++turn) {
      const int next = turn + 1;
      draw(n - 1);
      tiles.wait(next, 0);
      my_turn();
      pin(s);
      begin_products();
      multiply_transposed(s, queries, own, tiles.streamed(next, 0));
      commit_products();
      wait_values(turn, n);
      pin(out);
      begin_products();
      multiply(out, left, tiles.streamed(turn, 1));
      commit_products();
      your_turn();
      wait_products<1>();
      pin(s);
      if (first_lane) tiles.release(next, 0);
      soften(n - 1);
      wait_products<0>();
      pin(out);
      if (first_lane) tiles.release(turn, 1);
      pack_scores();
#pragma unroll
      for (int e = 0; e < Width / 2; ++e) out[e] *= shrink[e % 4 / 2];
    }
    wait_values(turn, 0);
    pin(out);
    begin_products();
    multiply(out, left, tiles.streamed(turn, 1));
    commit_products();
    if (group == 0) my_turn();  // takes the last pass
    wait_products<0>();
    pin(out);

    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] += __shfl_xor_sync(0xffffffffu, total[half], 1);
      total[half] += __shfl_xor_sync(0xffffffffu, total[half], 2);
      inverse[half] = total[half] == 0 ? 0.0f : p.dropout.scale / total[half];
      const std::int32_t i = row + 8 * half;
      if (log_sum_exp.rows > 0 && lane % 4 == 0 && i < task.size) {
        log_sum_exp(task.begin + i, task.head) = total[half] == 0 ? -INFINITY : (shifts[half] + log2f(total[half])) * ln_2;
      }
    }
    store_group(out, inverse[0], inverse[1], queries, own, y.row(task.begin) + task.head * p.width, y.stride, first_row + own,
                task.size, p.width, 1 + groups + group);
  }
#endif
}

/// True when the device, the shapes and the addresses suit; the launch is then made.
template <class S>
bool launch_wgmma(Context<Cuda>& context, const AttentionProblem<S>& p, Rows<S> y, Rows<float> log_sum_exp) {
  if (!context.limits().is_hopper() || p.width > 128 || p.index.first != nullptr || !(p.scale > 0)) return false;
  if (!can_map(p.q, p.width) || !can_map(p.k, p.width) || !can_map(p.v, p.width)) return false;
  const auto launch = [&](auto width) {
    constexpr GroupShape shape = group_forward_shape(decltype(width)::value);
    const ForwardMaps maps{map_of_heads(p.q, p.heads, p.width, shape.kept()), map_of_heads(p.k, p.heads, p.width, shape.streamed),
                           map_of_heads(p.v, p.heads, p.width, shape.streamed)};
    launch_with_memory(context, wgmma_forward<shape.width>, "launch of wgmma_forward",
                       tile_blocks(p.sequences, p.heads, shape.kept()), shape.threads(), shape.bytes(1, 2), maps, p, y,
                       log_sum_exp);
  };
  p.width <= 64 ? launch(std::integral_constant<int, 64>{}) : launch(std::integral_constant<int, 128>{});
  return true;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

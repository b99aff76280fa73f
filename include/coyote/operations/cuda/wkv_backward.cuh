// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/wkv_exchange.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Walks over the chunks from the last to the first. It begins every chunk from the sums that forward left as a checkpoint, makes
// the states of its rows again, and does for the adjoint recurrence what forward does for its own.

inline constexpr int wkv_slice = 8, wkv_backward_warps = wkv_checkpoint_rows / wkv_slice;

/// The sums of a slice that begins with nothing, from the exponents and the terms of its rows; row i's count 2^(-steps(i) decay).
/// All loops are unrolled, so that the decays are constants of a thread.
template <bool Descending, class Exponent, class Terms>
__device__ WkvSums sum_slice(float decay, Exponent&& exponent, Terms&& add) {
  WkvSums sums;
#pragma unroll
  for (int i = 0; i < wkv_slice; ++i) sums.highest = fmaxf(sums.highest - decay, exponent(Descending ? wkv_slice - 1 - i : i));
#pragma unroll
  for (int i = 0; i < wkv_slice; ++i) {
    const int row = Descending ? wkv_slice - 1 - i : i, steps = wkv_slice - 1 - i;
    const float above = exponent(row) - sums.highest;
    add(sums, row, power_of_two(steps == 0 ? above : fmaf(static_cast<float>(-steps), decay, above)));
  }
  return sums;
}

template <class S>
struct WkvGradients {
  Rows<const S> dy;
  Rows<S> dk, dv;
  Rows<float> partial;  // [sequences * cluster, 2 * width]: sums for ddecay and dbonus; absent if not wanted
};

template <int N, bool Clustered, class S>
__global__ void __launch_bounds__(32 * wkv_backward_warps, N == 1 ? 2 : 1)
    wkv_backward_kernel(WkvProblem<S> problem, WkvBlock block, WkvGradients<S> gradients) {
  extern __shared__ uint4 wkv_memory[];
  auto& shared = *reinterpret_cast<WkvExchange<N, Clustered>*>(wkv_memory);
  __shared__ SharedWkvSums<N> state_lines[wkv_line_length(wkv_backward_warps)];
  const auto states = [&](int parity) { return wkv_line(state_lines, wkv_backward_warps, parity); };
  follow();
  const Index width = problem.k.width;
  const WkvPlace<WkvTile<N, wkv_slice>, S> at(problem, block, width);
  float decay[N], bonus[N], sum_decay[N] = {}, sum_bonus[N] = {};
#pragma unroll
  for (int i = 0; i < N; ++i) {
    decay[i] = at.inside ? wkv_decay(problem.decay(0, at.column + i)) : 0.0f;
    bonus[i] = at.inside ? wkv_log2_e * problem.bonus(0, at.column + i) : 0.0f;
  }
  RawPack<N, S> k[wkv_slice] = {}, v[wkv_slice] = {}, dy[wkv_slice] = {};
  const auto read = [&](int j, std::int32_t row) {
    if (!at.inside || row < 0 || row >= at.size) return;
    k[j] = load_raw<N>(problem.k.row(at.begin + row) + at.column);
    v[j] = load_raw<N>(problem.v.row(at.begin + row) + at.column);
    dy[j] = load_raw<N>(gradients.dy.row(at.begin + row) + at.column);
  };
  WkvSums begin[N];
  const auto read_checkpoint = [&](int step) {
    if (!at.inside || step < 0 || at.chunk(block, step) >= at.size) return;
    const float* from = problem.checkpoints.row(problem.checkpoint(at.sequence, at.chunk(block, step))) + at.column;
#pragma unroll
    for (int i = 0; i < N; ++i) begin[i] = {from[i], from[width + i], from[2 * width + i]};
  };
  if (threadIdx.x < 32) pad_wkv_lines(state_lines, wkv_backward_warps);
  shared.begin(block.cluster);
  read_checkpoint(at.steps - 1);
#pragma unroll
  for (int j = wkv_slice - 1; j >= 0; --j) read(j, at.first(block, at.steps - 1) + j);

  for (int step = at.steps - 1; step >= 0; --step) {
    const std::int32_t first = at.first(block, step), next = at.first(block, step - 1);
    const int parity = step % 2;
    WkvSums sums[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sums[i] = sum_slice<false>(
          decay[i],
          [&](int j) {
            return first + j < at.size ? wkv_log2_e * to_float(k[j].element[i]) : static_cast<float>(empty_exponent);
          },
          [&](WkvSums& s, int j, float weight) {
            s.first = fmaf(weight, first + j < at.size ? to_float(v[j].element[i]) : 0.0f, s.first);
            s.second += weight;
          });
    }
    // Joined at the exponent that the chunk begins with, linearly where all slices are near it.
    bool near = true;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (begin[i].highest <= 0.5f * wkv_empty) begin[i].highest = 0;
      near = shift_to(sums[i], begin[i].highest) && near;
    }
    states(parity)[at.warp].put(sums);
    near = !__syncthreads_or(!near);
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i] = begin[i];
    join_sums<false, wkv_backward_warps>(sums, states(parity), at.warp - 1, at.warp, wkv_slice, decay, near);
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i] = normalised(sums[i]);
    // The states before the rows, and of their outputs what the adjoint needs: -shift, dy / denominator, value.
    WkvSums before[wkv_slice][N];
    float exponent[wkv_slice][N], g[wkv_slice][N], value[wkv_slice][N];
#pragma unroll
    for (int j = 0; j < wkv_slice; ++j) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        before[j][i] = sums[i];
        exponent[j][i] = static_cast<float>(empty_exponent);
        g[j][i] = value[j][i] = 0;
        if (first + j < at.size) {
          const float key = wkv_log2_e * to_float(k[j].element[i]), now = to_float(v[j].element[i]);
          const WkvOutput out(sums[i], bonus[i], key, now);
          exponent[j][i] = -out.highest;
          g[j][i] = to_float(dy[j].element[i]) * reciprocal(out.denominator);
          value[j][i] = out.value;
          sums[i] = combine(sums[i], decay[i], {now, 1.0f, key});
        }
      }
    }
    WkvSums slice[N], adjoint[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      slice[i] = sum_slice<true>(
          decay[i], [&](int j) { return exponent[j][i]; },
          [&](WkvSums& s, int j, float weight) {
            s.first = fmaf(weight, g[j][i], s.first);
            s.second = fmaf(-weight * g[j][i], value[j][i], s.second);
          });
    }
    exchange_sums<wkv_slice, Clustered, true>(shared, at.steps - 1 - step, block, at.rank, decay, slice, adjoint);
#pragma unroll
    for (int i = 0; i < N; ++i) adjoint[i] = normalised(adjoint[i]);
    read_checkpoint(step - 1);
#pragma unroll
    for (int j = wkv_slice - 1; j >= 0; --j) {
      if (first + j < at.size) {
        Pack<N> dk, dv;
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float key = wkv_log2_e * to_float(k[j].element[i]), now = to_float(v[j].element[i]);
          WkvSums& p = adjoint[i];
          // Through the state after this row.
          const float later = power_of_two(key + p.highest), decayed = p.highest - decay[i];
          const float current = power_of_two(bonus[i] + key + exponent[j][i]) * g[j][i];
          const float through_bonus = current * (now - value[j][i]);
          const float fades = power_of_two(before[j][i].highest + decayed);
          sum_decay[i] = fmaf(-fades, fmaf(p.first, before[j][i].first, p.second * before[j][i].second), sum_decay[i]);
          sum_bonus[i] += through_bonus;
          dv[i] = fmaf(later, p.first, current);
          dk[i] = fmaf(later, fmaf(p.first, now, p.second), through_bonus);
          p = combine(p, decay[i], {g[j][i], -g[j][i] * value[j][i], exponent[j][i]});
        }
        if (at.inside) {
          store<N>(gradients.dk.row(at.begin + first + j) + at.column, dk);
          store<N>(gradients.dv.row(at.begin + first + j) + at.column, dv);
        }
      }
      read(j, next + j);
    }
  }
  if (gradients.partial.rows == 0) return;
  __syncthreads();
  WkvSums mine[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    mine[i] = {sum_decay[i] * (decay[i] / wkv_log2_e), sum_bonus[i], 0.0f};
  }
  states(0)[at.warp].put(mine);
  __syncthreads();
  if (at.warp != 0 || !at.inside) return;
  float* to = gradients.partial.row(static_cast<Index>(at.sequence) * block.cluster + at.rank) + at.column;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    for (int w = 1; w < block.warps; ++w) {
      const WkvSums other = states(0)[w].get(i);
      mine[i].first += other.first;
      mine[i].second += other.second;
    }
    to[i] = mine[i].first;
    to[width + i] = mine[i].second;
  }
}

/// How many warps share a chunk, and how many blocks a sequence: as many as find room at once, two on a multiprocessor, so that
/// no block waits for another wave.
inline WkvBlock wkv_backward_block(const Context<Cuda>& context, const Batch& batch, Index groups) {
  const auto warps = static_cast<int>(std::min<Index>(wkv_backward_warps, ceil_div(batch.length, wkv_slice)));
  if (!follows(context.limits())) return {warps, 1};
  const Index room = 2 * context.limits().multiprocessors / (batch.sequences * groups);
  const Index most = std::min<Index>(most_wkv_cluster, batch.length / (2 * wkv_checkpoint_rows));
  return {warps, static_cast<int>(std::clamp<Index>(room, 1, std::max<Index>(most, 1)))};
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

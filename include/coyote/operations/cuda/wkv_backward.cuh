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
  Rows<float> partial;  // [sequences * team, 2 * width]: sums for ddecay and dbonus; absent if not wanted
};

template <bool Teamed, class S>
__global__ void __launch_bounds__(32 * wkv_backward_warps, 2)
    wkv_backward_kernel(WkvProblem<S> problem, WkvBlock block, WkvLetter* letters, WkvGradients<S> gradients) {
  extern __shared__ uint4 wkv_memory[];
  auto& shared = *reinterpret_cast<WkvExchange<1, Teamed>*>(wkv_memory);
  __shared__ SharedWkvSums<1> state_lines[wkv_lines_length(2, wkv_backward_warps)];
  const auto states = [&](int parity) { return wkv_line(state_lines, wkv_backward_warps, parity); };
  follow();
  const Index width = problem.k.width;
  const WkvPlace<WkvTile<1, wkv_slice>, S> at(problem, block, width);
  const int lane = SharedWkvSums<1>::place(0);
  const float decay = at.inside ? wkv_decay(problem.decay(0, at.column)) : 0.0f;
  const float bonus = at.inside ? wkv_log2_e * problem.bonus(0, at.column) : 0.0f;
  const float decays[1] = {decay};
  float sum_decay = 0, sum_bonus = 0;
  S k[wkv_slice] = {}, v[wkv_slice] = {}, dy[wkv_slice] = {};
  const auto read = [&](int j, std::int32_t row) {
    if (!at.inside || row < 0 || row >= at.size) return;
    k[j] = problem.k(at.begin + row, at.column);
    v[j] = problem.v(at.begin + row, at.column);
    dy[j] = gradients.dy(at.begin + row, at.column);
  };
  WkvSums begin;
  const auto read_checkpoint = [&](int step) {
    if (!at.inside || step < 0 || at.chunk(block, step) >= at.size) return;
    const float* from = problem.checkpoints.row(problem.checkpoint(at.sequence, at.chunk(block, step))) + at.column;
    begin = {from[0], from[width], from[2 * width]};
  };
  if (threadIdx.x < 32) pad_wkv_lines(state_lines, 2, wkv_backward_warps);
  letters = shared.begin(letters, at.unit, block, at.rank);
  read_checkpoint(at.steps - 1);
#pragma unroll
  for (int j = wkv_slice - 1; j >= 0; --j) read(j, at.first(block, at.steps - 1) + j);

  for (int step = at.steps - 1; step >= 0; --step) {
    const std::int32_t first = at.first(block, step), next = at.first(block, step - 1);
    const int parity = step % 2;
    WkvSums sums = sum_slice<false>(
        decay, [&](int j) { return first + j < at.size ? wkv_log2_e * to_float(k[j]) : static_cast<float>(empty_exponent); },
        [&](WkvSums& s, int j, float weight) {
          s.first = fmaf(weight, first + j < at.size ? to_float(v[j]) : 0.0f, s.first);
          s.second += weight;
        });
    // Joined at the exponent that the chunk begins with, linearly where all slices are near it.
    if (begin.highest <= 0.5f * wkv_empty) begin.highest = 0;
    bool near = shift_to(sums, begin.highest);
    states(parity)[at.warp].put(lane, sums);
    near = !__syncthreads_or(!near);
    WkvSums state[1] = {begin};
    join_sums<false, wkv_backward_warps>(state, states(parity), at.warp - 1, at.warp, wkv_slice, decays, near);
    sums = normalised(state[0]);
    // The states before the rows, and of their outputs what the adjoint needs: -shift, dy / denominator, value.
    WkvSums before[wkv_slice];
    float exponent[wkv_slice], g[wkv_slice], value[wkv_slice];
#pragma unroll
    for (int j = 0; j < wkv_slice; ++j) {
      before[j] = sums;
      exponent[j] = static_cast<float>(empty_exponent);
      g[j] = value[j] = 0;
      if (first + j < at.size) {
        const float key = wkv_log2_e * to_float(k[j]), now = to_float(v[j]);
        const WkvOutput out(sums, bonus, key, now);
        exponent[j] = -out.highest;
        g[j] = to_float(dy[j]) * reciprocal(out.denominator);
        value[j] = out.value;
        sums = combine(sums, decay, {now, 1.0f, key});
      }
    }
    const WkvSums slice[1] = {sum_slice<true>(
        decay, [&](int j) { return exponent[j]; },
        [&](WkvSums& s, int j, float weight) {
          s.first = fmaf(weight, g[j], s.first);
          s.second = fmaf(-weight * g[j], value[j], s.second);
        })};
    WkvSums adjoint[1];
    exchange_sums<wkv_slice, wkv_backward_warps, Teamed, true>(shared, letters, at.steps - 1 - step, block, at.rank, decays,
                                                               slice, adjoint);
    WkvSums p = normalised(adjoint[0]);
    read_checkpoint(step - 1);
#pragma unroll
    for (int j = wkv_slice - 1; j >= 0; --j) {
      if (first + j < at.size) {
        const float key = wkv_log2_e * to_float(k[j]), now = to_float(v[j]);
        // Through the state after this row.
        const float later = power_of_two(key + p.highest), decayed = p.highest - decay;
        const float current = power_of_two(bonus + key + exponent[j]) * g[j];
        const float through_bonus = current * (now - value[j]);
        const float fades = power_of_two(before[j].highest + decayed);
        sum_decay = fmaf(-fades, fmaf(p.first, before[j].first, p.second * before[j].second), sum_decay);
        sum_bonus += through_bonus;
        const float dv = fmaf(later, p.first, current), dk = fmaf(later, fmaf(p.first, now, p.second), through_bonus);
        p = combine(p, decay, {g[j], -g[j] * value[j], exponent[j]});
        if (at.inside) {
          gradients.dk(at.begin + first + j, at.column) = from_float<S>(dk);
          gradients.dv(at.begin + first + j, at.column) = from_float<S>(dv);
        }
      }
      read(j, next + j);
    }
  }
  if (gradients.partial.rows == 0) return;
  __syncthreads();
  WkvSums mine{sum_decay * (decay / wkv_log2_e), sum_bonus, 0.0f};
  states(0)[at.warp].put(lane, mine);
  __syncthreads();
  if (at.warp != 0 || !at.inside) return;
  for (int w = 1; w < block.warps; ++w) {
    const WkvSums other = states(0)[w].get(lane);
    mine.first += other.first;
    mine.second += other.second;
  }
  float* to = gradients.partial.row(static_cast<Index>(at.sequence) * block.team + at.rank) + at.column;
  to[0] = mine.first;
  to[width] = mine.second;
}

/// How many warps share a chunk, and how many blocks a sequence: as many as find room at once, two on a multiprocessor.
inline WkvBlock wkv_backward_block(const DeviceLimits& limits, Index units, Index length) {
  const auto warps = static_cast<int>(std::min<Index>(wkv_backward_warps, ceil_div(length, wkv_slice)));
  const Index team = std::min<Index>(2 * limits.multiprocessors / units, length / (2 * wkv_checkpoint_rows));
  return {warps, static_cast<int>(std::clamp<Index>(team, 1, most_wkv_team))};
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/wkv_forward.cuh"
#include "coyote/operations/cuda/wkv_pipe.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// A thread's N channels, and a slice of R rows of theirs in shared memory, which is read twice: for its sums, and, when it is
/// known what stands before, for the outputs.
///
/// Near keys, all within reach of the first: the recurrence is linear at one shift, a power of two a row. Far keys, anything
/// else: every row has a shift of its own, the larger of both exponents. They are rare: their loops are not unrolled.
template <class Stages, int N, int R>
struct WkvSlices {
  const Stages& stages;
  float decay[N] = {}, bonus[N] = {}, decay_factor[N], bonus_factor[N];

  struct Shift {
    float shift[N];  // whole numbers
    bool near;
  };

  template <class S>
  __device__ WkvSlices(const Stages& stages_, const WkvProblem<S>& problem, Index column, bool inside) : stages(stages_) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (inside) {
        decay[i] = wkv_decay(problem.decay(0, column + i));
        bonus[i] = wkv_log2_e * problem.bonus(0, column + i);
      }
      decay_factor[i] = power_of_two(-decay[i]);
      bonus_factor[i] = power_of_two(bonus[i]);
    }
  }

  __device__ Shift sum(int stage, WkvSums (&sums)[N]) const {
    Shift result;
    float furthest = 0;
    const auto first = stages.get(stage, 0, 0);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      result.shift[i] = finite_exponent(rintf(wkv_log2_e * first.at(i)));
      sums[i] = {0, 0, result.shift[i]};
      furthest = fmaxf(furthest, fabsf(bonus[i]));
    }
#pragma unroll
    for (int j = 0; j < R; ++j) {
      const auto k = stages.get(stage, 0, j), v = stages.get(stage, 1, j);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float exponent = fmaf(wkv_log2_e, k.at(i), -result.shift[i]), weight = power_of_two(exponent);
        furthest = fmaxf(furthest, fabsf(exponent));
        sums[i].first = fmaf(decay_factor[i], sums[i].first, weight * v.at(i));
        sums[i].second = fmaf(decay_factor[i], sums[i].second, weight);
      }
    }
    result.near = furthest <= wkv_reach;
    if (!result.near) sum_far(stage, sums, result);
    return result;
  }

  /// write(outputs) for every one of so many rows.
  template <class Write>
  __device__ void finish(int stage, const Shift& at, WkvSums (&before)[N], int rows, Write&& write) const {
    bool near = at.near;
    float numerator[N], denominator[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      before[i].highest -= at.shift[i];
      const float scale = power_of_two(before[i].highest);
      numerator[i] = scale * before[i].first;
      denominator[i] = scale * before[i].second;
      near = near && denominator[i] <= 0x1p64f;
    }
    if (near) {
#pragma unroll
      for (int j = 0; j < R; ++j) {
        const auto k = stages.get(stage, 0, j), v = stages.get(stage, 1, j);
        write(make_pack<N>([&](int i) {
          const float weight = power_of_two(fmaf(wkv_log2_e, k.at(i), -at.shift[i])), term = weight * v.at(i);
          const float output =
              fmaf(bonus_factor[i], term, numerator[i]) * reciprocal(fmaf(bonus_factor[i], weight, denominator[i]));
          numerator[i] = fmaf(decay_factor[i], numerator[i], term);
          denominator[i] = fmaf(decay_factor[i], denominator[i], weight);
          return output;
        }));
      }
      return;
    }
#pragma unroll 1
    for (int j = 0; j < rows; ++j) {
      const auto k = stages.get(stage, 0, j), v = stages.get(stage, 1, j);
      write(make_pack<N>([&](int i) {
        const float exponent = fmaf(wkv_log2_e, k.at(i), -at.shift[i]);
        const float output = WkvOutput(before[i], bonus[i], exponent, v.at(i)).value;
        before[i] = combine(before[i], decay[i], {v.at(i), 1.0f, exponent});
        return output;
      }));
    }
  }

 private:
  __device__ void sum_far(int stage, WkvSums (&sums)[N], Shift& result) const {
    float highest[N];
    WkvSums relative[N];
#pragma unroll
    for (int i = 0; i < N; ++i) highest[i] = wkv_empty;
#pragma unroll 1
    for (int j = 0; j < R; ++j) {
      const auto k = stages.get(stage, 0, j);
#pragma unroll
      for (int i = 0; i < N; ++i) highest[i] = fmaxf(highest[i], k.at(i));
    }
#pragma unroll
    for (int i = 0; i < N; ++i) result.shift[i] = finite_exponent(rintf(wkv_log2_e * highest[i]));
#pragma unroll 1
    for (int j = 0; j < R; ++j) {
      const auto k = stages.get(stage, 0, j), v = stages.get(stage, 1, j);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        relative[i] = combine(relative[i], decay[i], {v.at(i), 1.0f, fmaf(wkv_log2_e, k.at(i), -result.shift[i])});
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float whole = rintf(relative[i].highest), rest = power_of_two(relative[i].highest - whole);
      sums[i] = relative[i].second == 0 ? WkvSums{}
                                        : WkvSums{rest * relative[i].first, rest * relative[i].second, result.shift[i] + whole};
    }
  }
};

/// Barriers of so many threads, of which some only say that they have come.
__device__ inline void arrive_at(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void meet_at(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/// block.warps warps work on rows, and N more join. The sums of a step are put before the rows of the one before are finished, so
/// that they are joined and letters travel meanwhile: a warp that works on rows waits for nobody who is not a whole step behind.
/// Barriers alternate: one that takes part in a step's has left those of the step before the last.
template <class Tile, int Piece, class S>
__global__ void __launch_bounds__(32 * (most_wkv_warps + 4), 1)
    wkv_team_kernel(WkvProblem<S> problem, WkvBlock block, WkvLetter* letters, Rows<S> y) {
  constexpr int N = Tile::N, R = Tile::rows, slices_there = 1, before_there = 3;
  using Stages = WkvStages<Tile, S, Piece, wkv_team_stages>;
  using Slices = WkvSlices<Stages, N, R>;
  extern __shared__ uint4 wkv_memory[];
  auto* memory = reinterpret_cast<unsigned char*>(wkv_memory);
  auto& shared = *reinterpret_cast<WkvPipe<N>*>(memory + block.warps * Stages::warp_bytes);
  follow();
  const WkvPlace<Tile, S> at(problem, block, y.width);
  const bool joins = at.warp >= block.warps;
  const int threads = static_cast<int>(blockDim.x);
  const std::int32_t step_rows = block.team * block.warps * R;
  std::int32_t first = at.first(block, 0);
  const Stages stages(memory, at.block_column, y.width);
  if (!joins) {
#pragma unroll
    for (int step = 0; step < wkv_team_stages; ++step) {
      if (step < at.steps) stages.copy(step, problem, at.begin, first + step * step_rows, at.size);
      stages.commit();
    }
  }
  letters = shared.begin(letters, at.unit, block, at.rank);
  if (joins) {
    const int place = static_cast<int>(threadIdx.x) - 32 * block.warps;  // of its channel in shared memory
    const Index column = at.block_column + place % 32 * N + place / 32;
    const float decay = column < y.width ? wkv_decay(problem.decay(0, column)) : 0.0f;
    const WkvFall slice_fall(decay, R), chunk_fall(decay, R * block.warps);
    for (int step = 0; step < at.steps; ++step) {
      meet_at(slices_there + step % 2, threads);
      shared.join_all(step, place, slice_fall, chunk_fall, block, at.rank, letters);
      arrive_at(before_there + step % 2, threads);
    }
    return;
  }
  const Slices slices(stages, problem, at.column, at.inside);
  S* to = y.row(at.begin + first) + at.column;
  const std::int64_t advance = step_rows * y.stride;
  typename Slices::Shift next;
  const auto sum = [&](int step, int stage) {
    WkvSums sums[N];
    next = slices.sum(stage, sums);
    shared.put(step, at.warp, sums);
    arrive_at(slices_there + step % 2, threads);
  };
  if (at.steps > 0) {
    stages.template wait<wkv_team_stages - 1>();
    sum(0, 0);
  }
  int stage = 0;
  for (int step = 0; step < at.steps; ++step) {
    const typename Slices::Shift shift = next;
    const int next_stage = stage + 1 == wkv_team_stages ? 0 : stage + 1;
    if (step + 1 < at.steps) {
      stages.template wait<wkv_team_stages - 2>();
      sum(step + 1, next_stage);
    }
    meet_at(before_there + step % 2, threads);
    if (at.inside && first < at.size) {
      WkvSums before[N];
#pragma unroll
      for (int i = 0; i < N; ++i) before[i] = shared.get(step, at.warp, i, WkvFall(slices.decay[i], at.warp * R));
      problem.keep(at.sequence, first, at.column, before);
      S* row = to;
      slices.finish(stage, shift, before, min(at.size - first, R), [&](const Pack<N>& outputs) {
        store<N>(row, outputs);
        row += y.stride;
      });
    }
    __syncwarp();
    if (step + wkv_team_stages < at.steps) stages.copy(stage, problem, at.begin, first + wkv_team_stages * step_rows, at.size);
    stages.commit();
    stage = next_stage;
    first += step_rows;
    to += advance;
  }
}

/// Where half of the multiprocessors or more would be without a block: as many blocks a sequence as find one each, of 16 warps if
/// there is room, and no more than leave two steps. Otherwise a team of one.
inline WkvBlock wkv_team_block(const DeviceLimits& limits, Index units, Index length, int rows, int warp_bytes, int sums_bytes) {
  const Index room = (limits.shared_memory - 3 * sums_bytes) / (warp_bytes + 2 * sums_bytes);
  const auto warps = static_cast<int>(std::min<Index>(most_wkv_warps, room));
  const Index team = std::min<Index>(limits.multiprocessors / units, length / (2 * warps * rows));
  return {warps, static_cast<int>(std::clamp<Index>(team, 1, most_wkv_team))};
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/wkv_letters.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// Sums whose exponents lie so near a common one are joined at that one, linearly.
inline constexpr float wkv_common_reach = 48;

/// Brings sums to a whole exponent in reach, sums without terms to any.
__device__ inline bool shift_to(WkvSums& sums, float exponent) {
  const float distance = sums.highest - exponent;
  const bool empty = sums.highest <= 0.5f * wkv_empty, reaches = empty || fabsf(distance) <= wkv_common_reach;
  const float scale = empty ? 0.0f : reaches ? power_of_two(distance) : 1.0f;
  sums = {scale * sums.first, scale * sums.second, reaches ? exponent : sums.highest};
  return reaches;
}

/// past * 2^(-decay) + more; linear: both have the same exponent. The new one is a whole number, from which differences are
/// exact.
__device__ inline WkvSums join(const WkvSums& past, float decay, const WkvSums& more, bool linear) {
  if (linear) {
    const float factor = power_of_two(-decay);
    return {fmaf(factor, past.first, more.first), fmaf(factor, past.second, more.second), more.highest};
  }
  const float before = past.exponent(), after = more.exponent(), highest = rintf(fmaxf(before - decay, after));
  const float a = power_of_two(before - highest - decay), b = power_of_two(after - highest);
  return {fmaf(a, past.first, b * more.first), fmaf(a, past.second, b * more.second), highest};
}

/// Parts are read four at a time: so many sums of nothing stand before the first of a line of parts, and behind the last.
inline constexpr int wkv_padding = 3;
/// What so many lines of parts take, with what stands before, between and behind them.
__host__ __device__ constexpr int wkv_lines_length(int lines, int parts) { return lines * (parts + wkv_padding) + wkv_padding; }
template <int N>
__device__ SharedWkvSums<N>* wkv_line(SharedWkvSums<N>* lines, int parts, int line) {
  return lines + wkv_padding + line * (parts + wkv_padding);
}
/// By one warp.
template <int N>
__device__ void pad_wkv_lines(SharedWkvSums<N>* lines, int count, int parts) {
  for (int line = 0; line <= count; ++line) {
    for (int i = 0; i < wkv_padding; ++i) lines[line * (parts + wkv_padding) + i].put({});
  }
}

/// The same for the `count` parts of a line up to `last` that follow the sums, each `rows` rows long. Descending: from the
/// end of the sequence.
template <bool Descending, int Most, int N>
__device__ void join_sums(WkvSums (&sums)[N], const SharedWkvSums<N>* parts, int last, int count, int rows,
                          const float (&decay)[N], bool linear) {
  if (count == 0) return;
  const auto part = [&](int distance) -> const SharedWkvSums<N>& {
    return parts[Descending ? last + distance : last - distance];
  };
  if (linear) {
    float factor[N];
    WkvSums joined[N];
#pragma unroll
    for (int i = 0; i < N; ++i) factor[i] = power_of_two(-static_cast<float>(rows) * decay[i]);
    constexpr int at_once = wkv_padding + 1;
#pragma unroll
    for (int group = Most - at_once; group >= 0; group -= at_once) {
      if (group >= count) continue;
      float2 more[at_once][N];
#pragma unroll
      for (int j = 0; j < at_once; ++j) {
#pragma unroll
        for (int i = 0; i < N; ++i) more[j][i] = part(group + j).pair(SharedWkvSums<N>::place(i));
      }
#pragma unroll
      for (int j = at_once - 1; j >= 0; --j) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          joined[i].first = fmaf(factor[i], joined[i].first, more[j][i].x);
          joined[i].second = fmaf(factor[i], joined[i].second, more[j][i].y);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float all = power_of_two(-static_cast<float>(count * rows) * decay[i]);
      sums[i].first = fmaf(all, sums[i].first, joined[i].first);
      sums[i].second = fmaf(all, sums[i].second, joined[i].second);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float per_part = -static_cast<float>(rows) * decay[i], whole = static_cast<float>(count) * per_part;
    float highest = sums[i].exponent() + whole;
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      highest = fmaxf(highest, fmaf(static_cast<float>(j), per_part, part(j).get(SharedWkvSums<N>::place(i)).exponent()));
    }
    highest = rintf(highest);
    const float weight = power_of_two(sums[i].exponent() - highest + whole);
    WkvSums joined{weight * sums[i].first, weight * sums[i].second, highest};
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      const WkvSums more = part(j).get(SharedWkvSums<N>::place(i));
      const float w = power_of_two(fmaf(static_cast<float>(j), per_part, more.exponent() - highest));
      joined.first = fmaf(w, more.first, joined.first);
      joined.second = fmaf(w, more.second, joined.second);
    }
    sums[i] = joined;
  }
}

/// What the warps of a block tell each other, and, Teamed, what they know of the team's blocks. What one step reads, the next
/// does not overwrite.
template <int N, bool Teamed>
struct WkvExchange {
  using Sums = SharedWkvSums<N>;
  Sums carried[2], chunk_line[Teamed ? wkv_lines_length(1, most_wkv_team) : 1];
  Sums slice_lines[1];  // behind it are the other parts

  static constexpr int bytes(int warps) {
    return static_cast<int>(sizeof(WkvExchange) + static_cast<std::size_t>(wkv_lines_length(2, warps) - 1) * sizeof(Sums));
  }
  /// Of the slices that the block's warps have in a step, and of the team's blocks.
  __device__ Sums* slices(int parity, int warps) { return wkv_line(slice_lines, warps, parity); }
  __device__ Sums* chunks() { return chunk_line + wkv_padding; }

  /// By all threads of the block, which meet: before the first step nothing is carried. Gives the team's letters.
  __device__ WkvLetter* begin(WkvLetter* letters, std::int32_t unit, WkvBlock block, int rank) {
    if (threadIdx.x < 32) {
      for (Sums& sums : carried) sums.put({});
      pad_wkv_lines(slice_lines, 2, block.warps);
      if constexpr (Teamed) pad_wkv_lines(chunk_line, 1, block.team);
    }
    if constexpr (Teamed) letters = begin_letters(letters, unit, block, rank, Sums::channels);
    __syncthreads();
    return letters;
  }
};

/// Publishes a slice's sums and gives what stands before the slice: of earlier rows or, descending, of later ones. What a step
/// leaves behind is `carried` of the next; `count` steps were before. Whoever finds all sums that it joins near the exponent of
/// what was carried two steps ago, which everybody knows, joins them linearly.
template <int Rows, int Warps, bool Teamed, bool Descending, int N>
__device__ void exchange_sums(WkvExchange<N, Teamed>& shared, WkvLetter* letters, int count, WkvBlock block, int rank,
                              const float (&decay)[N], const WkvSums (&slice)[N], WkvSums (&before)[N]) {
  using Sums = SharedWkvSums<N>;
  const int warp = static_cast<int>(threadIdx.x) / 32, parity = count % 2;
  constexpr int step = Descending ? -1 : 1;
  const int last_warp = Descending ? 0 : block.warps - 1, earlier_warps = Descending ? block.warps - 1 - warp : warp;
  float common[N];
  WkvSums own[N];
  bool near = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float carried = shared.carried[1 - parity].exponents[Sums::place(i)];
    common[i] = carried <= 0.5f * wkv_empty ? 0.0f : carried;
    own[i] = slice[i];
    near = shift_to(own[i], common[i]) && near;
  }
  const Sums* const slices = shared.slices(parity, block.warps);
  shared.slices(parity, block.warps)[warp].put(own);
  near = !__syncthreads_or(!near);
  if constexpr (Teamed) {
    WkvLetter* const line = letters + parity * block.team * Sums::channels;
    if (warp == 0) {
      WkvSums chunk[N];
#pragma unroll
      for (int i = 0; i < N; ++i) chunk[i].highest = near ? common[i] : wkv_empty;
      join_sums<Descending, Warps>(chunk, slices, last_warp, block.warps, Rows, decay, near);
#pragma unroll
      for (int i = 0; i < N; ++i) line[rank * Sums::channels + Sums::place(i)].write(chunk[i], static_cast<unsigned>(count));
    }
    for (int r = warp; r < block.team; r += block.warps) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        WkvLetter letter;
        do letter = line[r * Sums::channels + Sums::place(i)].template read<0>();
        while (letter.step() != static_cast<unsigned>(count));
        shared.chunks()[r].put(Sums::place(i), letter.sums());
      }
    }
    __syncthreads();
  }
  bool near_carried = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    before[i] = shared.carried[parity].get(Sums::place(i));
    near_carried = shift_to(before[i], common[i]) && near_carried;
    if constexpr (Teamed) {
#pragma unroll
      for (int r = 0; r < most_wkv_team; ++r) {
        if (r < block.team) near_carried = near_carried && shared.chunks()[r].exponents[Sums::place(i)] == common[i];
      }
    }
  }
  near_carried = __all_sync(0xffffffffu, near_carried) != 0;
  near = near && near_carried;
  WkvSums after[N];
  if constexpr (Teamed) {
    const int chunk_rows = block.warps * Rows, last_rank = Descending ? 0 : block.team - 1;
    const int earlier_ranks = Descending ? block.team - 1 - rank : rank;
    if (warp == last_warp) {
#pragma unroll
      for (int i = 0; i < N; ++i) after[i] = before[i];
      join_sums<Descending, most_wkv_team>(after, shared.chunks(), last_rank, block.team, chunk_rows, decay, near_carried);
    }
    join_sums<Descending, most_wkv_team>(before, shared.chunks(), rank - step, earlier_ranks, chunk_rows, decay, near_carried);
  }
  join_sums<Descending, Warps>(before, slices, warp - step, earlier_warps, Rows, decay, near);
  if (warp == last_warp) {
#pragma unroll
    for (int i = 0; i < N; ++i) after[i] = normalised(Teamed ? after[i] : join(before[i], Rows * decay[i], own[i], near));
    shared.carried[1 - parity].put(after);
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "coyote/operations/cuda/wkv_letters.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// What 2^(-decay) comes to over so many rows: a whole exponent, so that differences of exponents are exact, and a factor.
struct WkvFall {
  float whole = 0, rest = 1;
  WkvFall() = default;
  __device__ WkvFall(float decay, int rows) {
    const float all = static_cast<float>(rows) * decay;
    whole = floorf(all);
    rest = power_of_two(whole - all);
  }
};

/// past, so much later, + more. Sums without terms have a `highest` of wkv_empty or less.
__device__ inline WkvSums join(const WkvSums& past, const WkvFall& fall, const WkvSums& more) {
  const float before = past.highest - fall.whole, highest = fmaxf(before, more.highest);
  const float a = fall.rest * power_of_two(before - highest), b = power_of_two(more.highest - highest);
  return {fmaf(a, past.first, b * more.first), fmaf(a, past.second, b * more.second), highest};
}

/// The same for the first `count` of some parts, which follow each other so. Those behind are sums of nothing.
template <int Most>
__device__ WkvSums join(const WkvSums& past, const WkvFall& fall, const WkvSums (&parts)[Most], int count) {
  float exponents[Most], highest = fmaf(static_cast<float>(-count), fall.whole, past.highest), past_rest = 1;
  const float past_exponent = highest;
#pragma unroll
  for (int j = 0; j < Most; ++j) {
    exponents[j] = j < count ? fmaf(static_cast<float>(j + 1 - count), fall.whole, parts[j].highest) : wkv_empty;
    highest = fmaxf(highest, exponents[j]);
    past_rest *= j < count ? fall.rest : 1.0f;
  }
  const float weight = past_rest * power_of_two(past_exponent - highest);
  WkvSums result{0, 0, highest};
#pragma unroll
  for (int j = 0; j < Most; ++j) {
    const float own = j < count ? power_of_two(exponents[j] - highest) : 0.0f, rest = j < count ? fall.rest : 1.0f;
    result.first = fmaf(rest, result.first, own * parts[j].first);
    result.second = fmaf(rest, result.second, own * parts[j].second);
  }
  result.first = fmaf(weight, past.first, result.first);
  result.second = fmaf(weight, past.second, result.second);
  return result;
}

/// What the warps of a block tell each other, and the blocks of a team. Warps put their slices' sums; joining threads, one a
/// channel, turn them into the sums of the slices before each, write the block's sums to the team, collect everybody's, and leave
/// what stands before the block. Before: in the order in which the recurrence goes, which counts slices, blocks and steps.
/// Everything is there twice, so that what is read of a step is not overwritten by the next.
template <int N>
struct WkvPipe {
  using Sums = SharedWkvSums<N>;
  Sums carried, before[2];  // what stands before the team's step, and before the block's
  Sums slices[1];           // [warps][2]

  static constexpr int channels = Sums::channels;
  static constexpr int slices_at_once = 8, letters_at_once = 6;  // are read
  __host__ __device__ static constexpr int bytes(int warps) { return (3 + 2 * warps) * static_cast<int>(sizeof(Sums)); }

  __device__ Sums& slice(int step, int warp) { return slices[2 * warp + step % 2]; }

  /// By all threads of the block, which meet. Gives the team's letters.
  __device__ WkvLetter* begin(WkvLetter* letters, std::int32_t unit, WkvBlock block, int rank) {
    if (threadIdx.x < channels) carried.put(static_cast<int>(threadIdx.x), {});
    letters = begin_letters(letters, unit, block, rank, channels);
    __syncthreads();
    return letters;
  }

  __device__ void put(int step, int warp, const WkvSums (&sums)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) slice(step, warp).put(Sums::place(i), sums[i]);
  }
  /// What stands before the warp's slice, when all is joined. `fall`: over the block's slices before.
  __device__ WkvSums get(int step, int warp, int i, const WkvFall& fall) {
    return join(before[step % 2].get(Sums::place(i)), fall, slice(step, warp).get(Sums::place(i)));
  }

  /// By the joining threads, when all have put.
  __device__ void join_all(int step, int place, const WkvFall& slice_fall, const WkvFall& chunk_fall, WkvBlock block, int rank,
                           WkvLetter* letters) {
    WkvLetter* line = letters + step % 2 * block.team * channels + place;
    WkvSums block_sums;
    for (int first = 0; first < block.warps; first += slices_at_once) {
      WkvSums own[slices_at_once];
      read_slices(own, step, place, first, block.warps);
      block_sums = join(block_sums, slice_fall, own, min(block.warps - first, slices_at_once));
    }
    line[rank * channels].write(block_sums, static_cast<unsigned>(step));
    __syncwarp();  // else the compiler keeps the letter until it is needed
    // While it travels:
    WkvSums chunk;
    for (int first = 0; first < block.warps; first += slices_at_once) {
      WkvSums own[slices_at_once];
      read_slices(own, step, place, first, block.warps);
      chunk = put_earlier(own, chunk, slice_fall, step, place, first, block.warps);
    }
    WkvSums all = carried.get(place), here = all;
    for (int first = 0; first < block.team; first += letters_at_once, line += letters_at_once * channels) {
      WkvLetter letter[letters_at_once] = {};
      const auto read = [&]<int... J>(std::integer_sequence<int, J...>) {
        const auto read_one = [&]<int I>() {
          if (first + I < block.team) letter[I] = line->template read<I * channels>();
        };
        (read_one.template operator()<J>(), ...);
      };
      bool there;
      do {
        read(std::make_integer_sequence<int, letters_at_once>{});
        there = true;
#pragma unroll
        for (int j = 0; j < letters_at_once; ++j) {
          there = there && (first + j >= block.team || letter[j].step() == static_cast<unsigned>(step));
        }
      } while (!there);
      WkvSums parts[letters_at_once];
#pragma unroll
      for (int j = 0; j < letters_at_once; ++j) parts[j] = letter[j].sums();
      here = join(here, chunk_fall, parts, min(max(rank - first, 0), letters_at_once));
      all = join(all, chunk_fall, parts, min(block.team - first, letters_at_once));
    }
    before[step % 2].put(place, here);
    carried.put(place, normalised(all));
  }

 private:
  template <int Count>
  __device__ void read_slices(WkvSums (&own)[Count], int step, int place, int first, int warps) {
#pragma unroll
    for (int j = 0; j < Count; ++j) {
      if (first + j < warps) own[j] = slice(step, first + j).get(place);
    }
  }
  /// Puts what stands before each of some slices, and gives what stands behind the last.
  template <int Count>
  __device__ WkvSums put_earlier(const WkvSums (&own)[Count], WkvSums sums, const WkvFall& fall, int step, int place, int first,
                                 int warps) {
    float highest[Count + 1], a[Count], b[Count];  // by themselves: all powers are under way at once
    highest[0] = sums.highest;
#pragma unroll
    for (int j = 0; j < Count; ++j) {
      const float before = highest[j] - (first + j < warps ? fall.whole : 0.0f);
      highest[j + 1] = fmaxf(before, own[j].highest);
      a[j] = (first + j < warps ? fall.rest : 1.0f) * power_of_two(before - highest[j + 1]);
      b[j] = power_of_two(own[j].highest - highest[j + 1]);
    }
#pragma unroll
    for (int j = 0; j < Count; ++j) {
      if (first + j < warps) slice(step, first + j).put(place, {sums.first, sums.second, highest[j]});
      sums.first = fmaf(a[j], sums.first, b[j] * own[j].first);
      sums.second = fmaf(a[j], sums.second, b[j] * own[j].second);
    }
    sums.highest = highest[Count];
    return sums;
  }
};

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/wkv_exchange.cuh"
#include "coyote/operations/cuda/wkv_stages.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// How far the exponents of a slice may lie from its first, and the bonus from 0, for one shift to serve the whole slice: powers
/// then stay between 2^-64 and 2^64, and no sum of theirs loses a term that counts.
inline constexpr float wkv_reach = 32;

inline __device__ float finite_exponent(float x) { return fminf(fmaxf(x, wkv_empty), -wkv_empty); }

/// One channel of a slice of R rows by themselves, exponents relative to a shift, and then their outputs.
///
/// Near keys, all within reach of the first: the recurrences are linear then, one power of two a row. A row's output is
/// (numerator + c N) / (denominator + c D) of the N, D before the slice and the decay c up to the row: one reciprocal.
/// Far keys, anything else: every row has a shift of its own, the larger of both exponents. What is kept is then the row's output
/// as if nothing stood before the slice, and log2 of its denominator; the output is an average of that one and of N / D, and what
/// each of them counts follows from the difference of logarithms, which neither overflows nor vanishes.
template <int R>
struct WkvSlice {
  WkvSums sums;  // of all rows; their exponent is a whole number
  bool near;
  float shift, numerator[R], denominator[R];  // far: output and logarithm

  /// From the rows' keys and values. A key of minus infinity: no row.
  template <class Key, class Value>
  __device__ void sum(float decay, float bonus, Key&& key, Value&& value) {
    const float decay_factor = power_of_two(-decay), bonus_factor = power_of_two(bonus);
    shift = finite_exponent(rintf(wkv_log2_e * key(0)));
    float furthest = fabsf(bonus);
    sums = {0, 0, shift};
#pragma unroll
    for (int j = 0; j < R; ++j) {
      const float exponent = fmaf(wkv_log2_e, key(j), -shift), weight = power_of_two(exponent), term = weight * value(j);
      furthest = fmaxf(furthest, fabsf(exponent));
      numerator[j] = fmaf(bonus_factor, term, sums.first);
      denominator[j] = fmaf(bonus_factor, weight, sums.second);
      sums.first = fmaf(decay_factor, sums.first, term);
      sums.second = fmaf(decay_factor, sums.second, weight);
    }
    near = furthest <= wkv_reach;
    if (!near) sum_far(decay, bonus, key, value);
  }

  /// numerator[j] becomes row j's output.
  __device__ void finish(float decay, const WkvSums& before) {
    const float past = before.second > 0 ? before.first * reciprocal(before.second) : before.first;
    const float distance = before.highest - shift;
    float weight = before.second * power_of_two(distance);
    if (near && weight <= 0x1p64f) {
      const float decay_factor = power_of_two(-decay);
#pragma unroll
      for (int j = 0; j < R; ++j) {
        numerator[j] = fmaf(weight, past, numerator[j]) * reciprocal(denominator[j] + weight);
        weight *= decay_factor;
      }
      return;
    }
    finish_far(decay, past, log_of_two(before.second) + distance);
  }

 private:
  /// Gives every row in turn to f(numerator, denominator, row), which may change both. Far keys are rare: a loop that is not
  /// unrolled, in which rows move up to the first place, takes neither code nor registers nor memory from near ones.
  template <class F>
  __device__ void for_rows(F&& f) {
#pragma unroll 1
    for (int row = 0; row < R; ++row) {
      float a = numerator[0], b = denominator[0];
      f(a, b, static_cast<float>(row));
#pragma unroll
      for (int j = 0; j + 1 < R; ++j) {
        numerator[j] = numerator[j + 1];
        denominator[j] = denominator[j + 1];
      }
      numerator[R - 1] = a;
      denominator[R - 1] = b;
    }
  }

  template <class Key, class Value>
  __device__ void sum_far(float decay, float bonus, Key&& key, Value&& value) {
    float highest = key(0);
#pragma unroll
    for (int j = 0; j < R; ++j) {
      numerator[j] = key(j);
      denominator[j] = value(j);
      highest = fmaxf(highest, numerator[j]);
    }
    shift = finite_exponent(rintf(wkv_log2_e * highest));
    WkvSums so_far;
    for_rows([&](float& a, float& b, float) {
      const float exponent = fmaf(wkv_log2_e, a, -shift);
      const WkvOutput out(so_far, bonus, exponent, b);
      so_far = combine(so_far, decay, {b, 1.0f, exponent});
      a = out.denominator == 0 ? 0.0f : out.value;
      b = log_of_two(out.denominator) + out.highest;
    });
    const float whole = rintf(so_far.highest), rest = power_of_two(so_far.highest - whole);
    sums = {rest * so_far.first, rest * so_far.second, shift + whole};
  }

  __device__ void finish_far(float decay, float past, float logarithm) {
    for_rows([&](float& a, float& b, float row) {
      const float output = near ? a * reciprocal(b) : a, own = near ? log_of_two(b) : b;
      a = fmaf(reciprocal(1.0f + power_of_two(own - fmaf(-row, decay, logarithm))), past - output, output);
    });
  }
};

/// Rows of one step are worked on while those of the next are on their way; in a team those of one more.
inline constexpr int wkv_stages = 2, wkv_team_stages = 3;

/// By one block a sequence.
template <class Tile, int Piece, class S>
__global__ void __launch_bounds__(32 * most_wkv_warps, 1) wkv_kernel(WkvProblem<S> problem, WkvBlock block, Rows<S> y) {
  constexpr int N = Tile::N, R = Tile::rows;
  using Stages = WkvStages<Tile, S, Piece, wkv_stages>;
  extern __shared__ uint4 wkv_memory[];
  auto* memory = reinterpret_cast<unsigned char*>(wkv_memory);
  auto& shared = *reinterpret_cast<WkvExchange<N, false>*>(memory + block.warps * Stages::warp_bytes);
  follow();
  const WkvPlace<Tile, S> at(problem, block, y.width);
  const Stages stages(memory, at.block_column, y.width);
  float decay[N] = {}, bonus[N] = {};
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (!at.inside) continue;
    decay[i] = problem.decay(0, at.column + i);
    bonus[i] = problem.bonus(0, at.column + i);
  }
  shared.begin(nullptr, at.unit, block, at.rank);  // meanwhile they arrive
#pragma unroll
  for (int i = 0; i < N; ++i) {
    decay[i] = wkv_decay(decay[i]);
    bonus[i] *= wkv_log2_e;
  }
  const auto copy = [&](int step) {
    if (step < at.steps) stages.copy(step % wkv_stages, problem, at.begin, at.first(block, step), at.size);
    stages.commit();
  };
#pragma unroll
  for (int step = 0; step < wkv_stages; ++step) copy(step);

  for (int step = 0; step < at.steps; ++step) {
    const std::int32_t first = at.first(block, step);
    WkvSlice<R> slice[N];
    WkvSums sums[N], before[N];
    stages.template wait<wkv_stages - 1>();
#pragma unroll
    for (int i = 0; i < N; ++i) {
      slice[i].sum(
          decay[i], bonus[i], [&](int j) { return stages.get(step % wkv_stages, 0, j).at(i); },
          [&](int j) { return stages.get(step % wkv_stages, 1, j).at(i); });
      sums[i] = slice[i].sums;
    }
    __syncwarp();
    copy(step + wkv_stages);
    exchange_sums<R, most_wkv_warps, false, false>(shared, nullptr, step, block, at.rank, decay, sums, before);
    if (!at.inside || first >= at.size) continue;
    problem.keep(at.sequence, first, at.column, before);
#pragma unroll
    for (int i = 0; i < N; ++i) slice[i].finish(decay[i], before[i]);
    S* to = y.row(at.begin + first) + at.column;
    const auto write = [&](auto is_there) {
#pragma unroll
      for (int j = 0; j < R; ++j) {
        if (is_there(j)) store<N>(to, make_pack<N>([&](int i) { return slice[i].numerator[j]; }));
        to += y.stride;
      }
    };
    if (first + R <= at.size) {
      write([](int) { return true; });
    } else {
      write([&](int j) { return first + j < at.size; });
    }
  }
}

/// How many warps share a chunk: up to 16 where two blocks or less come to a multiprocessor, and no more than leave two steps, of
/// which one is copied while the other is worked on.
inline WkvBlock wkv_block(const Context<Cuda>& context, const Batch& batch, Index groups, int rows) {
  const bool few = batch.sequences * groups <= Index{2} * context.limits().multiprocessors;
  return {static_cast<int>(std::clamp<Index>(batch.length / (2 * rows), 1, few ? most_wkv_warps : most_wkv_warps / 2)), 1};
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

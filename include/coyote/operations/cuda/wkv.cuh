// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/wkv.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

// A sequence's rows are cut into chunks of 64, and a chunk into slices of 8 rows, one for each warp of a block; a thread owns N
// neighbouring channels of its slice. In every step a block
//
//   1. sums up each slice by itself (numerator, denominator, highest exponent),
//   2. combines, for each warp, what stands before its slice: the sums that the chunk begins with and those of earlier slices,
//   3. walks over the slices' rows, all at the same time, and reads a row of the next chunk as soon as it is done with one.
//
// So every row is read once, from registers the second time, and memory is busy all the time. Where there are few channels and
// sequences, a cluster of blocks shares a sequence's chunks and exchanges its sums through distributed shared memory (Hopper).
// Backward walks over the chunks from the last to the first. It begins every chunk from the sums that forward left as a
// checkpoint, makes the states of its rows again, and does the same three things for the adjoint recurrence.

inline constexpr int wkv_slice = 8, wkv_warps = 8, wkv_chunk = wkv_slice * wkv_warps, most_wkv_cluster = 8;

/// Exponents are to the base 2, the hardware's own: keys, bonus and decay are multiplied by this first.
inline constexpr float wkv_log2_e = 1.4426950408889634f;

/// 2^x and 1 / x, good to 2^-22; results below the normal numbers are 0.
__device__ inline float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ inline float reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// Two sums, kept as first * 2^highest and second * 2^highest: numerator and denominator, or the gradients by them.
struct WkvSums {
  float first = 0, second = 0, highest = static_cast<float>(empty_exponent);
};

/// What two exponents' powers come to next to the larger of both: one of them is 1.
struct WkvWeights {
  float a, b;
  __device__ WkvWeights(float exponent_a, float exponent_b) {
    const float difference = exponent_a - exponent_b, smaller = power_of_two(-fabsf(difference));
    a = difference >= 0 ? 1.0f : smaller;
    b = difference >= 0 ? smaller : 1.0f;
  }
};

/// past * 2^(-decay) + more
__device__ inline WkvSums combine(const WkvSums& past, float decay, const WkvSums& more) {
  const float decayed = past.highest - decay;
  const WkvWeights weights(decayed, more.highest);
  return {fmaf(weights.a, past.first, weights.b * more.first), fmaf(weights.a, past.second, weights.b * more.second),
          fmaxf(decayed, more.highest)};
}

/// A row's output from the sums before it.
struct WkvOutput {
  float highest, current, denominator, value;  // the shift, 2^(bonus + k - shift), the sum below, the ratio
  __device__ WkvOutput(const WkvSums& sums, float bonus, float k, float v) {
    const float key = bonus + k;
    const WkvWeights weights(sums.highest, key);
    highest = fmaxf(sums.highest, key);
    current = weights.b;
    denominator = fmaf(weights.a, sums.second, current);
    value = fmaf(weights.a, sums.first, current * v) * reciprocal(denominator);
  }
};

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

struct WkvBlock {
  int warps, cluster;  // of a block, of blocks
};

template <class S>
struct WkvProblem {
  Sequences sequences;
  Rows<const float> decay, bonus;
  Rows<const S> k, v;
  Rows<float> checkpoints;  // forward: absent if not wanted

  /// The place of a chunk's checkpoint. Packed sequences leave gaps, so that it does not depend on the sizes of others.
  __device__ std::int64_t checkpoint(std::int32_t s, std::int32_t chunk) const {
    if (sequences.offsets == nullptr) {
      return static_cast<std::int64_t>(s) * ((sequences.length + wkv_chunk - 1) / wkv_chunk) + chunk;
    }
    return sequences.begin(s) / wkv_chunk + s + chunk;
  }
};

/// Sums of all lanes of a warp, N channels each, in shared memory.
template <int N>
struct SharedWkvSums {
  float values[3][N][32];

  __device__ void put(int lane, const WkvSums (&sums)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[0][i][lane] = sums[i].first;
      values[1][i][lane] = sums[i].second;
      values[2][i][lane] = sums[i].highest;
    }
  }
  __device__ WkvSums get(int lane, int i) const { return {values[0][i][lane], values[1][i][lane], values[2][i][lane]}; }
};

/// What the warps of a block and the blocks of a cluster tell each other, twice: what one step reads, the next does not
/// overwrite.
template <int N>
struct WkvExchange {
  SharedWkvSums<N> slices[2][wkv_warps], carried[2], chunks[2][most_wkv_cluster];
};

/// Publishes a slice's sums and gives what stands before the slice: of earlier rows (forward) or of later ones (descending).
/// `carried`: what the step before left behind.
template <int N, bool Clustered, bool Descending>
__device__ void exchange_sums(WkvExchange<N>& shared, int parity, bool first_step, WkvBlock block, int rank,
                              const float (&decay)[N], const WkvSums (&slice)[N], WkvSums (&before)[N],
                              WkvSums (&chunk_begin)[N]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  shared.slices[parity][warp].put(lane, slice);
  __syncthreads();
  constexpr int step = Descending ? -1 : 1;
  const int first_warp = Descending ? block.warps - 1 : 0, first_rank = Descending ? block.cluster - 1 : 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (Clustered) {
    if (warp == 0) {
      WkvSums total[N];
      for (int w = first_warp; w != first_warp + step * block.warps; w += step) {
#pragma unroll
        for (int i = 0; i < N; ++i) total[i] = combine(total[i], wkv_slice * decay[i], shared.slices[parity][w].get(lane, i));
      }
      auto cluster = cooperative_groups::this_cluster();
      for (int other = 0; other < block.cluster; ++other) {
        cluster.map_shared_rank(&shared, static_cast<unsigned>(other))->chunks[parity][rank].put(lane, total);
      }
    }
    cooperative_groups::this_cluster().sync();
  }
#endif
#pragma unroll
  for (int i = 0; i < N; ++i) before[i] = first_step ? WkvSums() : shared.carried[parity].get(lane, i);
  if constexpr (Clustered) {
    for (int r = first_rank; r != rank; r += step) {
#pragma unroll
      for (int i = 0; i < N; ++i) before[i] = combine(before[i], wkv_chunk * decay[i], shared.chunks[parity][r].get(lane, i));
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) chunk_begin[i] = before[i];
  for (int w = first_warp; w != warp; w += step) {
#pragma unroll
    for (int i = 0; i < N; ++i) before[i] = combine(before[i], wkv_slice * decay[i], shared.slices[parity][w].get(lane, i));
  }
}

/// Leaves the sums behind the last slice of a step to the next step, of all blocks of the cluster.
template <int N, bool Clustered, bool Descending>
__device__ void carry_sums(WkvExchange<N>& shared, int parity, WkvBlock block, int rank, const WkvSums (&sums)[N]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (warp != (Descending ? 0 : block.warps - 1) || rank != (Descending ? 0 : block.cluster - 1)) return;
#if __CUDA_ARCH__ >= 900
  if constexpr (Clustered) {
    auto cluster = cooperative_groups::this_cluster();
    for (int other = 0; other < block.cluster; ++other) {
      cluster.map_shared_rank(&shared, static_cast<unsigned>(other))->carried[parity].put(lane, sums);
    }
    return;
  }
#endif
  shared.carried[parity].put(lane, sums);
}

/// Which sequence, channels and chunks a block works on.
template <int N, class S>
struct WkvPlace {
  std::int32_t sequence, size;
  std::int64_t begin;
  int rank, warp, lane, steps;
  Index column;
  bool inside;

  __device__ WkvPlace(const WkvProblem<S>& problem, WkvBlock block, Index width) {
    const auto groups = static_cast<std::int32_t>((width + 32 * N - 1) / (32 * N));
    const auto unit = static_cast<std::int32_t>(blockIdx.x) / block.cluster;
    rank = static_cast<int>(blockIdx.x) % block.cluster;
    sequence = unit / groups;
    begin = problem.sequences.begin(sequence);
    size = problem.sequences.size(sequence);
    warp = static_cast<int>(threadIdx.x) / 32;
    lane = static_cast<int>(threadIdx.x) % 32;
    column = static_cast<Index>(unit % groups * 32 + lane) * N;
    inside = column < width;
    const int rows = block.cluster * block.warps * wkv_slice;
    steps = (size + rows - 1) / rows;
  }
  __device__ std::int32_t chunk(WkvBlock block, int step) const { return step * block.cluster + rank; }
  /// The first row of the warp's slice, counted in the sequence.
  __device__ std::int32_t first(WkvBlock block, int step) const { return (chunk(block, step) * block.warps + warp) * wkv_slice; }
};

template <int N, bool Clustered, class S>
__global__ void __launch_bounds__(32 * wkv_warps, 3) wkv_kernel(WkvProblem<S> problem, WkvBlock block, Rows<S> y) {
  __shared__ WkvExchange<N> shared;
  const WkvPlace<N, S> at(problem, block, y.width);
  float decay[N], bonus[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    decay[i] = at.inside ? wkv_log2_e * expf(problem.decay(0, at.column + i)) : 0.0f;
    bonus[i] = at.inside ? wkv_log2_e * problem.bonus(0, at.column + i) : 0.0f;
  }
  RawPack<N, S> k[wkv_slice], v[wkv_slice];
  const auto read = [&](int j, std::int32_t row) {
    if (!at.inside || row >= at.size) return;
    k[j] = load_raw<N>(problem.k.row(at.begin + row) + at.column);
    v[j] = load_raw<N>(problem.v.row(at.begin + row) + at.column);
  };
#pragma unroll
  for (int j = 0; j < wkv_slice; ++j) read(j, at.first(block, 0) + j);

  for (int step = 0; step < at.steps; ++step) {
    const std::int32_t first = at.first(block, step), next = at.first(block, step + 1);
    WkvSums slice[N], sums[N], chunk[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      slice[i] = sum_slice<false>(
          decay[i],
          [&](int j) {
            return first + j < at.size ? wkv_log2_e * to_float(k[j].element[i]) : static_cast<float>(empty_exponent);
          },
          [&](WkvSums& s, int j, float weight) {
            s.first = fmaf(weight, first + j < at.size ? to_float(v[j].element[i]) : 0.0f, s.first);
            s.second += weight;
          });
    }
    exchange_sums<N, Clustered, false>(shared, step % 2, step == 0, block, at.rank, decay, slice, sums, chunk);
    if (problem.checkpoints.rows > 0 && at.warp == 0 && at.inside && first < at.size) {
      float* to = problem.checkpoints.row(problem.checkpoint(at.sequence, at.chunk(block, step))) + at.column;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        to[i] = chunk[i].first;
        to[y.width + i] = chunk[i].second;
        to[2 * y.width + i] = chunk[i].highest;
      }
    }
#pragma unroll
    for (int j = 0; j < wkv_slice; ++j) {
      if (first + j < at.size) {
        Pack<N> out;
        const Pack<N> keys = k[j].floats(), values = v[j].floats();
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float key = wkv_log2_e * keys[i];
          out[i] = WkvOutput(sums[i], bonus[i], key, values[i]).value;
          sums[i] = combine(sums[i], decay[i], {values[i], 1.0f, key});
        }
        if (at.inside) store<N>(y.row(at.begin + first + j) + at.column, out);
      }
      read(j, next + j);
    }
    carry_sums<N, Clustered, false>(shared, (step + 1) % 2, block, at.rank, sums);
  }
#if __CUDA_ARCH__ >= 900
  if constexpr (Clustered) cooperative_groups::this_cluster().sync();  // nobody leaves while others write into its memory
#endif
}

template <class S>
struct WkvGradients {
  Rows<const S> dy;
  Rows<S> dk, dv;
  Rows<float> partial;  // [sequences * cluster, 2 * width]: sums for ddecay and dbonus; absent if not wanted
};

template <int N, bool Clustered, class S>
__global__ void __launch_bounds__(32 * wkv_warps, N == 1 ? 2 : 1)
    wkv_backward_kernel(WkvProblem<S> problem, WkvBlock block, WkvGradients<S> gradients) {
  __shared__ WkvExchange<N> shared;
  __shared__ SharedWkvSums<N> states[2][wkv_warps];
  const Index width = problem.k.width;
  const WkvPlace<N, S> at(problem, block, width);
  float decay[N], bonus[N], sum_decay[N] = {}, sum_bonus[N] = {};
#pragma unroll
  for (int i = 0; i < N; ++i) {
    decay[i] = at.inside ? wkv_log2_e * expf(problem.decay(0, at.column + i)) : 0.0f;
    bonus[i] = at.inside ? wkv_log2_e * problem.bonus(0, at.column + i) : 0.0f;
  }
  RawPack<N, S> k[wkv_slice], v[wkv_slice], dy[wkv_slice];
  const auto read = [&](int j, std::int32_t row) {
    if (!at.inside || row < 0 || row >= at.size) return;
    k[j] = load_raw<N>(problem.k.row(at.begin + row) + at.column);
    v[j] = load_raw<N>(problem.v.row(at.begin + row) + at.column);
    dy[j] = load_raw<N>(gradients.dy.row(at.begin + row) + at.column);
  };
  WkvSums begin[N];
  const auto read_checkpoint = [&](int step) {
    if (!at.inside || step < 0 || at.chunk(block, step) * block.warps * wkv_slice >= at.size) return;
    const float* from = problem.checkpoints.row(problem.checkpoint(at.sequence, at.chunk(block, step))) + at.column;
#pragma unroll
    for (int i = 0; i < N; ++i) begin[i] = {from[i], from[width + i], from[2 * width + i]};
  };
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
    states[parity][at.warp].put(at.lane, sums);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i] = begin[i];
    for (int w = 0; w < at.warp; ++w) {
#pragma unroll
      for (int i = 0; i < N; ++i) sums[i] = combine(sums[i], wkv_slice * decay[i], states[parity][w].get(at.lane, i));
    }
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
    WkvSums slice[N], adjoint[N], chunk[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      slice[i] = sum_slice<true>(
          decay[i], [&](int j) { return exponent[j][i]; },
          [&](WkvSums& s, int j, float weight) {
            s.first = fmaf(weight, g[j][i], s.first);
            s.second = fmaf(-weight * g[j][i], value[j][i], s.second);
          });
    }
    exchange_sums<N, Clustered, true>(shared, parity, step == at.steps - 1, block, at.rank, decay, slice, adjoint, chunk);
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
    carry_sums<N, Clustered, true>(shared, (step + 1) % 2, block, at.rank, adjoint);
  }
#if __CUDA_ARCH__ >= 900
  if constexpr (Clustered) cooperative_groups::this_cluster().sync();
#endif
  if (gradients.partial.rows == 0) return;
  __syncthreads();
  WkvSums mine[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    // A decay so fast that it overflows has no slope left: not 0 * infinity.
    mine[i] = {sum_decay[i] == 0 ? 0.0f : sum_decay[i] * (decay[i] / wkv_log2_e), sum_bonus[i], 0.0f};
  }
  states[0][at.warp].put(at.lane, mine);
  __syncthreads();
  if (at.warp != 0 || !at.inside) return;
  float* to = gradients.partial.row(static_cast<Index>(at.sequence) * block.cluster + at.rank) + at.column;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    for (int w = 1; w < block.warps; ++w) {
      const WkvSums other = states[0][w].get(at.lane, i);
      mine[i].first += other.first;
      mine[i].second += other.second;
    }
    to[i] = mine[i].first;
    to[width + i] = mine[i].second;
  }
}

template <class S>
__global__ void __launch_bounds__(row_threads)
    wkv_step_kernel(Rows<float> state, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k, Rows<const S> v,
                    Rows<S> y) {
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x, s = Index{blockIdx.x} * blockDim.y + threadIdx.y, width = y.width;
  if (c >= width || s >= y.rows) return;
  WkvSums sums{state(s, c), state(s, width + c), state(s, 2 * width + c)};
  const float key = wkv_log2_e * to_float(k(s, c)), value = to_float(v(s, c));
  y(s, c) = from_float<S>(WkvOutput(sums, wkv_log2_e * bonus(0, c), key, value).value);
  sums = combine(sums, wkv_log2_e * expf(decay(0, c)), {value, 1.0f, key});
  state(s, c) = sums.first;
  state(s, width + c) = sums.second;
  state(s, 2 * width + c) = sums.highest;
}

/// How many warps share a chunk, and how many blocks a sequence: as many as find room at once, `resident` on a multiprocessor, so
/// that no block waits for another wave.
inline WkvBlock wkv_block(const Context<Cuda>& context, const Batch& batch, Index groups, int resident) {
  const auto warps = static_cast<int>(std::min<Index>(wkv_warps, ceil_div(batch.length, wkv_slice)));
  if (context.limits().major < 9) return {warps, 1};
  const Index room = Index{resident} * context.limits().multiprocessors / (batch.sequences * groups);
  const Index most = std::min<Index>(most_wkv_cluster, batch.length / (2 * wkv_chunk));
  return {warps, static_cast<int>(std::clamp<Index>(room, 1, std::max<Index>(most, 1)))};
}

/// Starts kernel(arguments...) with clusters of so many blocks.
template <class... Parameters, class... Arguments>
void launch_clusters(Context<Cuda>& context, int cluster, unsigned blocks, int threads, void (*kernel)(Parameters...),
                     Arguments... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = blocks;
  configuration.blockDim = static_cast<unsigned>(threads);
  configuration.stream = context.stream();
  configuration.attrs = &attribute;
  configuration.numAttrs = cluster > 1 ? 1 : 0;
  COYOTE_CUDA_CHECK(cudaLaunchKernelEx(&configuration, kernel, arguments...));
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// How many rows of checkpoints wkv wants to write in training, each 3 * width numbers: one for every 64 rows of a sequence.
inline Index wkv_checkpoints(const Context<Cuda>&, const Batch& batch) {
  if (batch.offsets.empty()) return batch.sequences * ceil_div(batch.length, cuda::wkv_chunk);
  return batch.rows() / cuda::wkv_chunk + batch.sequences;
}

/// See the Reference's wkv. Every row is read once. Floor: k, v and y once; about 40 instructions a number.
template <class S>
void wkv(Context<Cuda>& context, const Batch& batch, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
         Rows<const S> v, Rows<S> y, Rows<float> checkpoints) {
  if (y.empty()) return;
  const auto launch = [&](auto n) {
    const Index groups = ceil_div(y.width, 32 * n());
    const cuda::WkvBlock block = cuda::wkv_block(context, batch, groups, 3);
    const cuda::WkvProblem<S> problem{cuda::sequences_of(batch), decay, bonus, k, v, checkpoints};
    cuda::launch_clusters(context, block.cluster, static_cast<unsigned>(batch.sequences * groups * block.cluster),
                          32 * block.warps, block.cluster > 1 ? cuda::wkv_kernel<n(), true, S> : cuda::wkv_kernel<n(), false, S>,
                          problem, block, y);
  };
  // Two channels a thread, unless that leaves multiprocessors without a block.
  const bool few = batch.sequences * ceil_div(y.width, 64) * cuda::most_wkv_cluster < 2 * context.limits().multiprocessors;
  cuda::with_packs_of<S, 2 * static_cast<int>(sizeof(S))>(
      y.width, [&](auto n) { few ? launch(std::integral_constant<int, 1>{}) : launch(n); }, k, v, y);
}

/// Gradients of wkv: dk and dv are overwritten, ddecay and dbonus (absent: not wanted) added to. Floor: k, v, dy, dk and dv once.
template <class S>
void wkv_backward(Context<Cuda>& context, const Batch& batch, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
                  Rows<const S> v, Rows<const float> checkpoints, Rows<const S> dy, Rows<S> dk, Rows<S> dv, Rows<float> ddecay,
                  Rows<float> dbonus) {
  if (dy.empty()) return;
  const auto frame = context.frame();
  const Rows<float> states(const_cast<float*>(checkpoints.data), checkpoints.rows, checkpoints.width, checkpoints.stride);
  const Index width = dy.width, groups = ceil_div(width, 32);
  const cuda::WkvBlock block = cuda::wkv_block(context, batch, groups, 2);
  const Rows<float> partial =
      ddecay.rows > 0 || dbonus.rows > 0 ? context.make<float>(batch.sequences * block.cluster, 2 * width) : Rows<float>();
  const cuda::WkvProblem<S> problem{cuda::sequences_of(batch), decay, bonus, k, v, states};
  cuda::launch_clusters(context, block.cluster, static_cast<unsigned>(batch.sequences * groups * block.cluster), 32 * block.warps,
                        block.cluster > 1 ? cuda::wkv_backward_kernel<1, true, S> : cuda::wkv_backward_kernel<1, false, S>,
                        problem, block, cuda::WkvGradients<S>{dy, dk, dv, partial});
  if (ddecay.rows > 0) {
    cuda::add_column_sums(context, partial, ddecay, dbonus);
  } else if (dbonus.rows > 0) {
    cuda::add_column_sums(context, partial.columns(width, width), dbonus);
  }
}

/// One row of every sequence. state [sequences, 3 * width]: numerators, denominators, highest exponents.
template <class S>
void wkv_step(Context<Cuda>& context, Rows<float> state, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
              Rows<const S> v, Rows<S> y) {
  if (y.empty()) return;
  cuda::wkv_step_kernel<S>
      <<<cuda::row_grid(y.rows, y.width), cuda::row_block(y.width), 0, context.stream()>>>(state, decay, bonus, k, v, y);
  COYOTE_CUDA_CHECK_LAUNCH("wkv_step");
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>

#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/wkv_sums.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// The address of something in this block's shared memory, and of the same thing in another block of the cluster.
__device__ inline unsigned address_in_block(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
__device__ inline unsigned address_in_cluster(const void* shared, int rank) {
  unsigned result = 0;
#if __CUDA_ARCH__ >= 900
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(address_in_block(shared)), "r"(rank));
#endif
  return result;
}

/// Sums of all channels of a warp in shared memory.
template <int N>
struct SharedWkvSums {
  float2 pairs[N][32];  // first, second
  float exponents[N][32];

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ void put(const WkvSums (&sums)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      pairs[i][lane()] = {sums[i].first, sums[i].second};
      exponents[i][lane()] = sums[i].highest;
    }
  }
  /// Puts sums where the same object of another block is, and counts their bytes at a barrier there: nobody waits for other
  /// memory accesses of this block, as a barrier of the cluster does.
  __device__ void send(const WkvSums (&sums)[N], int rank, const std::uint64_t* barrier) const {
#if __CUDA_ARCH__ >= 900
    const unsigned there = address_in_cluster(barrier, rank);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
                       address_in_cluster(&pairs[i][lane()], rank)),
                   "f"(sums[i].first), "f"(sums[i].second), "r"(there)
                   : "memory");
      asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
                       address_in_cluster(&exponents[i][lane()], rank)),
                   "f"(sums[i].highest), "r"(there)
                   : "memory");
    }
#endif
  }
  /// first and second, read where this stands: a load that the compiler moves into the branch of its use waits there.
  __device__ float2 pair(int i) const {
    float2 result;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(result.x), "=f"(result.y)
                 : "r"(address_in_block(&pairs[i][lane()]))
                 : "memory");
    return result;
  }
  __device__ float highest(int i) const { return exponents[i][lane()]; }
  __device__ WkvSums get(int i) const { return {pairs[i][lane()].x, pairs[i][lane()].y, highest(i)}; }
};

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
/// What two lines of so many parts take, with what stands before, between and behind them.
__host__ __device__ constexpr int wkv_line_length(int parts) { return 2 * parts + 3 * wkv_padding; }
template <int N>
__device__ SharedWkvSums<N>* wkv_line(SharedWkvSums<N>* lines, int parts, int parity) {
  return lines + wkv_padding + parity * (parts + wkv_padding);
}
/// By one warp.
template <int N>
__device__ void pad_wkv_lines(SharedWkvSums<N>* lines, int parts) {
  for (int i = 0; i < 3 * wkv_padding; ++i) lines[i / wkv_padding * (parts + wkv_padding) + i % wkv_padding].put({});
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
        for (int i = 0; i < N; ++i) more[j][i] = part(group + j).pair(i);
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
      highest = fmaxf(highest, fmaf(static_cast<float>(j), per_part, part(j).get(i).exponent()));
    }
    highest = rintf(highest);
    const float weight = power_of_two(sums[i].exponent() - highest + whole);
    WkvSums joined{weight * sums[i].first, weight * sums[i].second, highest};
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      const WkvSums more = part(j).get(i);
      const float w = power_of_two(fmaf(static_cast<float>(j), per_part, more.exponent() - highest));
      joined.first = fmaf(w, more.first, joined.first);
      joined.second = fmaf(w, more.second, joined.second);
    }
    sums[i] = joined;
  }
}

/// What the warps of a block and the blocks of a cluster tell each other, twice: what one step reads, the next does not
/// overwrite.
template <int N, bool Clustered>
struct WkvExchange {
  SharedWkvSums<N> carried[2], chunk_lines[Clustered ? wkv_line_length(most_wkv_cluster) : 1];
  std::uint64_t barriers[2];        // a block's chunks are there
  SharedWkvSums<N> slice_lines[1];  // behind it are the other parts

  static constexpr int bytes(WkvBlock block) {
    return static_cast<int>(sizeof(WkvExchange) +
                            static_cast<std::size_t>(wkv_line_length(block.warps) - 1) * sizeof(SharedWkvSums<N>));
  }
  /// Of the slices that the block's warps have in a step.
  __device__ SharedWkvSums<N>* slices(int parity) { return wkv_line(slice_lines, static_cast<int>(blockDim.x) / 32, parity); }
  /// Of the cluster's blocks.
  __device__ SharedWkvSums<N>* chunks(int parity, int cluster) { return wkv_line(chunk_lines, cluster, parity); }

  /// Before the first step nothing is carried.
  __device__ void begin(int cluster) {
    if (threadIdx.x < 32) {
      carried[0].put({});
      carried[1].put({});
      pad_wkv_lines(slice_lines, static_cast<int>(blockDim.x) / 32);
      if constexpr (Clustered) pad_wkv_lines(chunk_lines, cluster);
    }
#if __CUDA_ARCH__ >= 900
    if constexpr (Clustered) {
      if (threadIdx.x == 0) {
        for (const std::uint64_t& barrier : barriers) {
          asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address_in_block(&barrier)) : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      }
      cooperative_groups::this_cluster().sync();
    }
#endif
    __syncthreads();
  }
  /// Waits until the chunks of all blocks of the cluster are here. A block sends those of the step after next when it has had
  /// everybody's next ones, and those are sent by blocks whose warps have all read the ones of this step.
  __device__ void wait_for_chunks(int parity, int phase, int cluster) {
#if __CUDA_ARCH__ >= 900
    const unsigned barrier = address_in_block(&barriers[parity]);
    if (threadIdx.x == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                   "r"(cluster * static_cast<int>(sizeof(SharedWkvSums<N>)))
                   : "memory");
    }
    asm volatile(
        "{\n.reg .pred there;\nagain:\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 there, [%0], %1;\n"
        "@!there bra again;\n}" ::"r"(barrier),
        "r"(phase)
        : "memory");
#endif
  }
};

/// Publishes a slice's sums and gives what stands before the slice: of earlier rows or, descending, of later ones. What a step
/// leaves behind is `carried` of the next; `count` steps were before. Whoever finds all sums that it joins near the exponent of
/// what was carried two steps ago, which everybody knows, joins them linearly.
template <int Rows, bool Clustered, bool Descending, int N>
__device__ void exchange_sums(WkvExchange<N, Clustered>& shared, int count, WkvBlock block, int rank, const float (&decay)[N],
                              const WkvSums (&slice)[N], WkvSums (&before)[N]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, parity = count % 2;
  constexpr int step = Descending ? -1 : 1;
  const int last_warp = Descending ? 0 : block.warps - 1, earlier_warps = Descending ? block.warps - 1 - warp : warp;
  const int last_rank = Descending ? 0 : block.cluster - 1, earlier_ranks = Descending ? block.cluster - 1 - rank : rank;
  const auto all_lanes = [](bool x) { return __all_sync(0xffffffffu, x) != 0; };
  float common[N];
  WkvSums own[N];
  bool near = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float carried = shared.carried[1 - parity].highest(i);
    common[i] = carried <= 0.5f * wkv_empty ? 0.0f : carried;
    own[i] = slice[i];
    near = shift_to(own[i], common[i]) && near;
  }
  const SharedWkvSums<N>* slices = shared.slices(parity);
  shared.slices(parity)[warp].put(own);
  near = !__syncthreads_or(!near);
  if constexpr (Clustered) {
    for (int to = warp; to < block.cluster; to += block.warps) {
      WkvSums chunk[N];
#pragma unroll
      for (int i = 0; i < N; ++i) chunk[i].highest = near ? common[i] : wkv_empty;
      join_sums<Descending, most_wkv_warps>(chunk, slices, last_warp, block.warps, Rows, decay, near);
      shared.chunks(parity, block.cluster)[rank].send(chunk, to, &shared.barriers[parity]);
    }
    shared.wait_for_chunks(parity, count / 2 % 2, block.cluster);
  }
  bool near_carried = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    before[i] = shared.carried[parity].get(i);
    near_carried = shift_to(before[i], common[i]) && near_carried;
    if constexpr (Clustered) {
#pragma unroll
      for (int r = 0; r < most_wkv_cluster; ++r) {
        if (r < block.cluster) near_carried = near_carried && shared.chunks(parity, block.cluster)[r].highest(i) == common[i];
      }
    }
  }
  near_carried = all_lanes(near_carried);
  near = near && near_carried;
  const int chunk_rows = block.warps * Rows;
  WkvSums after[N];
  if constexpr (Clustered) {
    const SharedWkvSums<N>* const chunks = shared.chunks(parity, block.cluster);
    if (warp == last_warp) {
#pragma unroll
      for (int i = 0; i < N; ++i) after[i] = before[i];
      join_sums<Descending, most_wkv_cluster>(after, chunks, last_rank, block.cluster, chunk_rows, decay, near_carried);
    }
    join_sums<Descending, most_wkv_cluster>(before, chunks, rank - step, earlier_ranks, chunk_rows, decay, near_carried);
  }
  join_sums<Descending, most_wkv_warps>(before, slices, warp - step, earlier_warps, Rows, decay, near);
  if (warp == last_warp) {
#pragma unroll
    for (int i = 0; i < N; ++i) after[i] = normalised(Clustered ? after[i] : join(before[i], Rows * decay[i], own[i], near));
    shared.carried[1 - parity].put(after);
  }
}

/// Starts kernel(arguments...), which calls `follow`, with clusters of so many blocks. Those of several do not start early: it
/// makes them slower, not faster.
template <class... Parameters, class... Arguments>
void launch_clusters(Context<Cuda>& context, int cluster, unsigned blocks, int threads, int shared_memory,
                     void (*kernel)(Parameters...), const Arguments&... arguments) {
  const auto bytes = static_cast<std::size_t>(shared_memory);
  if (cluster == 1) {
    return launch_following(context, kernel, "launch of wkv", blocks, static_cast<unsigned>(threads), bytes, arguments...);
  }
  COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_memory));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = blocks;
  configuration.blockDim = static_cast<unsigned>(threads);
  configuration.dynamicSmemBytes = bytes;
  configuration.stream = context.stream();
  configuration.attrs = &attribute;
  configuration.numAttrs = 1;
  COYOTE_CUDA_CHECK(cudaLaunchKernelEx(&configuration, kernel, arguments...));
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

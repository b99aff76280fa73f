// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>

#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/rowwise.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Sums over rows, for gradients of parameters: every block adds up some rows, in a fixed order, into a row of partial sums, and
// a second kernel adds the partial sums up. Nothing depends on which block comes first.

/// How many rows of partial sums are worth their memory: four blocks for each multiprocessor of the largest devices.
inline constexpr Index most_partial_rows = 528;

inline constexpr int partial_rows_together = 16;

/// The matrices that the columns of partial sums belong to, one after the other, each row by row.
template <int N>
struct SumTargets {
  Rows<float> target[N];
};

/// Each element of the targets receives (+=) the sum of its column of `partial`. A thread has every blockDim.y-th row, 16 of them
/// under way at once: it is the number of waits that counts.
template <int N>
__global__ void __launch_bounds__(1024) add_column_sums_kernel(Rows<const float> partial, SumTargets<N> targets, Index columns) {
  __shared__ float sums[32][32];
  follow();
  const Index column = Index{blockIdx.x} * 32 + threadIdx.x;
  const bool exists = column < columns, adds = exists && threadIdx.y == 0;
  float* place = nullptr;
  float before = 0;
  if (adds) {
    Index element = column;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const Rows<float> target = targets.target[n];
      const Index size = target.rows * target.width;
      if (element >= 0 && element < size) {
        place = target.stride == target.width ? target.data + element : &target(element / target.width, element % target.width);
      }
      element -= size;
    }
    before = *place;
  }
  float sum = 0;
  const auto rows = static_cast<int>(partial.rows), step = static_cast<int>(blockDim.y);
  const Index apart = step * partial.stride;
  const float* from = partial.row(threadIdx.y) + column;
  for (int row = threadIdx.y; row < rows; row += partial_rows_together * step, from += partial_rows_together * apart) {
    float values[partial_rows_together];
#pragma unroll
    for (int u = 0; u < partial_rows_together; ++u) {
      values[u] = exists && row + u * step < rows ? from[u * apart] : 0.0f;
    }
#pragma unroll
    for (int u = 0; u < partial_rows_together; ++u) sum += values[u];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (!adds) return;
  for (int y = 1; y < step; ++y) sum += sums[y][threadIdx.x];
  *place = before + sum;
}

/// target (+=) the sums of its columns of `partial`, which the kernel before has left; absent targets have none. That kernel may
/// `follow`.
template <std::same_as<Rows<float>>... Targets>
void add_column_sums(Context<Cuda>& context, Rows<const float> partial, Targets... target) {
  const Index columns = (... + (target.rows * target.width));
  if (columns == 0) return;
  constexpr int count = sizeof...(Targets);
  const auto rows = static_cast<unsigned>(std::clamp<Index>(ceil_div(partial.rows, partial_rows_together), 1, 32));
  launch_following(context, add_column_sums_kernel<count>, "launch of add_column_sums",
                   dim3(static_cast<unsigned>(ceil_div(columns, 32))), dim3(32, rows), 0, partial, SumTargets<count>{{target...}},
                   columns);
}

/// partial(block, c) = sum of f over the rows of the block: blockIdx.y * blockDim.y + threadIdx.y and every so many further.
template <int N, class F>
__global__ void __launch_bounds__(row_threads) sum_rows_kernel(std::int32_t rows, F f, Rows<float> partial) {
  constexpr int together = N >= 8 ? 2 : 4;
  __shared__ float sums[row_threads][N + 1];
  const auto column = static_cast<std::int32_t>((blockIdx.x * blockDim.x + threadIdx.x) * N);
  const auto step = static_cast<std::int32_t>(gridDim.y * blockDim.y);
  Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
  if (column < partial.width) {
    for (std::int64_t first = blockIdx.y * blockDim.y + threadIdx.y; first < rows; first += std::int64_t{together} * step) {
      Pack<N> made[together];
#pragma unroll
      for (int u = 0; u < together; ++u) {
        const std::int64_t row = first + std::int64_t{u} * step;
        made[u] = row < rows ? f.template operator()<N>(static_cast<std::int32_t>(row), column)
                             : make_pack<N>([](int) { return 0.0f; });
      }
#pragma unroll
      for (int u = 0; u < together; ++u) {
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += made[u][i];
      }
    }
  }
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int i = 0; i < N; ++i) sums[thread][i] = sum[i];
  __syncthreads();
  if (threadIdx.y != 0 || column >= partial.width) return;
  for (unsigned other = 1; other < blockDim.y; ++other) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += sums[other * blockDim.x + threadIdx.x][i];
  }
  store<N>(partial.row(blockIdx.y) + column, sum);
}

/// target[0] += sum over `rows` rows of f, a function object as map_rows takes one. S says how wide packs are: those of the
/// activations in `views`.
template <class S, class F, class... Views>
void sum_rows(Context<Cuda>& context, Index rows, const F& f, Rows<float> target, Views... views) {
  if (target.empty() || rows == 0) return;
  const auto frame = context.frame();
  with_packs<S>(
      target.width,
      [&](auto n) {
        constexpr int N = n();
        const Index packs = target.width / N;
        const dim3 block = row_block(packs);
        const Index columns = ceil_div(packs, block.x), blocks = ceil_div(rows, Index{block.y} * 8);
        const Index partial_rows = std::clamp<Index>(blocks, 1, std::max<Index>(1, most_partial_rows / columns));
        const Rows<float> partial = context.make<float>(partial_rows, target.width);
        const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(partial_rows));
        sum_rows_kernel<N><<<grid, block, 0, context.stream()>>>(static_cast<std::int32_t>(rows), f, partial);
        COYOTE_CUDA_CHECK_LAUNCH("sum_rows");
        add_column_sums(context, partial, target);
      },
      views...);
}

/// Sums over a chunk of sequences, position by position: partial [chunks, length * width].
template <int N, class F>
__global__ void __launch_bounds__(row_threads)
    sum_positions_kernel(Sequences sequences, std::int32_t chunk, std::int32_t width, F f, Rows<float> partial) {
  const auto column = static_cast<std::int32_t>((blockIdx.y * blockDim.x + threadIdx.x) * N);
  const auto position = static_cast<std::int32_t>(blockIdx.x * blockDim.y + threadIdx.y);
  if (column >= width || position >= sequences.length) return;
  const auto first = static_cast<std::int32_t>(blockIdx.z) * chunk;
  const std::int32_t last = first + chunk < sequences.sequences ? first + chunk : sequences.sequences;
  Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
#pragma unroll 4
  for (std::int32_t s = first; s < last; ++s) {
    if (position >= sequences.size(s)) continue;
    const Pack<N> values = f.template operator()<N>(static_cast<std::int32_t>(sequences.begin(s)) + position, column);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += values[i];
  }
  store<N>(partial.row(blockIdx.z) + Index{position} * width + column, sum);
}

/// target[p] += the sum of f over the rows of position p in their sequences; see sum_rows.
template <class S, class F, class... Views>
void sum_positions(Context<Cuda>& context, const Batch& batch, const F& f, Rows<float> target, Views... views) {
  if (target.empty()) return;
  const auto frame = context.frame();
  const Index width = target.width;
  with_packs<S>(
      width,
      [&](auto n) {
        // So many chunks that some hundred thousand threads are at work, of at least eight sequences.
        const Index packs = width / n(), threads = packs * batch.length;
        const Index chunks = std::clamp<Index>((Index{1} << 18) / threads, 1, ceil_div(batch.sequences, 8));
        const auto chunk = static_cast<std::int32_t>(ceil_div(batch.sequences, chunks));
        const Rows<float> partial = context.make<float>(chunks, batch.length * width);
        dim3 grid = row_grid(batch.length, packs);
        grid.z = static_cast<unsigned>(chunks);
        sum_positions_kernel<n()><<<grid, row_block(packs), 0, context.stream()>>>(sequences_of(batch), chunk,
                                                                                   static_cast<std::int32_t>(width), f, partial);
        COYOTE_CUDA_CHECK_LAUNCH("sum_positions");
        add_column_sums(context, partial, target.slice(0, batch.length));
      },
      views...);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

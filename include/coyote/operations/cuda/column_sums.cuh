// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/rowwise.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Sums over rows, for gradients of parameters: every block adds up some rows, in a fixed order, into a row of partial sums, and
// a second kernel adds the partial sums up. Nothing depends on which block comes first.

/// How many rows of partial sums are worth their memory: four blocks for each multiprocessor of the largest devices.
inline constexpr Index most_partial_rows = 528;

/// The columns of `partial`, one after the other, belong to the elements of `first` and then to those of `second`, row by row:
/// each receives (+=) the sum of its column.
template <int Unused = 0>
__global__ void __launch_bounds__(1024)
    add_column_sums_kernel(Rows<const float> partial, Rows<float> first, Rows<float> second, Index columns) {
  follow();
  __shared__ float sums[32][33];
  const Index column = Index{blockIdx.x} * 32 + threadIdx.x;
  float sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (Index row = threadIdx.y; row < partial.rows; row += 32) sum += partial(row, column);
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  // Turned over, the 32 sums of a column lie in one warp.
  float whole = sums[threadIdx.x][threadIdx.y];
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) whole += __shfl_xor_sync(0xFFFFFFFFu, whole, lanes);
  const Index place = Index{blockIdx.x} * 32 + threadIdx.y, split = first.rows * first.width;
  if (threadIdx.x != 0 || place >= columns) return;
  const Rows<float> target = place < split ? first : second;
  const Index element = place < split ? place : place - split;
  target(element / target.width, element % target.width) += whole;
}

inline void add_column_sums(Context<Cuda>& context, Rows<const float> partial, Rows<float> first, Rows<float> second = {}) {
  const Index columns = first.rows * first.width + second.rows * second.width;
  if (columns == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(columns, 32)));
  launch_following(context, &add_column_sums_kernel<>, "launch of add_column_sums", grid, dim3(32, 32), 0, partial, first, second,
                   columns);
}

/// partial(block, c) = sum of f over the rows of the block: blockIdx.y * blockDim.y + threadIdx.y and every so many further.
template <int N, class F>
__global__ void __launch_bounds__(row_threads) sum_rows_kernel(std::int32_t rows, F f, Rows<float> partial) {
  follow();
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
        launch_following(context, &sum_rows_kernel<N, F>, "launch of sum_rows", grid, block, 0, rows, f, partial);
        add_column_sums(context, partial, target);
      },
      views...);
}

/// Sums over a chunk of sequences, position by position: partial [chunks, length * width].
template <int N, class F>
__global__ void __launch_bounds__(row_threads)
    sum_positions_kernel(Sequences sequences, std::int32_t chunk, std::int32_t width, F f, Rows<float> partial) {
  follow();
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
        launch_following(context, &sum_positions_kernel<n(), F>, "launch of sum_positions", grid, row_block(packs), 0,
                         sequences_of(batch), chunk, width, f, partial);
        add_column_sums(context, partial, target.slice(0, batch.length));
      },
      views...);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

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

/// Each element of the targets receives (+=) the sum of its column of `partial`; a block has 32 times W neighbours of them, which
/// lie in packs. A thread has every blockDim.y-th row, many of them under way at once: it is the number of waits that counts.
template <int W, int N>
__device__ void add_columns(Rows<const float> partial, const SumTargets<N>& targets, Index columns, Index block) {
  constexpr int together = W == 1 ? partial_rows_together : 9;  // times 16 threads: a row for each multiprocessor at once
  __shared__ __align__(16) float sums[W == 1 ? 32 : 16][32][W];
  const Index column = (block * 32 + threadIdx.x) * W;
  const bool exists = column < columns, adds = exists && threadIdx.y == 0;
  float* place = nullptr;
  Pack<W> before;
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
    before = load<W>(static_cast<const float*>(place));
  }
  Pack<W> sum = make_pack<W>([](int) { return 0.0f; });
  const auto rows = static_cast<int>(partial.rows), step = static_cast<int>(blockDim.y);
  const Index apart = step * partial.stride;
  const float* from = partial.row(threadIdx.y) + column;
  for (int row = threadIdx.y; row < rows; row += together * step, from += together * apart) {
    Pack<W> values[together];
    const auto there = [&](int u) { return exists && row + u * step < rows; };
#pragma unroll
    for (int u = 0; u < together; ++u) values[u] = load<W>(there(u) ? from + u * apart : partial.data);
#pragma unroll
    for (int u = 0; u < together; ++u) {
#pragma unroll
      for (int i = 0; i < W; ++i) sum[i] += there(u) ? values[u][i] : 0.0f;
    }
  }
  store<W>(sums[threadIdx.y][threadIdx.x], sum);
  __syncthreads();
  if (!adds) return;
  for (int y = 1; y < step; ++y) {
    const Pack<W> other = load<W>(static_cast<const float*>(sums[y][threadIdx.x]));
#pragma unroll
    for (int i = 0; i < W; ++i) sum[i] += other[i];
  }
  store<W>(place, make_pack<W>([&](int i) { return before[i] + sum[i]; }));
}
template <int N>
__global__ void __launch_bounds__(1024) add_column_sums_kernel(Rows<const float> partial, SumTargets<N> targets, Index columns) {
  follow();
  add_columns<1>(partial, targets, columns, Index{blockIdx.x});
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
                   static_cast<unsigned>(ceil_div(columns, 32)), dim3(32, rows), 0, partial, SumTargets<count>{{target...}},
                   columns);
}

/// As many sums as one kernel can be told of.
inline constexpr int most_gathered_sums = 24;
struct GatheredList {
  struct Entry {
    Rows<const float> partial;
    Rows<float> target;
    std::int32_t first_block;  // of those that have its columns
    bool in_packs;             // 128 columns a block, not 32
  };
  Entry entry[most_gathered_sums];
  int count = 0;
};

/// add_column_sums of every entry.
template <int Unused = 0>
__global__ void __launch_bounds__(512, 2) add_gathered_sums_kernel(GatheredList list) {
  follow();
  int n = 0;
  while (n + 1 < list.count && static_cast<std::int32_t>(blockIdx.x) >= list.entry[n + 1].first_block) ++n;
  const GatheredList::Entry& entry = list.entry[n];
  const SumTargets<1> target{{entry.target}};
  const Index columns = entry.target.rows * entry.target.width;
  const Index block{static_cast<std::int32_t>(blockIdx.x) - entry.first_block};
  entry.in_packs ? add_columns<4>(entry.partial, target, columns, block) : add_columns<1>(entry.partial, target, columns, block);
}

/// Adds up what waits, and forgets it.
inline void add_waiting_sums(Context<Cuda>& context) {
  std::vector<WaitingSum>& waiting = context.waiting_sums();
  for (std::size_t first = 0; first < waiting.size(); first += most_gathered_sums) {
    GatheredList list;
    std::int32_t blocks = 0;
    for (std::size_t n = first; n < waiting.size() && n < first + most_gathered_sums; ++n) {
      const WaitingSum& sum = waiting[n];
      const bool in_packs = sum.target.width % 4 == 0 && reads_packs<4>(sum.target) && reads_packs<4>(sum.partial);
      list.entry[list.count++] = {sum.partial, sum.target, blocks, in_packs};
      blocks += static_cast<std::int32_t>(ceil_div(sum.target.rows * sum.target.width, in_packs ? 128 : 32));
    }
    launch_following(context, &add_gathered_sums_kernel<>, "launch of add_gathered_sums", static_cast<unsigned>(blocks),
                     dim3(32, 16), 0, list);
  }
  waiting.clear();
}

/// The same for partial sums that may wait. One gradient never waits twice: the order of its sums is that of the calls.
template <std::same_as<Rows<float>>... Targets>
void add_column_sums(Context<Cuda>& context, const PartialSums& partial, Targets... target) {
  if (!partial.waits) return add_column_sums(context, Rows<const float>(partial.rows), target...);
  Index column = 0;
  const auto wait = [&](Rows<float> to) {
    const Index size = to.rows * to.width;
    if (size == 0) return;
    for (const WaitingSum& other : context.waiting_sums()) {
      if (other.target.data == to.data) {
        add_waiting_sums(context);
        break;
      }
    }
    context.waiting_sums().push_back({Rows<const float>(partial.rows).columns(column, size), to});
    column += size;
  };
  (wait(target), ...);
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
        const PartialSums partial = context.make_partial_sums(partial_rows, target.width);
        const dim3 grid(static_cast<unsigned>(columns), static_cast<unsigned>(partial_rows));
        launch_following(context, &sum_rows_kernel<N, F>, "launch of sum_rows", grid, block, 0, rows, f, partial.rows);
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
        const PartialSums partial = context.make_partial_sums(chunks, batch.length * width);
        dim3 grid = row_grid(batch.length, packs);
        grid.z = static_cast<unsigned>(chunks);
        launch_following(context, &sum_positions_kernel<n(), F>, "launch of sum_positions", grid, row_block(packs), 0,
                         sequences_of(batch), chunk, width, f, partial.rows);
        add_column_sums(context, partial, target.slice(0, batch.length));
      },
      views...);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

namespace coyote::inline v0 {

/// Partial sums wait in memory of their own, and one kernel adds up all of a pass: a tenth of a short pass' kernels would
/// otherwise be such sums.
template <>
class GatheredSums<Cuda> {
 public:
  explicit GatheredSums(Context<Cuda>& context) : context_(context), mark_(context.sums_arena().mark()) {
    context.gather_sums(true);
  }
  GatheredSums(const GatheredSums&) = delete;
  GatheredSums& operator=(const GatheredSums&) = delete;
  ~GatheredSums() {
    context_.gather_sums(false);
    context_.waiting_sums().clear();
    context_.sums_arena().release(mark_);
  }
  void finish() { cuda::add_waiting_sums(context_); }

 private:
  Context<Cuda>& context_;
  Context<Cuda>::DeviceArena::Mark mark_;
};

}  // namespace coyote::inline v0

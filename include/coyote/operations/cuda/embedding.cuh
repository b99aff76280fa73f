// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cub/device/device_radix_sort.cuh>
#include <span>

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/embedding.hpp"

namespace coyote::inline v0 {

// Tokens and rows come as spans of the device's memory (Batch::device), which the host never reads.

namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// to[i] = from[rows[i]]
template <class From, class Row>
struct Gather {
  const Row* rows;
  Rows<const From> from;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    return load<N>(from.row(rows[row]) + column);
  }
};

template <int N, class S>
__global__ void __launch_bounds__(row_threads) scatter_kernel(const Index* rows, Rows<const S> x, Rows<S> y) {
  const Index column = Index{blockIdx.y * blockDim.x + threadIdx.x} * N;
  const Index row = Index{blockIdx.x} * blockDim.y + threadIdx.y;
  if (column < x.width && row < x.rows) store<N>(y.row(rows[row]) + column, load<N>(x.row(row) + column));
}

/// y += table[position of the row in its sequence]
template <class S>
struct PositionRow {
  Sequences sequences;
  Rows<const float> table;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    return load<N>(table.row(sequences.position(row)) + column);
  }
};

// ---- the table's gradient -----------------------------------------------------------------------------------------------
//
// Rows are sorted by their token (a stable sort: rows of one token stay in order), then cut into chunks of equally many rows, so
// that a token that fills half of the batch costs no more than many rare ones. Whoever works on a chunk adds up runs of one
// token. A run inside the chunk is the token's whole gradient; one that reaches over an end of the chunk leaves a partial sum,
// and a second kernel adds those up, for every token by the chunk in which it begins.

inline constexpr int run_chunk = 32;

template <int Unused = 0>
__global__ void number_rows_kernel(std::int32_t* numbers, std::int32_t count) {
  const auto i = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) numbers[i] = i;
}

/// The rows of a batch, sorted by token.
struct SortedRows {
  const Token* tokens;
  const std::int32_t* rows;
  std::int32_t count;

  /// Does a run reach over the beginning of element i?
  __device__ bool continues(std::int32_t i) const { return i > 0 && i < count && tokens[i] == tokens[i - 1]; }
};

/// sums(2 * chunk, .): of the run that comes in from the chunk before; sums(2 * chunk + 1, .): of the one that goes out to the
/// next and begins in this chunk.
template <int N, class S>
__global__ void __launch_bounds__(row_threads)
    sum_runs_kernel(SortedRows sorted, Rows<const S> dy, Rows<float> dtable, Rows<float> sums) {
  const Index column = Index{blockIdx.y * blockDim.x + threadIdx.x} * N;
  const std::int64_t chunk = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const std::int64_t begin = chunk * run_chunk;
  if (column >= dy.width || begin >= sorted.count) return;
  const auto first = static_cast<std::int32_t>(begin);
  const std::int32_t last = first + run_chunk < sorted.count ? first + run_chunk : sorted.count;
  constexpr int together = 8;
  Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
  bool incoming = sorted.continues(first);
  Token token = sorted.tokens[first];
  const auto flush = [&] {
    if (incoming) {
      store<N>(sums.row(2 * chunk) + column, sum);
    } else {
      add_alone<N>(dtable.row(token) + column, sum);
    }
  };
  for (std::int32_t e = first; e < last; e += together) {
    RawPack<N, S> raw[together];
    Token tokens[together];
#pragma unroll
    for (int u = 0; u < together; ++u) {
      const std::int32_t place = e + u < last ? e + u : last - 1;
      tokens[u] = sorted.tokens[place];
      raw[u] = load_raw<N>(dy.row(sorted.rows[place]) + column);
    }
#pragma unroll
    for (int u = 0; u < together; ++u) {
      if (e + u >= last) break;
      const Pack<N> values = raw[u].floats();
      if (tokens[u] != token) {
        flush();
        incoming = false;
        token = tokens[u];
        sum = values;
      } else {
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += values[i];
      }
    }
  }
  if (!incoming && sorted.continues(last)) {
    store<N>(sums.row(2 * chunk + 1) + column, sum);
  } else {
    flush();
  }
}

/// Adds up the runs that reach over chunks' ends: blockIdx.x is a chunk, and its threads' y share what later chunks hold of the
/// run that goes out of it.
template <int Unused = 0>
__global__ void __launch_bounds__(row_threads) join_runs_kernel(SortedRows sorted, Rows<const float> sums, Rows<float> dtable) {
  __shared__ float parts[row_threads / 32][33];
  const std::int64_t chunk = blockIdx.x;
  const std::int64_t end = (chunk + 1) * run_chunk;
  if (end >= sorted.count || !sorted.continues(static_cast<std::int32_t>(end))) return;
  const Token token = sorted.tokens[end];
  // The run begins in this chunk unless it came in and filled it.
  if (chunk > 0 && sorted.tokens[chunk * run_chunk - 1] == token) return;
  // The last chunk that the run reaches into, by bisection over the chunks' first elements.
  std::int64_t low = chunk + 1, high = (sorted.count - 1) / run_chunk;
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    if (sorted.tokens[middle * run_chunk] == token) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const Index column = Index{blockIdx.y} * 32 + threadIdx.x;
  float sum = 0;
  if (column < dtable.width) {
    if (threadIdx.y == 0) sum = sums(2 * chunk + 1, column);
#pragma unroll 16
    for (std::int64_t other = chunk + 1 + threadIdx.y; other <= low; other += row_threads / 32) sum += sums(2 * other, column);
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= dtable.width) return;
  for (int y = 1; y < row_threads / 32; ++y) sum += parts[y][threadIdx.x];
  dtable(token, column) += sum;
}

/// Sorts row numbers by token. The arrays live in the caller's frame.
inline SortedRows sort_rows(Context<Cuda>& context, std::span<const Token> tokens, Index vocabulary) {
  const auto count = static_cast<std::int32_t>(tokens.size());
  const Rows<std::int32_t> numbers = context.make<std::int32_t>(1, count), rows = context.make<std::int32_t>(1, count);
  const Rows<Token> sorted = context.make<Token>(1, count);
  number_rows_kernel<>
      <<<static_cast<unsigned>(ceil_div(count, row_threads)), row_threads, 0, context.stream()>>>(numbers.data, count);
  COYOTE_CUDA_CHECK_LAUNCH("number_rows");
  const int bits = std::bit_width(static_cast<std::size_t>(vocabulary - 1));
  std::size_t bytes = 0;
  const auto sort = [&](void* scratch) {
    COYOTE_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch, bytes, tokens.data(), sorted.data, numbers.data, rows.data, count,
                                                      0, bits > 0 ? bits : 1, context.stream()));
  };
  sort(nullptr);
  sort(context.make<unsigned char>(1, static_cast<Index>(bytes)).data);
  return {sorted.data, rows.data, count};
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i] = table[tokens[i]]
template <class S>
void embed(Context<Cuda>& context, std::span<const Token> tokens, Rows<const float> table, Rows<S> y) {
  cuda::map_rows(context, cuda::Gather<float, Token>{tokens.data(), table}, Write::overwrite, y, table);
}

/// dtable[tokens[i]] += dy[i], in the order of rows. Floor: dy once, and the table's touched rows twice.
template <class S>
void embed_backward(Context<Cuda>& context, std::span<const Token> tokens, Rows<const S> dy, Rows<float> dtable) {
  if (dy.empty() || dtable.empty()) return;
  const auto frame = context.frame();
  const cuda::SortedRows sorted = cuda::sort_rows(context, tokens, dtable.rows);
  const Index chunks = ceil_div(sorted.count, cuda::run_chunk);
  const Rows<float> sums = context.make<float>(2 * chunks, dy.width);
  cuda::with_packs<S>(
      dy.width,
      [&](auto n) {
        const Index packs = dy.width / n();
        cuda::sum_runs_kernel<n(), S>
            <<<cuda::row_grid(chunks, packs), cuda::row_block(packs), 0, context.stream()>>>(sorted, dy, dtable, sums);
        COYOTE_CUDA_CHECK_LAUNCH("sum_runs");
      },
      dy, dtable);
  const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(ceil_div(dy.width, 32)));
  cuda::join_runs_kernel<><<<grid, dim3(32, cuda::row_threads / 32), 0, context.stream()>>>(sorted, sums, dtable);
  COYOTE_CUDA_CHECK_LAUNCH("join_runs");
}

/// y[i] += table[position of row i in its sequence]
template <class S>
void add_positions(Context<Cuda>& context, const Batch& batch, Rows<const float> table, Rows<S> y) {
  cuda::map_rows(context, cuda::PositionRow<S>{cuda::sequences_of(batch), table}, Write::add, y, table);
}

/// dtable[position] += dy, summed over sequences
template <class S>
void add_positions_backward(Context<Cuda>& context, const Batch& batch, Rows<const S> dy, Rows<float> dtable) {
  cuda::sum_positions<S>(context, batch, cuda::SameRow<S>{dy}, dtable, dy);
}

/// y[n] = x[rows[n]]
template <class S>
void gather(Context<Cuda>& context, std::span<const Index> rows, Rows<const S> x, Rows<S> y) {
  cuda::map_rows(context, cuda::Gather<S, Index>{rows.data(), x}, Write::overwrite, y, x);
}

/// y[rows[n]] = x[n], and 0 elsewhere; `rows` ascends.
template <class S>
void scatter(Context<Cuda>& context, std::span<const Index> rows, Rows<const S> x, Rows<S> y) {
  clear<S>(context, y);
  if (x.empty()) return;
  cuda::with_packs<S>(
      x.width,
      [&](auto n) {
        const Index packs = x.width / n();
        cuda::scatter_kernel<n(), S>
            <<<cuda::row_grid(x.rows, packs), cuda::row_block(packs), 0, context.stream()>>>(rows.data(), x, y);
        COYOTE_CUDA_CHECK_LAUNCH("scatter");
      },
      x, y);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cub/device/device_radix_sort.cuh>
#include <span>

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/cuda/dropout.cuh"
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

/// How many of some ascending rows are below `bound`, found by the 32 lanes of a warp: so many places cut what is left into 33.
__device__ inline Index rows_below(const Index* rows, Index count, Index bound, unsigned lane) {
  Index low = 0;
  for (Index left = count; left > 0;) {  // those before `low` are below, those from low + left on are not
    const Index part = left / 33 + 1, place = part * (static_cast<Index>(lane) + 1) - 1;
    const Index passed = part * __popc(__ballot_sync(0xFFFFFFFFu, place < left && rows[low + place] < bound));
    low += passed;
    left = left - passed < part - 1 ? left - passed : part - 1;
  }
  return low;
}

/// y[rows[n]] = x[n], and 0 elsewhere: a block has so many rows of y.
inline constexpr int scattered_rows = 128;
template <int N, class S>
__global__ void __launch_bounds__(row_threads) scatter_kernel(const Index* rows, Rows<const S> x, Rows<S> y) {
  follow();
  __shared__ std::int32_t source[scattered_rows];
  __shared__ Index first;
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const Index begin = Index{blockIdx.x} * scattered_rows;
  if (thread < 32) {
    const Index below = rows_below(rows, x.rows, begin, thread);
    if (thread == 0) first = below;
  }
  for (unsigned r = thread; r < scattered_rows; r += threads) source[r] = -1;
  __syncthreads();
  for (unsigned r = thread; r < scattered_rows; r += threads) {
    const Index n = first + r;
    if (n < x.rows && rows[n] < begin + scattered_rows) source[rows[n] - begin] = static_cast<std::int32_t>(n);
  }
  __syncthreads();
  const Index column = Index{blockIdx.y * blockDim.x + threadIdx.x} * N;
  if (column >= y.width) return;
#pragma unroll 4
  for (unsigned r = threadIdx.y; r < scattered_rows; r += blockDim.y) {
    if (begin + r >= y.rows) break;
    const std::int32_t n = source[r];
    store<N>(y.row(begin + r) + column, n >= 0 ? load<N>(x.row(n) + column) : make_pack<N>([](int) { return 0.0f; }));
  }
}

/// What a language model's layers receive: see embed_batch.
struct EmbeddedRow {
  const Token* tokens;
  Rows<const float> table, positions;
  Sequences sequences;
  DropoutDraws draws;
  bool drops;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    Pack<N> result = load<N>(table.row(tokens[row]) + column);
    if (positions.rows > 0) {
      const Pack<N> more = load<N>(positions.row(sequences.position(row)) + column);
#pragma unroll
      for (int i = 0; i < N; ++i) result[i] += more[i];
    }
    if (drops) draws.multiply(row, column, result);
    return result;
  }
};

// ---- the table's gradient -----------------------------------------------------------------------------------------------
//
// Rows are sorted by their token (a stable sort: rows of one token stay in order), then cut into chunks of equally many rows, so
// that a token that fills half of the batch costs no more than many rare ones. Whoever works on a chunk adds up runs of one
// token. A run inside the chunk is the token's whole gradient; one that reaches over an end of the chunk leaves a partial sum,
// and a second kernel adds those up, for every token by the chunk in which it begins.

inline constexpr int run_chunk = 16;

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
  // Every load of the chunk is under way before the first sum.
  RawPack<N, S> raw[run_chunk];
  Token tokens[run_chunk];
#pragma unroll
  for (int u = 0; u < run_chunk; ++u) {
    const std::int32_t place = first + u < last ? first + u : last - 1;
    tokens[u] = sorted.tokens[place];
    raw[u] = load_raw<N>(dy.row(sorted.rows[place]) + column);
  }
  Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
  bool incoming = sorted.continues(first);
  Token token = tokens[0];
  const auto flush = [&] {
    if (incoming) {
      store<N>(sums.row(2 * chunk) + column, sum);
    } else {
      add_alone<N>(dtable.row(token) + column, sum);
    }
  };
#pragma unroll
  for (int u = 0; u < run_chunk; ++u) {
    if (first + u >= last) break;
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
  if (!incoming && sorted.continues(last)) {
    store<N>(sums.row(2 * chunk + 1) + column, sum);
  } else {
    flush();
  }
}

/// Rows of x times their multipliers, which are written back: for a pass that reads each once.
template <class S>
struct DroppedInPlace {
  DropoutDraws draws;
  Rows<S> x;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    S* const place = x.row(row) + column;
    Pack<N> values = load<N>(static_cast<const S*>(place));
    draws.multiply(row, column, values);
    store<N>(place, values);
    return values;
  }
};

/// Adds up the runs that reach over chunks' ends. A warp of a block looks at one chunk: if a run begins in it and goes out, the
/// warp adds up what later chunks hold of it, or leaves that to the whole block if those are many.
template <int Unused = 0>
__global__ void __launch_bounds__(1024) join_runs_kernel(SortedRows sorted, Rows<const float> sums, Rows<float> dtable) {
  follow();
  __shared__ float parts[32][33];
  __shared__ std::int32_t ends[32];  // the last chunk of a run that is left to the block, or -1
  const std::int64_t first = std::int64_t{blockIdx.x} * 32, own = first + threadIdx.y;
  const Index column = Index{blockIdx.y} * 32 + threadIdx.x;
  const auto token_at = [&](std::int64_t chunk) { return sorted.tokens[chunk * run_chunk]; };
  const auto add_up = [&](std::int64_t begin, std::int64_t last, std::int64_t step) {
    float sum = 0;
#pragma unroll 8
    for (std::int64_t other = begin; other <= last; other += step) sum += sums(2 * other, column);
    return sum;
  };
  // The run begins in this chunk unless it came in and filled it.
  const bool begins = (own + 1) * run_chunk < sorted.count &&
                      sorted.continues(static_cast<std::int32_t>((own + 1) * run_chunk)) &&
                      (own == 0 || sorted.tokens[own * run_chunk - 1] != token_at(own + 1));
  std::int32_t left = -1;
  if (begins) {
    const Token token = token_at(own + 1);
    // The last chunk that the run reaches into: the warp looks at the first elements of 32 chunks, then between two of them.
    std::int64_t low = own + 1, high = (sorted.count - 1) / run_chunk;
    for (std::int64_t reach = 1; low < high;) {
      const std::int64_t probe = low + reach * (threadIdx.x + 1);
      const unsigned inside = __ballot_sync(0xFFFFFFFFu, probe <= high && token_at(probe <= high ? probe : high) == token);
      const int hits = __popc(inside);  // a run has no gaps: these are the first ones
      low += reach * hits;
      if (hits < 32) high = low + reach - 1 < high ? low + reach - 1 : high;
      reach = hits == 32 ? reach * 32 : reach / 32 > 0 ? reach / 32 : 1;
    }
    if (low - own > 32) {
      left = static_cast<std::int32_t>(low);
    } else if (column < dtable.width) {
      dtable(token, column) += sums(2 * own + 1, column) + add_up(own + 1, low, 1);
    }
  }
  if (threadIdx.x == 0) ends[threadIdx.y] = left;
  __syncthreads();
  for (unsigned found = __ballot_sync(0xFFFFFFFFu, ends[threadIdx.x] >= 0); found != 0; found &= found - 1) {
    const int which = __ffs(static_cast<int>(found)) - 1;
    const std::int64_t chunk = first + which;
    float sum = 0;
    if (column < dtable.width) {
      if (threadIdx.y == 0) sum = sums(2 * chunk + 1, column);
      sum += add_up(chunk + 1 + threadIdx.y, ends[which], 32);
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    // Turned over, the 32 sums of a column lie in one warp.
    float whole = parts[threadIdx.x][threadIdx.y];
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) whole += __shfl_xor_sync(0xFFFFFFFFu, whole, lanes);
    const Index place = Index{blockIdx.y} * 32 + threadIdx.y;
    if (threadIdx.x == 0 && place < dtable.width) dtable(token_at(chunk + 1), place) += whole;
    __syncthreads();
  }
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i] = table[tokens[i]]
template <class S>
void embed(Context<Cuda>& context, std::span<const Token> tokens, Rows<const float> table, Rows<S> y) {
  cuda::map_rows(context, cuda::Gather<float, Token>{tokens.data(), table}, Write::overwrite, y, table);
}

/// The rows of a batch in the order of their tokens, which the gradient of an embedding needs: made beside what follows, in
/// memory of the current frame.
class DeviceTokenOrder {
 public:
  DeviceTokenOrder(Context<Cuda>& context, std::span<const Token> tokens, Index vocabulary) : context_(&context) {
    const auto count = static_cast<std::int32_t>(tokens.size());
    const Rows<std::int32_t> numbers = context.make<std::int32_t>(1, count), rows = context.make<std::int32_t>(1, count);
    const Rows<Token> sorted = context.make<Token>(1, count);
    rows_ = {sorted.data, rows.data, count};
    if (count == 0) return;
    const int bits = std::bit_width(static_cast<std::size_t>(vocabulary - 1));
    std::size_t bytes = 0;
    const auto sort = [&](void* scratch) {
      COYOTE_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch, bytes, tokens.data(), sorted.data, numbers.data, rows.data,
                                                        count, 0, bits > 0 ? bits : 1, context.stream()));
    };
    sort(nullptr);
    void* scratch = context.make<unsigned char>(1, static_cast<Index>(bytes)).data;
    is_under_way_ = true;
    context.beside([&] {
      cuda::number_rows_kernel<>
          <<<static_cast<unsigned>(ceil_div(count, cuda::row_threads)), cuda::row_threads, 0, context.stream()>>>(numbers.data,
                                                                                                                  count);
      COYOTE_CUDA_CHECK_LAUNCH("number_rows");
      sort(scratch);
    });
  }
  DeviceTokenOrder(const DeviceTokenOrder&) = delete;
  DeviceTokenOrder& operator=(const DeviceTokenOrder&) = delete;
  ~DeviceTokenOrder() {
    if (is_under_way_) context_->meet();  // before its memory goes to others
  }

  /// Work given from now on finds it done.
  const cuda::SortedRows& wait() {
    if (is_under_way_) context_->meet();
    is_under_way_ = false;
    return rows_;
  }

 private:
  Context<Cuda>* context_;
  cuda::SortedRows rows_{};
  bool is_under_way_ = false;
};

inline DeviceTokenOrder token_order(Context<Cuda>& context, std::span<const Token> tokens, Index vocabulary) {
  return {context, tokens, vocabulary};
}

/// Gradients of embed_batch, in the order of rows; the order is token_order's of the same tokens. dy is changed where dropout
/// is active. Floor: dy once, and the table's touched rows twice; dropout and positions add a pass, the same for both (within
/// the table's sums, whose threads have many rows each, the draws took twice the time of a pass of their own).
template <class S>
void embed_batch_backward(Context<Cuda>& context, DeviceTokenOrder& tokens_in_order, const Batch& batch, const DropoutRule& rule,
                          Rows<S> dy, Rows<float> dtable, Rows<float> dpositions) {
  if (rule.active() && !dpositions.empty()) {
    cuda::sum_positions<S>(context, batch, cuda::DroppedInPlace<S>{cuda::draws_of(context, rule), dy}, dpositions, dy);
  } else {
    if (rule.active()) drop<S>(context, rule, dy, dy, Write::overwrite);
    cuda::sum_positions<S>(context, batch, cuda::SameRow<S>{dy}, dpositions, dy);
  }
  const cuda::SortedRows order = tokens_in_order.wait();
  if (dy.empty() || dtable.empty()) return;
  const auto frame = context.frame();
  const Index chunks = ceil_div(order.count, cuda::run_chunk);
  const Rows<float> sums = context.make<float>(2 * chunks, dy.width);
  cuda::with_packs<S>(
      dy.width,
      [&](auto n) {
        const Index packs = dy.width / n();
        // It comes after two streams meet, so it does not start early.
        cuda::sum_runs_kernel<n(), S>
            <<<cuda::row_grid(chunks, packs), cuda::row_block(packs), 0, context.stream()>>>(order, dy, dtable, sums);
        COYOTE_CUDA_CHECK_LAUNCH("sum_runs");
      },
      dy, dtable);
  const dim3 grid(static_cast<unsigned>(ceil_div(chunks, 32)), static_cast<unsigned>(ceil_div(dy.width, 32)));
  cuda::launch_following(context, &cuda::join_runs_kernel<>, "launch of join_runs", grid, dim3(32, 32), 0, order, sums, dtable);
}

/// y[i] = (table[tokens[i]] + positions[position of row i]) * what dropout's rule makes of it, in one pass; positions may be
/// absent.
template <class S>
void embed_batch(Context<Cuda>& context, const Batch& batch, Rows<const float> table, Rows<const float> positions,
                 const DropoutRule& rule, Rows<S> y) {
  const cuda::EmbeddedRow row{batch.resident_tokens().data(), table,        positions, cuda::sequences_of(batch),
                              cuda::draws_of(context, rule),  rule.active()};
  cuda::map_rows(context, row, Write::overwrite, y, table, positions);
}

/// y[n] = x[rows[n]]
template <class S>
void gather(Context<Cuda>& context, std::span<const Index> rows, Rows<const S> x, Rows<S> y) {
  cuda::map_rows(context, cuda::Gather<S, Index>{rows.data(), x}, Write::overwrite, y, x);
}

/// y[rows[n]] = x[n], and 0 elsewhere; `rows` ascends.
template <class S>
void scatter(Context<Cuda>& context, std::span<const Index> rows, Rows<const S> x, Rows<S> y) {
  if (y.empty()) return;
  cuda::with_packs<S>(
      y.width,
      [&](auto n) {
        const Index packs = y.width / n();
        const dim3 block = cuda::row_block(packs);
        const dim3 grid(static_cast<unsigned>(ceil_div(y.rows, Index{cuda::scattered_rows})),
                        static_cast<unsigned>(ceil_div(packs, block.x)));
        cuda::launch_following(context, &cuda::scatter_kernel<n(), S>, "launch of scatter", grid, block, 0, rows.data(), x, y);
      },
      x, y);
}

}  // namespace coyote::inline v0

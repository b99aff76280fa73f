// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_index.cuh"
#include "coyote/operations/input_conv.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

// ---- lags from repeats of tokens ------------------------------------------------------------------------------------------
//
// Rows of equal tokens are linked first (attention_index.cuh). What is left is a list of the newest distinct lags, row after row.
// Lists compose, so that a thread makes the list of a run of rows, a block scans its threads' lists, and sequences of several
// blocks are gone through twice: once for the list of each block's rows, once from the composed lists of the blocks before.
// O(count) a row, where a walk by the definition has L rows one after another, and a search backwards from every row takes L^2
// steps when few lags are distinct. Floor: the links, and the lags written.

/// A list of a linked source: in a thread's registers if it is short.
template <LinkedLags L>
struct LagList {
  static constexpr int unrolled = L::count <= 8 ? static_cast<int>(L::count) : 1;
  std::int32_t lags[L::count];

  __device__ void clear() {
#pragma unroll unrolled
    for (int n = 0; n < L::count; ++n) lags[n] = -1;
  }
  __device__ void enter(std::int32_t lag) { L::enter(Entries<std::int32_t>(lags, L::count), lag); }
  /// The list of the rows after: its lags come to the front.
  __device__ void enter(const LagList& after) {
#pragma unroll unrolled
    for (int n = L::count - 1; n >= 0; --n) {
      if (after.lags[n] >= 0) enter(after.lags[n]);
    }
  }
  __device__ LagList from_lane_before(int reach) const {
    LagList other;
#pragma unroll unrolled
    for (int n = 0; n < L::count; ++n) other.lags[n] = __shfl_up_sync(0xFFFFFFFFu, lags[n], reach);
    return other;
  }
};

/// How many rows a thread has.
inline constexpr int lag_run = 8;

/// blockIdx.y is a run of Threads * lag_run rows of sequence blockIdx.x. `totals` [sequences * blocks, count] holds each block's
/// list: Writes makes the lags of rows from it, otherwise it is made.
template <LinkedLags L, int Threads, bool Writes>
__global__ void __launch_bounds__(Threads)
    list_lags(Sequences sequences, const std::int32_t* previous, Rows<std::int32_t> totals, Rows<std::int32_t> lags) {
  constexpr int warps = Threads / 32, unrolled = LagList<L>::unrolled;
  __shared__ LagList<L> of_warp[warps];
  const std::int64_t begin = sequences.begin(blockIdx.x);
  const std::int32_t size = sequences.size(blockIdx.x), block_first = blockIdx.y * Threads * lag_run;
  if (block_first >= size) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const std::int32_t first = block_first + static_cast<std::int32_t>(threadIdx.x) * lag_run;
  std::int32_t before[lag_run];
#pragma unroll
  for (int r = 0; r < lag_run; ++r) before[r] = first + r < size ? previous[begin + first + r] : -1;
  const auto enter_row = [&](LagList<L>& list, int r) {
    if (before[r] >= 0) list.enter(L::lag_of(first + r, before[r]));
  };
  LagList<L> list;
  list.clear();
#pragma unroll
  for (int r = 0; r < lag_run; ++r) enter_row(list, r);
  for (int reach = 1; reach < 32; reach *= 2) {
    LagList<L> together = list.from_lane_before(reach);
    if (lane < reach) continue;
    together.enter(list);
    list = together;
  }
  if (lane == 31) of_warp[warp] = list;
  const LagList<L> own_warp = list.from_lane_before(1);
  __syncthreads();
  list.clear();
  const Index own = static_cast<Index>(blockIdx.x) * gridDim.y + blockIdx.y;
  if constexpr (Writes) {
    for (Index block = own - blockIdx.y; block < own; ++block) {
      LagList<L> rows_before;
      for (int n = 0; n < L::count; ++n) rows_before.lags[n] = totals(block, n);
      list.enter(rows_before);
    }
    for (int w = 0; w < warp; ++w) list.enter(of_warp[w]);
    if (lane > 0) list.enter(own_warp);
#pragma unroll
    for (int r = 0; r < lag_run; ++r) {
      if (first + r >= size) break;
      enter_row(list, r);
#pragma unroll unrolled
      for (int n = 0; n < L::count; ++n) lags(begin + first + r, n) = list.lags[n];
    }
  } else if (threadIdx.x == 0) {
    for (int w = 0; w < warps; ++w) list.enter(of_warp[w]);
    for (int n = 0; n < L::count; ++n) totals(own, n) = list.lags[n];
  }
}

/// Any other causal source, by the definition: a thread per sequence appends its rows.
template <class L, int Threads>
__global__ void __launch_bounds__(Threads)
    append_lags(Sequences sequences, const Token* tokens, Rows<std::int32_t> indices, Rows<std::int32_t> lags) {
  const std::int32_t s = blockIdx.x * Threads + threadIdx.x;
  if (s >= sequences.sequences) return;
  const std::int64_t begin = sequences.begin(s);
  const std::int32_t size = sequences.size(s);
  const Entries<std::int32_t> index(indices.row(s), L::index_size(size));
  for (Index n = 0; n < index.size(); ++n) index[n] = -1;
  for (std::int32_t i = 0; i < size; ++i) {
    L::append(index, tokens == nullptr ? Entries<const Token>() : Entries<const Token>(tokens + begin, size), i,
              Entries<std::int32_t>(lags.row(begin + i), L::count));
  }
}

// ---- lags from autocorrelation --------------------------------------------------------------------------------------------
//
// R[t] sums a diagonal of queries times keys: width * L^2 / 2 multiply-adds a sequence. A block has 64 lags, a warp eight of
// them, a lane four rows of 128; of the channels in shared memory it reads four queries and twelve keys for 32 multiply-adds, so
// that shared memory gives the floor, at half the rate of the float units. Sums have a fixed order.

inline constexpr int correlation_lags = 64, correlation_rows = 128, correlation_channels = 16;

template <class S>
__global__ void __launch_bounds__(256) correlate(Sequences sequences, Rows<const S> q, Rows<const S> k, float* correlations) {
  constexpr int keys = correlation_rows + correlation_lags, pad = 4;
  __shared__ float queries_of[correlation_channels][correlation_rows + pad];
  __shared__ float keys_of[correlation_channels][keys + pad];
  const std::int64_t begin = sequences.begin(blockIdx.x);
  const std::int32_t size = sequences.size(blockIdx.x), first_lag = blockIdx.y * correlation_lags;
  if (first_lag >= size) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, width = static_cast<int>(q.width);
  const auto fill = [&](auto& to, Rows<const S> from, std::int32_t first_row, int rows, int first_channel) {
    for (int e = threadIdx.x; e < rows * correlation_channels; e += 256) {
      const std::int32_t row = first_row + e / correlation_channels, c = first_channel + e % correlation_channels;
      const bool inside = row >= 0 && row < size && c < width;
      to[e % correlation_channels][e / correlation_channels] = inside ? to_float(from(begin + row, c)) : 0.0f;
    }
  };
  float sums[8] = {};
  for (std::int32_t row = first_lag / correlation_rows * correlation_rows; row < size; row += correlation_rows) {
    for (int channel = 0; channel < width; channel += correlation_channels) {
      __syncthreads();
      fill(queries_of, q, row, correlation_rows, channel);
      fill(keys_of, k, row - first_lag - correlation_lags, keys, channel);
      __syncthreads();
#pragma unroll 4
      for (int c = 0; c < correlation_channels; ++c) {
        float query[4], key[12];
        *reinterpret_cast<float4*>(query) = *reinterpret_cast<const float4*>(&queries_of[c][4 * lane]);
        const float* from = &keys_of[c][4 * lane + correlation_lags - 8 * warp - 8];
#pragma unroll
        for (int n = 0; n < 12; n += 4) *reinterpret_cast<float4*>(key + n) = *reinterpret_cast<const float4*>(from + n);
#pragma unroll
        for (int t = 0; t < 8; ++t) {
#pragma unroll
          for (int r = 0; r < 4; ++r) sums[t] += query[r] * key[8 + r - t];
        }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < 8; ++t) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) sums[t] += __shfl_xor_sync(0xFFFFFFFFu, sums[t], lanes);
    const std::int32_t lag = first_lag + 8 * warp + t;
    if (lane == t && lag < size) correlations[begin + lag] = sums[t];
  }
}

/// A number that orders lags: the larger correlation first, of equal ones the smaller lag; NaN before all, so that it shows.
__device__ inline std::uint64_t rank_of_lag(float correlation, std::int32_t lag) {
  const std::uint32_t bits = __float_as_uint(correlation == correlation ? correlation + 0.0f : NAN);
  const std::uint32_t ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<std::uint64_t>(ordered) << 32 | ~static_cast<std::uint32_t>(lag);
}

/// The lags of the Count highest ranks, found one after another by a block per sequence, for all its rows.
template <int Count, int Threads>
__global__ void __launch_bounds__(Threads) choose_lags(Sequences sequences, const float* correlations, Rows<std::int32_t> lags) {
  __shared__ std::uint64_t of_warp[Threads / 32];
  __shared__ std::int32_t chosen[(Count + 3) / 4 * 4];  // the compiler reads four at a time
  const std::int64_t begin = sequences.begin(blockIdx.x);
  const std::int32_t size = sequences.size(blockIdx.x);
  std::uint64_t latest = ~std::uint64_t{0};
  int found = 0;
  for (; found < Count; ++found) {
    std::uint64_t best = 0;
    for (std::int32_t lag = 1 + static_cast<std::int32_t>(threadIdx.x); lag < size; lag += Threads) {
      const std::uint64_t rank = rank_of_lag(correlations[begin + lag], lag);
      if (rank < latest && rank > best) best = rank;
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const std::uint64_t other = __shfl_xor_sync(0xFFFFFFFFu, best, lanes);
      best = other > best ? other : best;
    }
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
    __syncthreads();
    for (const std::uint64_t other : of_warp) best = other > best ? other : best;
    if (best == 0) break;
    latest = best;
    if (threadIdx.x == 0) chosen[found] = static_cast<std::int32_t>(~static_cast<std::uint32_t>(best));
    __syncthreads();
  }
  for (std::int32_t i = threadIdx.x; i < size; i += Threads) {
    int present = 0;
    for (int n = 0; n < found; ++n) {
      if (chosen[n] <= i) lags(begin + i, present++) = chosen[n];
    }
    while (present < Count) lags(begin + i, present++) = -1;
  }
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// The lags of every row of a batch, [rows, L::count], -1 behind the last of a row, found without waiting for the host.
/// Linked sources: links and a scan, O(count) a row. Autocorrelation: width * L^2 / 2 multiply-adds a sequence. Any other causal
/// source: a thread per sequence, one row after another.
template <class S, LagSource L>
void find_all_lags(Context<Cuda>& context, const Batch& batch, Rows<const S> q, Rows<const S> k, Rows<std::int32_t> lags) {
  static_assert(L::is_causal || AutocorrelationLags<L>,
                "coyote: on Cuda lags come from a causal source or from Autocorrelation (operations/input_conv.hpp)");
  constexpr int threads = 256;
  const auto frame = context.frame();
  const cuda::Sequences sequences = cuda::sequences_of(batch);
  const Token* tokens = batch.resident_tokens().data();
  const auto blocks = static_cast<unsigned>(sequences.sequences);
  if constexpr (LinkedLags<L>) {
    // Long lists leave registers: fewer threads, and less to compose.
    constexpr int listing = L::count > 64 ? 32 : threads;
    const cuda::DeviceIndex links = cuda::link_rows<>(context, sequences, tokens);
    const dim3 grid(blocks, static_cast<unsigned>(ceil_div(batch.length, listing * cuda::lag_run)));
    const Rows<std::int32_t> totals = context.make<std::int32_t>(grid.y > 1 ? static_cast<Index>(grid.x) * grid.y : 0, L::count);
    if (grid.y > 1) {
      cuda::list_lags<L, listing, false><<<grid, listing, 0, context.stream()>>>(sequences, links.previous, totals, lags);
      COYOTE_CUDA_CHECK_LAUNCH("list_lags");
    }
    cuda::list_lags<L, listing, true><<<grid, listing, 0, context.stream()>>>(sequences, links.previous, totals, lags);
    COYOTE_CUDA_CHECK_LAUNCH("list_lags");
  } else if constexpr (AutocorrelationLags<L>) {
    const Rows<float> correlations = context.make<float>(1, sequences.rows);
    const dim3 grid(blocks, static_cast<unsigned>(ceil_div(batch.length, cuda::correlation_lags)));
    cuda::correlate<S><<<grid, 256, 0, context.stream()>>>(sequences, q, k, correlations.data);
    COYOTE_CUDA_CHECK_LAUNCH("correlate");
    cuda::choose_lags<static_cast<int>(L::count), threads>
        <<<blocks, threads, 0, context.stream()>>>(sequences, correlations.data, lags);
    COYOTE_CUDA_CHECK_LAUNCH("choose_lags");
  } else {
    const Rows<std::int32_t> indices = context.make<std::int32_t>(batch.sequences, L::index_size(batch.length));
    cuda::append_lags<L, threads><<<static_cast<unsigned>(ceil_div(batch.sequences, threads)), threads, 0, context.stream()>>>(
        sequences, tokens, indices, lags);
    COYOTE_CUDA_CHECK_LAUNCH("append_lags");
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cub/device/device_radix_sort.cuh>

#include "coyote/core/cuda/context.cuh"
#include "coyote/operations/pattern.hpp"

namespace coyote::inline v0 {
namespace cuda {

/// What kernels know of a pattern in a batch: a view of the context's memory. Which parts are there depends on the pattern.
/// Numbers are positions inside the row's sequence, -1 for none.
struct DeviceIndex {
  const std::int32_t* previous = nullptr;  ///< [rows] the latest earlier row with the same token (linked patterns)
  const std::int32_t* next = nullptr;      ///< [rows] the first later one
  const std::int32_t* order = nullptr;     ///< [rows] rows of the batch by sequence, token, position (long linked sequences)
  const std::int32_t* first = nullptr;     ///< [rows] the first key of each row; above its position: none (intervals)
  const std::int32_t* built = nullptr;     ///< other patterns: the index that `append` makes, `stride` integers a sequence
  Index stride = 0;
};

/// The sequence that holds a row.
__device__ inline std::int32_t sequence_of(const Sequences& sequences, std::int64_t row) {
  if (sequences.offsets == nullptr) return static_cast<std::int32_t>(row / sequences.length);
  std::int32_t low = 0, high = sequences.sequences;
  while (high - low > 1) {
    const std::int32_t middle = (low + high) / 2;
    (sequences.offsets[middle] <= row ? low : high) = middle;
  }
  return low;
}

/// Patterns whose index is one link per row, which a sort finds.
template <class P>
concept PreviousPattern = requires {
  requires P::is_linked;
};

inline namespace COYOTE_CUDA_ARCHITECTURES {

/// The index through which a pattern's functions look, for the sequence that begins at row `begin`.
template <class Pattern>
__device__ Entries<const std::int32_t> index_of(const DeviceIndex& index, const Sequences& sequences, std::int64_t begin,
                                                std::int32_t size) {
  if constexpr (PreviousPattern<Pattern>) {
    return {index.previous + begin, size};
  } else {
    if (index.stride == 0) return {};
    return {index.built + sequence_of(sequences, begin) * index.stride, Pattern::index_size(size)};
  }
}

/// Sequences up to this length look back row by row, longer ones are sorted.
inline constexpr std::int32_t longest_scan = 1024;

/// Every row looks back through its sequence, in shared memory. previous and next are -1 before.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    link_by_scan(Sequences sequences, const Token* tokens, std::int32_t* previous, std::int32_t* next) {
  __shared__ Token seen[longest_scan];
  const std::int32_t s = blockIdx.x, first = blockIdx.y * Threads, size = sequences.size(s);
  if (first >= size) return;
  const std::int64_t begin = sequences.begin(s);
  const std::int32_t last = min(size, first + Threads);
  for (std::int32_t i = threadIdx.x; i < last; i += Threads) seen[i] = tokens[begin + i];
  __syncthreads();
  const std::int32_t i = first + threadIdx.x;
  if (i >= last) return;
  std::int32_t j = i - 1;
  const Token token = seen[i];
  while (j >= 0 && seen[j] != token) --j;
  if (j < 0) return;
  previous[begin + i] = j;
  next[begin + j] = i;  // the only row that looks back to j
}

/// (sequence, token) of every row, for a stable sort, and the rows' numbers.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    sort_keys(Sequences sequences, const Token* tokens, std::uint64_t* keys, std::int32_t* rows) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * Threads + threadIdx.x;
  if (row >= sequences.rows) return;
  keys[row] = static_cast<std::uint64_t>(sequence_of(sequences, row)) << 32 | static_cast<std::uint32_t>(tokens[row]);
  rows[row] = static_cast<std::int32_t>(row);
}
/// Neighbours in that order with equal keys are linked.
template <int Threads>
__global__ void __launch_bounds__(Threads) link_sorted(Sequences sequences, const std::uint64_t* keys, const std::int32_t* order,
                                                       std::int32_t* previous, std::int32_t* next) {
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * Threads + threadIdx.x;
  if (n >= sequences.rows) return;
  const std::int32_t row = order[n];
  const std::int32_t begin = row - sequences.position(row);
  previous[row] = n > 0 && keys[n - 1] == keys[n] ? order[n - 1] - begin : -1;
  next[row] = n + 1 < sequences.rows && keys[n + 1] == keys[n] ? order[n + 1] - begin : -1;
}

/// Links rows of equal tokens. Work O(rows * length) for short sequences, otherwise that of a radix sort.
template <int Threads = 256>
DeviceIndex link_rows(Context<Cuda>& context, const Sequences& sequences, const Token* tokens) {
  const std::int64_t rows = sequences.rows;
  const auto links = context.make<std::int32_t>(2, rows);
  DeviceIndex index{.previous = links.row(0), .next = links.row(1)};
  if (sequences.length <= longest_scan) {
    COYOTE_CUDA_CHECK(
        cudaMemsetAsync(links.data, 0xFF, static_cast<std::size_t>(2 * rows) * sizeof(std::int32_t), context.stream()));
    const dim3 blocks(static_cast<unsigned>(sequences.sequences), static_cast<unsigned>(ceil_div(sequences.length, Threads)));
    link_by_scan<Threads><<<blocks, Threads, 0, context.stream()>>>(sequences, tokens, links.row(0), links.row(1));
    COYOTE_CUDA_CHECK_LAUNCH("link_by_scan");
    return index;
  }
  const auto order = context.make<std::int32_t>(1, rows);
  const auto frame = context.frame();
  const auto keys = context.make<std::uint64_t>(2, rows);
  const auto numbers = context.make<std::int32_t>(1, rows);
  const unsigned blocks = static_cast<unsigned>(ceil_div(rows, Threads));
  sort_keys<Threads><<<blocks, Threads, 0, context.stream()>>>(sequences, tokens, keys.row(0), numbers.data);
  COYOTE_CUDA_CHECK_LAUNCH("sort_keys");
  int bits = 32;
  while (bits < 63 && (std::int64_t{1} << (bits - 32)) < sequences.sequences) ++bits;
  const auto sort = [&](void* scratch, std::size_t& bytes) {
    COYOTE_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch, bytes, keys.row(0), keys.row(1), numbers.data, order.data,
                                                      static_cast<int>(rows), 0, bits, context.stream()));
  };
  std::size_t bytes = 0;
  sort(nullptr, bytes);
  sort(context.make<std::byte>(1, static_cast<Index>(bytes)).data, bytes);
  link_sorted<Threads><<<blocks, Threads, 0, context.stream()>>>(sequences, keys.row(1), order.data, links.row(0), links.row(1));
  COYOTE_CUDA_CHECK_LAUNCH("link_sorted");
  index.order = order.data;
  return index;
}

/// A user's index, by the definition: one thread per sequence appends its rows.
template <class Pattern, int Threads>
__global__ void __launch_bounds__(Threads)
    append_rows(Sequences sequences, const Token* tokens, std::int32_t* built, Index stride) {
  const std::int32_t s = blockIdx.x * Threads + threadIdx.x;
  if (s >= sequences.sequences) return;
  const std::int32_t size = sequences.size(s);
  fill_index<Pattern>(Entries<std::int32_t>(built + s * stride, Pattern::index_size(size)),
                      tokens == nullptr ? Entries<const Token>() : Entries<const Token>(tokens + sequences.begin(s), size), size);
}

/// The first key of every row of an interval pattern.
template <class Pattern, int Threads>
__global__ void __launch_bounds__(Threads) find_first_keys(Sequences sequences, DeviceIndex index, std::int32_t* first) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * Threads + threadIdx.x;
  if (row >= sequences.rows) return;
  const std::int32_t position = sequences.position(row);
  const std::int64_t begin = row - position;
  const std::int32_t size = sequences.size(sequence_of(sequences, row));
  const Index key = Pattern::first_key(index_of<Pattern>(index, sequences, begin, size), size, position);
  first[row] = static_cast<std::int32_t>(key < 0 ? 0 : key > position ? position + 1 : key);
}

}  // namespace COYOTE_CUDA_ARCHITECTURES
}  // namespace cuda

/// An interval pattern that says `uses_every_key = true` has first_key 0 everywhere.
template <class P>
inline constexpr bool uses_every_key = false;
template <class P>
requires(P::uses_every_key) inline constexpr bool uses_every_key<P> = true;

/// What attention asks of a pattern on the device, made there without waiting for the host; it lives in the context's
/// current frame. Repeats of tokens are found by a look back through short sequences and by a stable radix sort of long
/// ones. Throws when the pattern uses tokens and the batch has none on the device.
template <AttentionPattern Pattern>
cuda::DeviceIndex build_index(Context<Cuda>& context, const Batch& batch) {
  constexpr int threads = 256;
  const cuda::Sequences sequences = cuda::sequences_of(batch);
  const Token* tokens = batch.device == nullptr ? nullptr : batch.device->tokens;
  if (Pattern::uses_tokens && tokens == nullptr) {
    throw Error("attention", "a batch with one token per row on the device, because its pattern looks at tokens", "none");
  }
  cuda::DeviceIndex index;
  if constexpr (cuda::PreviousPattern<Pattern>) {
    index = cuda::link_rows<>(context, sequences, tokens);
  } else if (const Index stride = Pattern::index_size(batch.length); stride > 0) {
    const auto built = context.template make<std::int32_t>(sequences.sequences, stride);
    const auto blocks = static_cast<unsigned>(ceil_div(sequences.sequences, threads));
    cuda::append_rows<Pattern, threads><<<blocks, threads, 0, context.stream()>>>(sequences, tokens, built.data, stride);
    COYOTE_CUDA_CHECK_LAUNCH("append_rows");
    index.built = built.data;
    index.stride = stride;
  }
  if constexpr (IntervalPattern<Pattern> && !uses_every_key<Pattern>) {
    const auto first = context.template make<std::int32_t>(1, sequences.rows);
    const auto blocks = static_cast<unsigned>(ceil_div(sequences.rows, threads));
    cuda::find_first_keys<Pattern, threads><<<blocks, threads, 0, context.stream()>>>(sequences, index, first.data);
    COYOTE_CUDA_CHECK_LAUNCH("find_first_keys");
    index.first = first.data;
  }
  return index;
}

}  // namespace coyote::inline v0

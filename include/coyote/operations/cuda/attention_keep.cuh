// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_problem.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Which probabilities of a fragment dropout keeps, as bits, from one draw per four keys: a draw costs about 50 instructions,
// an exponential four. The lanes of a warp share the draws of a tile. Keys are numbered over the batch; a sequence may begin
// inside a draw's four.

/// Bits 0 to 3: which of the keys of `key`'s draw are kept.
__device__ inline std::uint32_t four_keeps(const DeviceDropout& dropout, std::uint64_t step, std::uint64_t rule_row,
                                           std::uint64_t key) {
  const RandomWords words = dropout.words(step, rule_row, key);
  return (words.x >= dropout.threshold ? 1u : 0u) | (words.y >= dropout.threshold ? 2u : 0u) |
         (words.z >= dropout.threshold ? 4u : 0u) | (words.w >= dropout.threshold ? 8u : 0u);
}

/// Bit n: whether key first + n < first + Count is kept. The four lanes that hold a row of an accumulator share its draws.
template <int Count>
__device__ std::uint64_t row_keeps(const DeviceDropout& dropout, std::uint64_t step, std::uint64_t rule_row,
                                   std::uint64_t first) {
  static_assert(Count % 16 == 0 && Count <= 64);
  const unsigned lane = threadIdx.x % 4, place = first % 4;
  std::uint64_t bits = 0;
#pragma unroll
  for (unsigned turn = 0; turn < Count / 16; ++turn) {
    const unsigned n = 4 * turn + lane;
    bits |= static_cast<std::uint64_t>(four_keeps(dropout, step, rule_row, first + 4 * n)) << 4 * n;
  }
  bits |= __shfl_xor_sync(0xffffffffu, bits, 1);
  bits |= __shfl_xor_sync(0xffffffffu, bits, 2);
  if (place == 0) return bits;
  return bits >> place | static_cast<std::uint64_t>(four_keeps(dropout, step, rule_row, first + Count)) << (Count - place);
}

/// Bit n: whether key first + n < first + 16 is kept, for row lane % Rows of `Rows` rows, whose number is given. The lanes that
/// have the same row share its draws.
template <int Rows>
__device__ std::uint32_t sixteen_keeps(const DeviceDropout& dropout, std::uint64_t step, std::uint64_t rule_row,
                                       std::uint64_t first) {
  static_assert(Rows == 8 || Rows == 16 || Rows == 32);
  constexpr unsigned draws = Rows / 8;
  const unsigned place = first % 4, begin = threadIdx.x % 32 / Rows * draws;
  std::uint32_t bits = 0;
#pragma unroll
  for (unsigned n = 0; n < draws; ++n) bits |= four_keeps(dropout, step, rule_row, first + 4 * (begin + n)) << 4 * (begin + n);
#pragma unroll
  for (int other = Rows; other < 32; other *= 2) bits |= __shfl_xor_sync(0xffffffffu, bits, other);
  if (place != 0) bits |= four_keeps(dropout, step, rule_row, first + 16) << 16;
  return bits >> place & 0xffffu;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

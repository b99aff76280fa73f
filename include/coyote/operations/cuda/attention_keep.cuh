// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_problem.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Which probabilities of a fragment dropout keeps, as bits, from one draw per eight keys: a draw costs about 60 instructions,
// an exponential four. The lanes of a warp share the draws of a tile. Keys are numbered over the batch; a sequence may begin
// inside a draw's eight.

/// Bits 0 to 7: which of the keys of `key`'s draw are kept.
__device__ inline std::uint32_t eight_keeps(const DeviceDropout& dropout, std::uint64_t step, std::uint64_t rule_row,
                                            std::uint64_t key) {
  const RandomWords words = dropout.words(step, rule_row, key);
  std::uint32_t bits = 0;
#pragma unroll
  for (std::uint32_t n = 0; n < 4; ++n) {
    bits |= words[n] << 16 >= dropout.threshold ? 1u << 2 * n : 0u;
    bits |= words[n] >= dropout.threshold ? 2u << 2 * n : 0u;
  }
  return bits;
}

/// Bit n: whether key first + n < first + Count is kept. The four lanes that hold a row of an accumulator share its draws.
template <int Count>
__device__ std::uint64_t row_keeps(const DeviceDropout& dropout, std::uint64_t step, std::uint64_t rule_row,
                                   std::uint64_t first) {
  static_assert(Count % 16 == 0 && Count <= 64);
  constexpr unsigned draws = Count / 8, lanes = draws < 4 ? draws : 4;
  const unsigned lane = threadIdx.x % lanes, place = first % 8;
  std::uint64_t bits = 0;
#pragma unroll
  for (unsigned turn = 0; turn < draws / lanes; ++turn) {
    const unsigned n = lanes * turn + lane;
    bits |= static_cast<std::uint64_t>(eight_keeps(dropout, step, rule_row, first + 8 * n)) << 8 * n;
  }
#pragma unroll
  for (unsigned other = 1; other < lanes; other *= 2) bits |= __shfl_xor_sync(0xffffffffu, bits, other);
  if (place == 0) return bits;
  return bits >> place | static_cast<std::uint64_t>(eight_keeps(dropout, step, rule_row, first + Count)) << (Count - place);
}

/// The same for the lane's row of accumulators: of columns 8 m + 2 (lane % 4) + i of those that follow the first `skip` ones.
template <int Count>
struct RowKeeps {
  static constexpr int at_once = Count < 64 ? Count : 64;
  std::uint64_t bits[Count / at_once];

  __device__ void draw(const DeviceDropout& dropout, std::uint64_t step, std::uint64_t rule_row, std::uint64_t first,
                       int skip = 0) {
#pragma unroll
    for (int n = 0; n < Count / at_once; ++n) {
      bits[n] = row_keeps<at_once>(dropout, step, rule_row, first + static_cast<std::uint64_t>(at_once * n)) >>
                (skip + 2 * (threadIdx.x % 4));
    }
  }
  __device__ bool has(int m, int i) const { return bits[8 * m / at_once] >> (8 * m % at_once + i) & 1; }
};

/// Bit n: whether key first + n < first + 16 is kept, for row lane % Rows of `Rows` rows, whose number is given. The lanes that
/// have the same row share its two draws.
template <int Rows>
__device__ std::uint32_t sixteen_keeps(const DeviceDropout& dropout, std::uint64_t step, std::uint64_t rule_row,
                                       std::uint64_t first) {
  static_assert(Rows == 8 || Rows == 16 || Rows == 32);
  constexpr unsigned draws = Rows == 32 ? 2 : 1;
  const unsigned place = first % 8, begin = threadIdx.x % 32 / Rows % 2;
  std::uint32_t bits = 0;
#pragma unroll
  for (unsigned n = 0; n < draws; ++n) bits |= eight_keeps(dropout, step, rule_row, first + 8 * (begin + n)) << 8 * (begin + n);
  if (draws == 1) bits |= __shfl_xor_sync(0xffffffffu, bits, Rows);
  if (place != 0) bits |= eight_keeps(dropout, step, rule_row, first + 16) << 16;
  return bits >> place & 0xffffu;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_tiles.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// What the `Split` warps that share 16 rows of a tile of scores, `Blocks` accumulators of 16 x 8, tell each other in shared
/// memory: first the sums over their parts of the head's columns, then the left operands that each makes of the blocks it
/// owns. One warp alone tells nothing: everything stays in its registers.
template <int Split, int Blocks>
struct SharedScores {
  static constexpr int owned = Blocks / Split, bytes = Split > 1 ? 512 * Split *Blocks : 0;
  std::uint32_t address;  // of these 16 rows
  int part, barrier;

  __device__ int first_block() const { return part * owned; }
  __device__ void meet() const {
    if constexpr (Split > 1) asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(32 * Split) : "memory");
  }
  /// Multiplies this warp's part of rows row .. row + 15 of `a` times the transpose of `b`, for the others to add up.
  template <int Width>
  __device__ void give_sums(Tile<Width> a, int row, Tile<Width> b) const {
    float sum[Blocks][4];
    clear(sum);
    multiply_transposed<Split>(sum, a, row, b, part);
#pragma unroll
    for (int n = 0; n < Blocks; ++n) {
      asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(place(n, part)), "f"(sum[n][0]), "f"(sum[n][1]), "f"(sum[n][2]),
                   "f"(sum[n][3])
                   : "memory");
    }
  }
  /// Sums of blocks first and on, added in order of the parts.
  template <int N>
  __device__ void take_sums(float (&sum)[N][4], int first) const {
    clear(sum);
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int other = 0; other < Split; ++other) {
        float x[4];
        asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                     : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3])
                     : "r"(place(first + n, other))
                     : "memory");
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[n][i] += x[i];
      }
    }
  }
  /// Gives the owned blocks as operands, where nobody else reads sums.
  __device__ void give_operands(const float (&p)[owned][4]) const {
    __syncwarp();
#pragma unroll
    for (int n = 0; n < owned; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) store_word(word(first_block() + n, half), pack(p[n][2 * half], p[n][2 * half + 1]));
    }
  }
  __device__ void take_operands(std::uint32_t (&left)[Blocks / 2][4]) const {
#pragma unroll
    for (int n = 0; n < Blocks; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(left[n / 2][n % 2 * 2 + half]) : "r"(word(n, half)) : "memory");
      }
    }
  }

 private:
  __device__ std::uint32_t place(int block, int slot) const {
    return address + static_cast<std::uint32_t>(16 * ((block * Split + slot) * 32 + static_cast<int>(threadIdx.x) % 32));
  }
  __device__ std::uint32_t word(int block, int half) const {
    return address + static_cast<std::uint32_t>(512 * Split * block + 128 * half + 4 * (static_cast<int>(threadIdx.x) % 32));
  }
};

/// The scores of 16 rows and the inner products of errors and values, of the blocks that this warp owns.
template <int Split, int Blocks, int Width, int N>
__device__ void two_products(float (&s)[N][4], float (&dp)[N][4], const SharedScores<Split, Blocks>& scores,
                             const SharedScores<Split, Blocks>& slopes, Tile<Width> a, Tile<Width> b, Tile<Width> c,
                             Tile<Width> d, int row) {
  static_assert(N == Blocks / Split);
  if constexpr (Split == 1) {
    clear(s);
    clear(dp);
    multiply_transposed(s, a, row, b);
    multiply_transposed(dp, c, row, d);
  } else {
    scores.give_sums(a, row, b);
    slopes.give_sums(c, row, d);
    scores.meet();
    scores.take_sums(s, scores.first_block());
    slopes.take_sums(dp, slopes.first_block());
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

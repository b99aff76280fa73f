// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coyote/operations/cuda/long_convolution_lines.cuh"

/// bf16 values in words of two and vectors of eight, whatever their place in memory.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// Two numbers as one register, the first in the lower half.
__device__ inline unsigned pack(float low, float high) {
  unsigned result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
__device__ inline float low_half(unsigned word) { return __uint_as_float(word << 16); }
__device__ inline float high_half(unsigned word) { return __uint_as_float(word & 0xFFFF0000u); }

/// Eight numbers in float.
struct Eight {
  float at[8];
};
__device__ inline Eight widen(uint4 words) {
  return {low_half(words.x), high_half(words.x), low_half(words.y), high_half(words.y),
          low_half(words.z), high_half(words.z), low_half(words.w), high_half(words.w)};
}

/// 8 values from `from`, of which the first `valid` exist; the others are 0.
__device__ inline uint4 load_8(const bf16* from, int valid) {
  if (valid >= 8 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0) return *reinterpret_cast<const uint4*>(from);
  unsigned words[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    words[k] = pack(2 * k < valid ? to_float(from[2 * k]) : 0.0f, 2 * k + 1 < valid ? to_float(from[2 * k + 1]) : 0.0f);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}
/// The first `valid` of 8 values to `to`.
__device__ inline void store_8(bf16* to, const unsigned (&words)[4], int valid) {
  if (valid >= 8 && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    return;
  }
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const unsigned short half = static_cast<unsigned short>(k % 2 == 0 ? words[k / 2] & 0xFFFFu : words[k / 2] >> 16);
    if (k < valid) reinterpret_cast<unsigned short*>(to)[k] = half;
  }
}

__device__ inline void store_8(bf16* to, const Eight& values, int valid) {
  const unsigned words[4] = {pack(values.at[0], values.at[1]), pack(values.at[2], values.at[3]), pack(values.at[4], values.at[5]),
                             pack(values.at[6], values.at[7])};
  store_8(to, words, valid);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

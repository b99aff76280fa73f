// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coyote/operations/cuda/long_convolution_lines.cuh"
#include "coyote/operations/cuda/mma_tiles.cuh"

/// bf16 values in words of two and vectors of eight, whatever their place in memory.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

using cuda::pack;

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
__device__ inline Eight operator*(const Eight& a, const Eight& b) {
  Eight product;
#pragma unroll
  for (int k = 0; k < 8; ++k) product.at[k] = a.at[k] * b.at[k];
  return product;
}
__device__ inline Eight operator+(const Eight& a, const Eight& b) {
  Eight sum;
#pragma unroll
  for (int k = 0; k < 8; ++k) sum.at[k] = a.at[k] + b.at[k];
  return sum;
}
__device__ inline uint4 pack(const Eight& values) {
  return {pack(values.at[0], values.at[1]), pack(values.at[2], values.at[3]), pack(values.at[4], values.at[5]),
          pack(values.at[6], values.at[7])};
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
__device__ inline void store_8(bf16* to, const uint4& values, int valid) {
  if (valid >= 8 && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    *reinterpret_cast<uint4*>(to) = values;
    return;
  }
  const unsigned words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const unsigned short half = static_cast<unsigned short>(k % 2 == 0 ? words[k / 2] & 0xFFFFu : words[k / 2] >> 16);
    if (k < valid) reinterpret_cast<unsigned short*>(to)[k] = half;
  }
}
__device__ inline void store_8(bf16* to, const Eight& values, int valid) { store_8(to, pack(values), valid); }

/// 8 channels of two neighbouring rows as a word of both rows per channel.
__device__ inline void words_of_rows(const uint4 (&rows)[2], unsigned (&words)[8]) {
  const unsigned even[4] = {rows[0].x, rows[0].y, rows[0].z, rows[0].w}, odd[4] = {rows[1].x, rows[1].y, rows[1].z, rows[1].w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[2 * i] = __byte_perm(even[i], odd[i], 0x5410);
    words[2 * i + 1] = __byte_perm(even[i], odd[i], 0x7632);
  }
}
/// And back.
__device__ inline void rows_of_words(const unsigned (&words)[8], uint4 (&rows)[2]) {
  unsigned even[4], odd[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    even[i] = __byte_perm(words[2 * i], words[2 * i + 1], 0x5410);
    odd[i] = __byte_perm(words[2 * i], words[2 * i + 1], 0x7632);
  }
  rows[0] = make_uint4(even[0], even[1], even[2], even[3]);
  rows[1] = make_uint4(odd[0], odd[1], odd[2], odd[3]);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

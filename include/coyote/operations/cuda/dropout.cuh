// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/rowwise.cuh"
#include "coyote/operations/dropout.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// coyote::philox on the device.
__device__ inline uint4 philox(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t a = 0xD2511F53u * counter.x, a_high = __umulhi(0xD2511F53u, counter.x);
    const std::uint32_t b = 0xCD9E8D57u * counter.z, b_high = __umulhi(0xCD9E8D57u, counter.z);
    counter = {b_high ^ counter.y ^ key.x, b, a_high ^ counter.w ^ key.y, a};
    key = {key.x + 0x9E3779B9u, key.y + 0xBB67AE85u};
  }
  return counter;
}

/// A DropoutRule for kernels. The step that names the draws comes from the device's memory where `step` points there, so that
/// one captured graph draws anew in every step.
struct DropoutDraws {
  uint2 key;
  std::uint32_t threshold;  // in the upper half
  float scale;
  std::uint64_t host_step;
  const std::uint64_t* step;

  /// Multiplies the N elements of a row from a column on, a multiple of N.
  template <int N>
  __device__ void multiply(std::int32_t row, std::int32_t column, Pack<N>& x) const {
    static_assert(N == 1 || N == 4 || N == 8);
    const std::uint64_t now = step != nullptr ? *step : host_step;
    const uint4 bits = philox({static_cast<std::uint32_t>(column) / 8, static_cast<std::uint32_t>(row),
                               static_cast<std::uint32_t>(now), static_cast<std::uint32_t>(now >> 32)},
                              key);
    const int first = N == 8 ? 0 : column % 8;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int place = first + i, word = place / 2;
      const std::uint32_t pair = word == 0 ? bits.x : word == 1 ? bits.y : word == 2 ? bits.z : bits.w;
      x[i] *= (place % 2 == 0 ? pair << 16 : pair) >= threshold ? scale : 0.0f;
    }
  }
};

/// The draws of `rule` in a context's work.
template <class C>
DropoutDraws draws_of(const C& context, const DropoutRule& rule) {
  const std::uint64_t* step = nullptr;
  if constexpr (requires { context.device_step(); }) step = context.device_step();
  return {{rule.stream().key()[0], rule.stream().key()[1]},
          rule.threshold() << 16,
          static_cast<float>(rule.scale()),
          rule.stream().step(),
          step};
}

/// x times its multipliers.
template <class S>
struct Drop {
  DropoutDraws draws;
  Rows<const S> x;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    Pack<N> result = load<N>(x.row(row) + column);
    draws.multiply(row, column, result);
    return result;
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y (=|+=) x * (kept ? rule.scale() : 0), elementwise: the same elements as on every backend.
template <class S>
void drop(Context<Cuda>& context, const DropoutRule& rule, Rows<const S> x, Rows<S> y, Write write) {
  cuda::map_rows(context, cuda::Drop<S>{cuda::draws_of(context, rule), x}, write, y, x);
}

}  // namespace coyote::inline v0

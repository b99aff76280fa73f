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
  std::uint32_t threshold;
  float scale;
  std::uint64_t host_step;
  const std::uint64_t* step;

  /// What elements (row, 4 * quad) .. (row, 4 * quad + 3) are multiplied by.
  __device__ float4 multipliers(std::uint32_t row, std::uint32_t quad) const {
    const std::uint64_t now = step != nullptr ? *step : host_step;
    const uint4 bits = philox({quad, row, static_cast<std::uint32_t>(now), static_cast<std::uint32_t>(now >> 32)}, key);
    const auto multiplier = [this](std::uint32_t word) { return word >= threshold ? scale : 0.0f; };
    return {multiplier(bits.x), multiplier(bits.y), multiplier(bits.z), multiplier(bits.w)};
  }
  /// Multiplies the N elements of a row from a column on.
  template <int N>
  __device__ void multiply(std::int32_t row, std::int32_t column, Pack<N>& x) const {
#pragma unroll
    for (int q = 0; q < (N + 3) / 4; ++q) {
      const float4 m = multipliers(static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(column / 4 + q));
      if constexpr (N == 1) {
        const int word = column % 4;
        x[0] *= word == 0 ? m.x : word == 1 ? m.y : word == 2 ? m.z : m.w;
      } else {
        x[4 * q] *= m.x;
        x[4 * q + 1] *= m.y;
        x[4 * q + 2] *= m.z;
        x[4 * q + 3] *= m.w;
      }
    }
  }
};

/// The draws of `rule` in a context's work.
template <class C>
DropoutDraws draws_of(const C& context, const DropoutRule& rule) {
  const std::uint64_t* step = nullptr;
  if constexpr (requires { context.device_step(); }) step = context.device_step();
  return {{rule.stream().key()[0], rule.stream().key()[1]},
          rule.threshold(),
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

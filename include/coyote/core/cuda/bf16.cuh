// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>

#include "coyote/core/scalar.hpp"

namespace coyote::inline v0 {

/// 16-bit activations with the exponent range of float: 8 bits of precision. Arithmetic and parameters are float.
using bf16 = __nv_bfloat16;

template <>
inline constexpr bool is_real<bf16> = true;

namespace detail {
template <>
struct ParameterOf<bf16> {
  using type = float;
};
}  // namespace detail

namespace cuda {

/// Reading and writing activations of either type in float.
__host__ __device__ inline float to_float(float x) { return x; }
__host__ __device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
template <class S>
__host__ __device__ inline S from_float(float x) {
  if constexpr (sizeof(S) == sizeof(bf16)) {
    return __float2bfloat16(x);
  } else {
    return x;
  }
}

}  // namespace cuda
}  // namespace coyote::inline v0

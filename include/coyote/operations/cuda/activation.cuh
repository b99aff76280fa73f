// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/activation.hpp"
#include "coyote/operations/cuda/rowwise.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// What pointwise functions are written over on the device; exp and the quotient are the hardware's, good to 2^-21.
struct DeviceMath {
  using Value = float;
  __device__ static float constant(double value) { return static_cast<float>(value); }
  __device__ static float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
};

template <class Function>
struct Value {
  __device__ float operator()(float x) const { return Function::template value<DeviceMath>(x); }
};
template <class Function>
struct ChainRule {
  __device__ float operator()(float x, float dy) const { return dy * Function::template derivative<DeviceMath>(x); }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y = f(x), elementwise
template <class S, class Function>
void activate(Context<Cuda>& context, Rows<const S> x, Rows<S> y) {
  cuda::map_elements(context, cuda::Value<Function>{}, Write::overwrite, y, x);
}

/// dx (=|+=) dy * f'(x)
template <class S, class Function>
void activate_backward(Context<Cuda>& context, Rows<const S> x, Rows<const S> dy, Rows<S> dx, Write write) {
  cuda::map_elements(context, cuda::ChainRule<Function>{}, write, dx, x, dy);
}

}  // namespace coyote::inline v0

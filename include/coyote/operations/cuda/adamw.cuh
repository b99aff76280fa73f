// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/operations/cuda/sums.cuh"
#include "coyote/training/adamw.hpp"

namespace coyote::inline v0 {
namespace cuda {

/// What an update needs beside the arrays, as AdamWOptions and the schedule say.
struct AdamWNumbers {
  double rate, beta1, beta2, epsilon, weight_decay;
  float log_beta1, log_beta2;  // natural logarithms
  std::uint64_t t;
};

/// A sum of squares that is still in parts, and where the sum belongs.
struct SquareParts {
  const double* parts;
  Index count;
  double* sum;
};

inline namespace COYOTE_CUDA_ARCHITECTURES {

/// The array is padded to a multiple of 16.
template <class T>
__global__ void __launch_bounds__(256) square_parts_kernel(const T* x, Index count, double* parts) {
  follow();
  double sum = 0;
#pragma unroll 4
  for (Index i = Index{blockIdx.x} * 256 + threadIdx.x; i < count / 4; i += Index{gridDim.x} * 256) {
    const Pack<4> values = load<4>(x + 4 * i);
#pragma unroll
    for (int n = 0; n < 4; ++n) sum += static_cast<double>(values[n]) * static_cast<double>(values[n]);
  }
  sum = block_sum<256>(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/// Four neighbouring values a thread; the arrays are padded to a multiple of 16. Nothing moves when the loss or the gradient is
/// not finite: the host learns it from the same numbers.
template <class T>
__global__ void __launch_bounds__(256)
    adamw_kernel(AdamWNumbers n, const StepNumbers* device_numbers, double clip, const double* loss, SquareParts squares,
                 bool decays, Index count, const T* gradients, T* values, T* first, T* second) {
  follow();
  __shared__ float shared[5];
  __shared__ bool finite;
  // Every block adds up the parts, in one order: a kernel for that would take longer.
  const double square = sum_of_parts(squares.parts, squares.count);
  if (threadIdx.x == 0) {
    if (blockIdx.x == 0) *squares.sum = square;
    if (device_numbers != nullptr) {
      n.rate = device_numbers->rate;
      n.t = device_numbers->step + 1;
    }
    finite = isfinite(square) && isfinite(*loss);
    shared[0] = clip > 0 && square > clip * clip ? static_cast<float>(clip / sqrt(square)) : 1.0f;
    // 1 / (1 - beta^t): the only thread that is at work here should not wait for a power in double.
    const auto t = static_cast<float>(n.t);
    shared[1] = -1 / expm1f(t * n.log_beta1);
    shared[2] = -1 / expm1f(t * n.log_beta2);
    shared[3] = static_cast<float>(decays ? 1 - n.rate * n.weight_decay : 1.0);
    shared[4] = static_cast<float>(n.rate);
  }
  __syncthreads();
  const Index at = (Index{blockIdx.x} * 256 + threadIdx.x) * 4;
  if (!finite || at >= count) return;
  const float scale = shared[0], correction1 = shared[1], correction2 = shared[2], keep = shared[3], step = shared[4];
  const float b1 = static_cast<float>(n.beta1), b2 = static_cast<float>(n.beta2);
  const float epsilon = static_cast<float>(n.epsilon);
  const auto read = [&](const T* from) { return *reinterpret_cast<const float4*>(from + at); };
  float4 g = read(gradients), w = read(values), m = read(first), v = read(second);
  const auto update = [&](float gradient, float& value, float& moment, float& square) {
    gradient *= scale;
    moment = b1 * moment + (1 - b1) * gradient;
    square = b2 * square + (1 - b2) * gradient * gradient;
    value = keep * value - step * (moment * correction1) / (sqrtf(square * correction2) + epsilon);
  };
  update(g.x, w.x, m.x, v.x);
  update(g.y, w.y, m.y, v.y);
  update(g.z, w.z, m.z, v.z);
  update(g.w, w.w, m.w, v.w);
  *reinterpret_cast<float4*>(values + at) = w;
  *reinterpret_cast<float4*>(first + at) = m;
  *reinterpret_cast<float4*>(second + at) = v;
}

}  // namespace COYOTE_CUDA_ARCHITECTURES
}  // namespace cuda

/// The sum of squares of gradients, in double, in a fixed order: parts in the context's current frame, which `adamw` adds up.
struct DeviceSquares {
  cuda::Result sum;
  cuda::SquareParts parts;
  operator cuda::Result() const { return sum; }
};
inline DeviceSquares sum_of_squares(Context<Cuda>& context, const cuda::DeviceArray<float>& values) {
  const Index blocks = std::clamp<Index>(ceil_div(values.size(), 4096), 1, 1024);
  double* parts = context.make<double>(1, blocks).data;
  cuda::launch_following(context, &cuda::square_parts_kernel<float>, "launch of square_parts", static_cast<unsigned>(blocks), 256,
                         0, values.data(), values.size(), parts);
  const cuda::Result sum = context.value(cuda::Slot::squares);
  return {sum, {parts, blocks, sum.data()}};
}

/// The update of training/adamw.hpp on the device. In a captured step, rate and t are the context's device_numbers().
inline void adamw(Context<Cuda>& context, const AdamWOptions& options, double rate, std::uint64_t t, double clip,
                  cuda::Result loss, const DeviceSquares& squares, ParameterStore<float, Cuda>& store,
                  cuda::DeviceArray<float>& first, cuda::DeviceArray<float>& second) {
  const cuda::AdamWNumbers numbers{.rate = rate,
                                   .beta1 = options.beta1,
                                   .beta2 = options.beta2,
                                   .epsilon = options.epsilon,
                                   .weight_decay = options.weight_decay,
                                   .log_beta1 = static_cast<float>(std::log(options.beta1)),
                                   .log_beta2 = static_cast<float>(std::log(options.beta2)),
                                   .t = t};
  const List<Segment>& segments = store.segments();
  // Neighbours that decay alike go together.
  for (Index s = 0; s < segments.size();) {
    const bool decays = options.decay_everything || segments[s].decays;
    Index next = s + 1;
    while (next < segments.size() && (options.decay_everything || segments[next].decays) == decays) ++next;
    const Index begin = segments[s].begin, end = next < segments.size() ? segments[next].begin : store.values().size();
    if (end > begin) {
      cuda::launch_following(context, &cuda::adamw_kernel<float>, "launch of adamw",
                             static_cast<unsigned>(ceil_div(end - begin, 1024)), 256, 0, numbers, context.device_numbers(), clip,
                             loss.data(), squares.parts, decays, end - begin, store.gradients().data() + begin,
                             store.values().data() + begin, first.data() + begin, second.data() + begin);
    }
    s = next;
  }
}

}  // namespace coyote::inline v0

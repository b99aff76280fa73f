// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/complex_modes.hpp"
#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/modes.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Sums of exponential sequences. A power to begin with comes from squarings, the ones behind it from products.

/// A real number or, with Complex, a complex one: what both kinds of modes compute with.
struct RealMode {
  static constexpr int rows = 1;
  using Value = float;
  __device__ static Value one() { return 1.0f; }
  __device__ static Value zero() { return 0.0f; }
  __device__ static Value at(Rows<const float> rows, Index s, Index c) { return rows(s, c); }
  __device__ static void put(Rows<float> rows, Index s, Index c, Value x) { rows(s, c) = x; }
  __device__ static Value plus(Value x, float more) { return x + more; }
  __device__ static float real(Value x) { return x; }
};
struct ComplexMode {
  static constexpr int rows = 2;
  using Value = coyote::detail::Complex<float>;
  __device__ static Value one() { return {1.0f, 0.0f}; }
  __device__ static Value zero() { return {0.0f, 0.0f}; }
  __device__ static Value at(Rows<const float> rows, Index s, Index c) { return coyote::detail::complex_at(rows, s, c); }
  __device__ static void put(Rows<float> rows, Index s, Index c, Value x) { coyote::detail::put_complex(rows, s, c, x); }
  __device__ static Value plus(Value x, float more) { return {x.real + more, x.imaginary}; }
  __device__ static float real(Value x) { return x.real; }
};

template <class Mode>
__device__ typename Mode::Value power(typename Mode::Value x, Index exponent) {
  typename Mode::Value result = Mode::one();
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 == 1) result = result * x;
    x = x * x;
  }
  return result;
}

/// Taps that a thread makes of a channel: its powers stay in registers while it walks over the modes.
inline constexpr int taps_run = 32;

template <class Mode>
__global__ void __launch_bounds__(128)
    exponential_taps_kernel(Rows<const float> ratio, Rows<const float> weight, Rows<float> taps) {
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x;
  const Index first = (Index{blockIdx.x} * blockDim.y + threadIdx.y) * taps_run;
  if (c >= taps.width || first >= taps.rows) return;
  float sums[taps_run] = {};
  const Index modes = ratio.rows / Mode::rows;
  for (Index s = 0; s < modes; ++s) {
    const auto r = Mode::at(ratio, s, c);
    auto term = Mode::at(weight, s, c) * power<Mode>(r, first);
#pragma unroll
    for (int t = 0; t < taps_run; ++t) {
      sums[t] += Mode::real(term);
      term = term * r;
    }
  }
#pragma unroll
  for (int t = 0; t < taps_run; ++t) {
    if (first + t < taps.rows) taps(first + t, c) = sums[t];
  }
}

/// value = sum_t dtaps[t] r^t and slope = sum_t dtaps[t] t r^(t-1): each of a block's rows of threads takes a part of the taps by
/// Horner's rule, relative to its first one.
template <class Mode>
__global__ void __launch_bounds__(256)
    exponential_taps_backward_kernel(Rows<const float> ratio, Rows<const float> dtaps, Rows<float> value, Rows<float> slope) {
  using Value = typename Mode::Value;
  __shared__ char shared[2][256 * sizeof(Value)];
  auto* values = reinterpret_cast<Value*>(shared[0]);
  auto* slopes = reinterpret_cast<Value*>(shared[1]);
  const Index c = Index{blockIdx.x} * 32 + threadIdx.x, s = blockIdx.y;
  const Index part = ceil_div(dtaps.rows, blockDim.y), first = part * threadIdx.y;
  const Index last = first + part < dtaps.rows ? first + part : dtaps.rows;
  Value f = Mode::zero(), g = Mode::zero();
  if (c < dtaps.width && first < last) {
    const Value r = Mode::at(ratio, s, c);
#pragma unroll 4
    for (Index t = last - 1; t >= first; --t) {
      g = g * r + f;
      f = Mode::plus(f * r, dtaps(t, c));
    }
    if (first > 0) {
      const Value before = power<Mode>(r, first - 1), here = before * r;
      g = g * here + static_cast<float>(first) * (before * f);
      f = f * here;
    }
  }
  const unsigned thread = threadIdx.y * 32 + threadIdx.x;
  values[thread] = f;
  slopes[thread] = g;
  __syncthreads();
  if (threadIdx.y != 0 || c >= dtaps.width) return;
  for (unsigned other = 1; other < blockDim.y; ++other) {
    f = f + values[other * 32 + threadIdx.x];
    g = g + slopes[other * 32 + threadIdx.x];
  }
  Mode::put(value, s, c, f);
  Mode::put(slope, s, c, g);
}

template <class Mode>
void launch_exponential_taps(Context<Cuda>& context, Rows<const float> ratio, Rows<const float> weight, Rows<float> taps) {
  if (taps.empty()) return;
  const Index runs = ceil_div(taps.rows, taps_run);
  const dim3 block(32, static_cast<unsigned>(std::min<Index>(4, runs)));
  const dim3 grid(static_cast<unsigned>(ceil_div(runs, block.y)), static_cast<unsigned>(ceil_div(taps.width, 32)));
  exponential_taps_kernel<Mode><<<grid, block, 0, context.stream()>>>(ratio, weight, taps);
  COYOTE_CUDA_CHECK_LAUNCH("exponential_taps");
}

template <class Mode>
void launch_exponential_taps_backward(Context<Cuda>& context, Rows<const float> ratio, Rows<const float> dtaps, Rows<float> value,
                                      Rows<float> slope) {
  if (dtaps.empty() || ratio.empty()) return;
  const dim3 block(32, static_cast<unsigned>(std::clamp<Index>(ceil_div(dtaps.rows, 16), 1, 8)));
  const dim3 grid(static_cast<unsigned>(ceil_div(dtaps.width, 32)), static_cast<unsigned>(ratio.rows / Mode::rows));
  exponential_taps_backward_kernel<Mode><<<grid, block, 0, context.stream()>>>(ratio, dtaps, value, slope);
  COYOTE_CUDA_CHECK_LAUNCH("exponential_taps_backward");
}

template <class S>
__global__ void __launch_bounds__(row_threads)
    modes_step_kernel(Rows<const float> ratio, Rows<const float> input, Rows<const float> output, Rows<float> modes,
                      Rows<const S> u, Rows<S> y) {
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x, i = Index{blockIdx.x} * blockDim.y + threadIdx.y;
  if (c >= u.width || i >= u.rows) return;
  const float now = to_float(u(i, c));
  float sum = 0;
  for (Index s = 0; s < ratio.rows; ++s) {
    float& x = modes(i * ratio.rows + s, c);
    x = fmaf(ratio(s, c), x, input.rows > 0 ? input(s, c) * now : now);
    sum = fmaf(output(s, c), x, sum);
  }
  y(i, c) = from_float<S>(sum);
}

template <class S>
__global__ void __launch_bounds__(row_threads)
    complex_modes_step_kernel(Rows<const float> ratio, Rows<const float> weight, Rows<float> modes, Rows<const S> u, Rows<S> y) {
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x, i = Index{blockIdx.x} * blockDim.y + threadIdx.y;
  if (c >= u.width || i >= u.rows) return;
  const float now = to_float(u(i, c));
  const Rows<float> own = modes.slice(i * ratio.rows, ratio.rows);
  float sum = 0;
  for (Index n = 0; n < ratio.rows / 2; ++n) {
    auto x = coyote::detail::complex_at(ratio, n, c) * coyote::detail::complex_at(own, n, c);
    x.real += now;
    coyote::detail::put_complex(own, n, c, x);
    sum += (coyote::detail::complex_at(weight, n, c) * x).real;
  }
  y(i, c) = from_float<S>(sum);
}

template <int Unused = 0>
__global__ void __launch_bounds__(row_threads)
    discretise_modes_kernel(ComplexModes<const float> modes, Rows<float> ratio, Rows<float> weight) {
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x, n = Index{blockIdx.x} * blockDim.y + threadIdx.y;
  if (c >= ratio.width || n >= modes.log_decay.rows) return;
  const coyote::detail::DiscreteMode<float> mode(modes, n, c);
  coyote::detail::put_complex(ratio, n, c, mode.ratio());
  coyote::detail::put_complex(weight, n, c, mode.weight(modes, n, c));
}

/// Leaves each mode's part of the gradient of log_step in by_step.
template <int Unused = 0>
__global__ void __launch_bounds__(row_threads)
    discretise_modes_backward_kernel(ComplexModes<const float> modes, Rows<const float> weight, Rows<const float> value,
                                     Rows<const float> slope, ComplexModes<float> gradients, Rows<float> by_step) {
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x, n = Index{blockIdx.x} * blockDim.y + threadIdx.y;
  if (c >= weight.width || n >= modes.log_decay.rows) return;
  const auto by_ratio = coyote::detail::complex_at(weight, n, c) * coyote::detail::complex_at(slope, n, c);
  by_step(n, c) = coyote::detail::DiscreteMode<float>(modes, n, c)
                      .backward(modes, n, c, coyote::detail::complex_at(value, n, c), by_ratio, gradients);
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// taps[t, c] = sum_s weight[s, c] ratio[s, c]^t. Floor: the taps once, or 2 * modes * L * D flops.
template <class P>
void exponential_taps(Context<Cuda>& context, Rows<const P> ratio, Rows<const P> weight, Rows<P> taps) {
  cuda::launch_exponential_taps<cuda::RealMode>(context, ratio, weight, taps);
}
/// value[s, c] = sum_t dtaps[t, c] ratio^t and slope[s, c] = sum_t dtaps[t, c] t ratio^(t-1).
template <class P>
void exponential_taps_backward(Context<Cuda>& context, Rows<const P> ratio, Rows<const P> dtaps, Rows<P> value, Rows<P> slope) {
  cuda::launch_exponential_taps_backward<cuda::RealMode>(context, ratio, dtaps, value, slope);
}
/// The same for complex modes, in two rows each; taps are real parts.
template <class P>
void complex_exponential_taps(Context<Cuda>& context, Rows<const P> ratio, Rows<const P> weight, Rows<P> taps) {
  cuda::launch_exponential_taps<cuda::ComplexMode>(context, ratio, weight, taps);
}
template <class P>
void complex_exponential_taps_backward(Context<Cuda>& context, Rows<const P> ratio, Rows<const P> dtaps, Rows<P> value,
                                       Rows<P> slope) {
  cuda::launch_exponential_taps_backward<cuda::ComplexMode>(context, ratio, dtaps, value, slope);
}

/// One row of every sequence: x_s <- ratio_s x_s + input_s u, y = sum_s output_s x_s.
template <class S>
void modes_step(Context<Cuda>& context, Rows<const float> ratio, Rows<const float> input, Rows<const float> output,
                Rows<float> modes, Rows<const S> u, Rows<S> y) {
  if (u.empty()) return;
  cuda::modes_step_kernel<S>
      <<<cuda::row_grid(u.rows, u.width), cuda::row_block(u.width), 0, context.stream()>>>(ratio, input, output, modes, u, y);
  COYOTE_CUDA_CHECK_LAUNCH("modes_step");
}
/// The same with complex modes: x_n <- ratio_n x_n + u, y = sum_n Re(weight_n x_n).
template <class S>
void complex_modes_step(Context<Cuda>& context, Rows<const float> ratio, Rows<const float> weight, Rows<float> modes,
                        Rows<const S> u, Rows<S> y) {
  if (u.empty()) return;
  cuda::complex_modes_step_kernel<S>
      <<<cuda::row_grid(u.rows, u.width), cuda::row_block(u.width), 0, context.stream()>>>(ratio, weight, modes, u, y);
  COYOTE_CUDA_CHECK_LAUNCH("complex_modes_step");
}

/// ratio and weight of complex_exponential_taps, by the bilinear rule at the step dt.
template <class P>
void discretise_modes(Context<Cuda>& context, const ComplexModes<const P>& modes, Rows<P> ratio, Rows<P> weight) {
  if (ratio.empty()) return;
  const Index count = modes.log_decay.rows;
  cuda::discretise_modes_kernel<>
      <<<cuda::row_grid(count, ratio.width), cuda::row_block(ratio.width), 0, context.stream()>>>(modes, ratio, weight);
  COYOTE_CUDA_CHECK_LAUNCH("discretise_modes");
}
/// Adds to the gradients of the parameters, from value and slope of complex_exponential_taps_backward.
template <class P>
void discretise_modes_backward(Context<Cuda>& context, const ComplexModes<const P>& modes, Rows<const P> weight,
                               Rows<const P> value, Rows<const P> slope, const ComplexModes<P>& gradients) {
  if (weight.empty()) return;
  const auto frame = context.frame();
  const Index count = modes.log_decay.rows;
  const Rows<float> by_step = context.make<float>(count, weight.width);
  cuda::discretise_modes_backward_kernel<>
      <<<cuda::row_grid(count, weight.width), cuda::row_block(weight.width), 0, context.stream()>>>(modes, weight, value, slope,
                                                                                                    gradients, by_step);
  COYOTE_CUDA_CHECK_LAUNCH("discretise_modes_backward");
  cuda::sum_rows<P>(context, count, cuda::SameRow<P>{by_step}, gradients.log_step, by_step);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/decoding.cuh"
#include "coyote/operations/cuda/linear.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// Behind a product, as an epilogue of step_product: times a convolution of the product's own (normalised) input, plus skip. What
/// earlier steps have left of the convolution is summed up before the kernel's input is there.
struct GatedConvolutionOutput {
  StepPosition at;
  NormRule<float> norm;
  Rows<const float> gate_bias, taps, bias;
  Rows<float> history;
  std::int32_t memory;  // rows of history that a sequence has
  Rows<const bf16> u, skip;
  Rows<bf16> y;

  struct Held {
    std::int32_t position;
    float past, tap, gate_bias, scale, shift, now, skip;
  };
  __device__ float& remembered(Index sequence, std::int32_t position, Index channel) const {
    return history.row(sequence * memory + position % memory)[channel];
  }
  __device__ Held prepare(Index row, Index column) const {
    Held held{};
    held.position = at.get();
    held.past = bias_at(bias, held.position, column);
    const auto reach = static_cast<std::int32_t>(taps.rows) - 1, used = held.position < reach ? held.position : reach;
#pragma unroll 4
    for (std::int32_t t = 1; t <= used; ++t) {
      held.past = fmaf(taps(t, column), remembered(row, held.position - t, column), held.past);
    }
    held.tap = taps(0, column);
    held.gate_bias = bias_at(gate_bias, held.position, column);
    held.scale = norm.scale(0, column);
    held.shift = norm.shift.rows > 0 ? norm.shift(0, column) : 0.0f;
    return held;
  }
  __device__ void receive(Held& held, Index row, Index column) const {
    held.now = to_float(u(row, column));
    held.skip = skip.rows > 0 ? to_float(skip(row, column)) : 0.0f;
  }
  /// Input and gate are rounded as if they had been in memory.
  __device__ void finish(const Held& held, Index row, Index column, const float (&sums)[1], RowStatistics of) const {
    const float now = to_float(from_float<bf16>(fmaf((held.now - of.mean) * of.inverse, held.scale, held.shift)));
    const float gate = to_float(from_float<bf16>(sums[0] + held.gate_bias));
    y(row, column) = from_float<bf16>(fmaf(gate, fmaf(held.tap, now, held.past), held.skip));
    if (memory > 0) remembered(row, held.position, column) = now;
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y = (n weight + gate_bias) * (taps * n + bias) (+ skip, unless absent) with n = norm(u), one row of every sequence, and
/// remembers n; see convolution_step. weight [channels, channels]; biases 0, 1 or one row per position. One pass for few rows
/// that lie well, of which every block makes 32 columns; else norm, product and convolution one after the other.
template <class S>
void gated_convolution_step(Context<Cuda>& context, const Step& at, const NormRule<float>& norm, Rows<const float> weight,
                            Rows<const float> gate_bias, Rows<const float> taps, Rows<const float> bias, Rows<float> history,
                            Rows<const S> u, Rows<S> y, Rows<const S> skip) {
  if (u.empty()) return;
  const auto frame = context.frame();
  const auto w = cuda::Operand<S>::of(cuda::in_type<S>(context, weight));
  const bool is_settled = context.is_settled(w.data, norm.scale.data, norm.shift.data, gate_bias.data, taps.data, bias.data);
  const auto memory = static_cast<std::int32_t>(history.rows / u.rows);
  const cuda::GatedConvolutionOutput output{cuda::StepPosition(at), norm, gate_bias, taps, bias, history, memory, u, skip, y};
  if (cuda::step_product<true, true>(context, cuda::StepProblem<1>{{{u, w}}, y.width, is_settled, norm}, output)) return;
  const Rows<const S> normed = cuda::normalised(context, norm, u);
  const Rows<S> gate = context.make<S>(y.rows, y.width);
  linear<S>(context, {.sequences = u.rows, .length = 1}, normed, weight, gate_bias.rows == 1 ? gate_bias : Rows<const float>(),
            gate);
  if (gate_bias.rows > 1) bias_step<S>(context, at, gate_bias, gate);
  convolution_step<S>(context, at, taps, bias, history, normed, y, gate, skip);
}

}  // namespace coyote::inline v0

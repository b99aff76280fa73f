// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/short_convolution_walks.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// Any number of taps: a thread makes one pack of one row.
template <class S>
struct ConvolvedRow {
  ShortConvolutionProblem<S> problem;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const std::int32_t position = problem.sequences.position(row);
    Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
    if (problem.bias.rows > 0) sum = load<N>(problem.bias.row(problem.bias.rows == 1 ? 0 : position) + column);
    const auto count = static_cast<std::int32_t>(problem.taps.rows < position + 1 ? problem.taps.rows : position + 1);
#pragma unroll 4
    for (std::int32_t k = 0; k < count; ++k) {
      const Pack<N> tap = load<N>(problem.taps.row(k) + column), value = load<N>(problem.x.row(row - k) + column);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = fmaf(tap[i], value[i], sum[i]);
    }
    if (problem.gate.rows > 0) {
      const Pack<N> gate = load<N>(problem.gate.row(row) + column);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] *= gate[i];
    }
    return sum;
  }
};

/// dc of a row: dy, times the gate where there is one.
template <class S>
struct ConvolvedGradient {
  Rows<const S> dy, gate;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    Pack<N> result = load<N>(dy.row(row) + column);
    if (gate.rows == 0) return result;
    const Pack<N> factor = load<N>(gate.row(row) + column);
#pragma unroll
    for (int i = 0; i < N; ++i) result[i] *= factor[i];
    return result;
  }
};

/// dx of a row for any number of taps.
template <class S>
struct ShortConvolutionInputGradient {
  ShortConvolutionProblem<S> problem;
  Rows<const S> dy;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const ConvolvedGradient<S> gradient{dy, problem.gate};
    Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
    for (std::int32_t k = 0; k < problem.taps.rows && row + k < dy.rows; ++k) {
      if (problem.sequences.position(row + k) < k) break;
      const Pack<N> tap = load<N>(problem.taps.row(k) + column), d = gradient.template operator()<N>(row + k, column);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = fmaf(tap[i], d[i], sum[i]);
    }
    return sum;
  }
};
/// dy times the value before the gate.
template <class S>
struct GateGradient {
  ConvolvedRow<S> convolved;  // without a gate
  Rows<const S> dy;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> value = convolved.template operator()<N>(row, column), gradient = load<N>(dy.row(row) + column);
    return make_pack<N>([&](int i) { return gradient[i] * value[i]; });
  }
};
/// x[row - tap] times the gradient of `row`.
template <class S>
struct ShortTapGradient {
  Sequences sequences;
  std::int32_t tap;
  Rows<const S> x;
  ConvolvedGradient<S> gradient;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    if (sequences.position(row) < tap) return make_pack<N>([](int) { return 0.0f; });
    const Pack<N> value = load<N>(x.row(row - tap) + column), d = gradient.template operator()<N>(row, column);
    return make_pack<N>([&](int i) { return value[i] * d[i]; });
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i] = sum_{k = 0 .. min(i, K-1)} taps[k] x[i-k] + bias, times gate[i] when there is one. Floor: x, gate and y once.
template <class S, Index K = 0>
void short_convolution(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> taps,
                       Rows<const float> bias, Rows<const S> gate, Rows<S> y) {
  if (y.empty()) return;
  const cuda::ShortConvolutionProblem<S> problem{cuda::sequences_of(batch), x, taps, bias, gate};
  if constexpr (K >= 1 && K <= cuda::most_short_taps) {
    const auto launch = [&]<bool Gated>(std::bool_constant<Gated>) {
      cuda::launch_short_convolution<static_cast<int>(K), Gated>(context, problem, y);
    };
    gate.rows > 0 ? launch(std::true_type{}) : launch(std::false_type{});
  } else {
    cuda::map_rows(context, cuda::ConvolvedRow<S>{problem}, Write::overwrite, y, x, taps, bias, gate);
  }
}

/// Gradients of short_convolution; dgate = dy * (value before the gate). Up to eight taps, known to the compiler, one kernel
/// makes all of them but a bias's of many rows. Floor: x, dy and dx once, with a gate also gate and dgate.
template <class S, Index K = 0>
void short_convolution_backward(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> taps,
                                Rows<const float> bias, Rows<const S> gate, Rows<const S> dy, Rows<S> dx, Write write,
                                Rows<S> dgate, Rows<float> dtaps, Rows<float> dbias) {
  if (x.empty()) return;
  const auto frame = context.frame();
  const cuda::ShortConvolutionProblem<S> problem{cuda::sequences_of(batch), x, taps, bias, gate};
  const cuda::ConvolvedGradient<S> gradient{dy, gate};
  const Rows<float> one_dbias = dbias.rows == 1 ? dbias : Rows<float>();
  if (write == Write::none) dx = {};
  if constexpr (K >= 1 && K <= cuda::most_short_taps) {
    const auto launch = [&]<bool Gated>(std::bool_constant<Gated>) {
      cuda::launch_short_convolution_backward<static_cast<int>(K), Gated, S>(
          context, problem, {dy, dx, write, dgate, dtaps.rows > 0 || one_dbias.rows > 0}, dtaps, one_dbias);
    };
    gate.rows > 0 ? launch(std::true_type{}) : launch(std::false_type{});
  } else {
    const cuda::ShortConvolutionProblem<S> before_gate{problem.sequences, x, taps, bias, {}};
    if (gate.rows > 0) {
      cuda::map_rows(context, cuda::GateGradient<S>{{before_gate}, dy}, Write::overwrite, dgate, x, taps, bias, dy);
    }
    cuda::map_rows(context, cuda::ShortConvolutionInputGradient<S>{problem, dy}, write, dx, taps, gate, dy);
    for (Index k = 0; k < dtaps.rows; ++k) {
      cuda::sum_rows<S>(context, x.rows, cuda::ShortTapGradient<S>{problem.sequences, static_cast<std::int32_t>(k), x, gradient},
                        dtaps.slice(k, 1), x, dy, gate);
    }
    cuda::sum_rows<S>(context, x.rows, gradient, one_dbias, dy, gate);
  }
  if (dbias.rows > 1) cuda::sum_positions<S>(context, batch, gradient, dbias, dy, gate);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/activation.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/cuda/wkv.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// Behind the products for key, value and gate, as an epilogue of step_product: a row of the recurrence, times sigmoid(gate).
struct TimeMixOutput {
  Rows<float> state;
  const float *decay, *bonus;
  Rows<bf16> y;

  struct Held {
    WkvSums sums;
    float decay, bonus;
  };
  __device__ Held prepare(Index row, Index column) const {
    const Index width = y.width;
    return {{state(row, column), state(row, width + column), state(row, 2 * width + column)},
            wkv_log2_e * expf(decay[column]),
            wkv_log2_e * bonus[column]};
  }
  __device__ void receive(Held&, Index, Index) const {}
  /// What products give is rounded as if it had been in memory.
  __device__ void finish(const Held& held, Index row, Index column, const float (&sums)[3], RowStatistics) const {
    const auto rounded = [](float x) { return to_float(from_float<bf16>(x)); };
    const float key = wkv_log2_e * rounded(sums[0]), value = rounded(sums[1]);
    const float gate = rounded(DeviceMath::sigmoid(rounded(sums[2])));
    y(row, column) = from_float<bf16>(gate * rounded(WkvOutput(held.sums, held.bonus, key, value).value));
    const WkvSums next = combine(held.sums, held.decay, {value, 1.0f, key});
    const Index width = y.width;
    state(row, column) = next.first;
    state(row, width + column) = next.second;
    state(row, 2 * width + column) = next.highest;
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// One row of every sequence of y = sigmoid(r) * wkv(k, v), where k, v and r are u's three equal parts times a weight each, and
/// which updates wkv's state; see wkv_step. One pass for few rows that lie well, of which every block makes 32 columns; false,
/// and nothing done, for others.
template <class S>
bool time_mix_step(Context<Cuda>& context, Rows<const float> key, Rows<const float> value, Rows<const float> gate,
                   Rows<float> state, Rows<const float> decay, Rows<const float> bonus, Rows<const S> u, Rows<S> y) {
  if constexpr (std::is_same_v<S, bf16>) {
    if (u.empty()) return true;
    const auto frame = context.frame();
    const Index part = u.width / 3;
    cuda::StepProblem<3> problem{{}, y.width, context.is_settled(decay.data, bonus.data), {}};
    const Rows<const float> weights[3] = {key, value, gate};
    for (Index n = 0; n < 3; ++n) {
      const Rows<const S> w = cuda::in_type<S>(context, weights[n]);
      problem.maps[n] = {u.columns(n * part, part), cuda::Operand<S>::of(w)};
      problem.is_settled = problem.is_settled && context.is_settled(w.data);
    }
    return cuda::step_product<false, true>(context, problem, cuda::TimeMixOutput{state, decay.data, bonus.data, y});
  } else {
    return false;
  }
}

}  // namespace coyote::inline v0

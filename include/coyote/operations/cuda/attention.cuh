// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_mma.cuh"
#include "coyote/operations/cuda/attention_mma_backward.cuh"
#include "coyote/operations/cuda/attention_mma_sequence.cuh"
#include "coyote/operations/cuda/attention_walk.cuh"
#include "coyote/operations/cuda/attention_wgmma.cuh"
#include "coyote/operations/cuda/attention_wgmma_backward.cuh"

namespace coyote::inline v0 {

namespace cuda {

/// Keys are Intervals, whichever pattern they come from, or a pattern to be walked.
template <class S, class Keys>
void attend(Context<Cuda>& context, const AttentionProblem<S>& problem, Rows<S> y, Rows<float> log_sum_exp) {
  if constexpr (std::is_same_v<Keys, Intervals> && std::is_same_v<S, bf16>) {
    if (!suits_small_tiles(problem) && launch_wgmma(context, problem, y, log_sum_exp)) return;
    if (launch_mma(context, problem, y, log_sum_exp)) return;
  }
  launch_walk<Keys, S>(context.stream(), problem, y, log_sum_exp);
}
template <class S, class Keys>
void attend_backward(Context<Cuda>& context, const AttentionProblem<S>& problem, const AttentionErrors<S>& errors, Rows<S> dq,
                     Rows<S> dk, Rows<S> dv) {
  if constexpr (std::is_same_v<Keys, Intervals> && std::is_same_v<S, bf16>) {
    if (launch_sequence_backward(context, problem, errors, dq, dk, dv)) return;
    if (launch_wgmma_backward(context, problem, errors, dq, dk, dv)) return;
    if (launch_mma_backward(context, problem, errors, dq, dk, dv)) return;
  }
  launch_walk_backward<Keys, S>(context.stream(), problem, errors, dq, dk, dv);
}

/// Attention to intervals of keys, to be compiled here or, with `extern`, elsewhere: see operations/cuda/compiled.
#define COYOTE_ATTENTION(EXTERN, S)                                                                                         \
  EXTERN template void attend<S, Intervals>(Context<Cuda>&, const AttentionProblem<S>&, Rows<S>, Rows<float>);              \
  EXTERN template void attend_backward<S, Intervals>(Context<Cuda>&, const AttentionProblem<S>&, const AttentionErrors<S>&, \
                                                     Rows<S>, Rows<S>, Rows<S>)
#ifdef COYOTE_CUDA_COMPILED
COYOTE_ATTENTION(extern, float);
COYOTE_ATTENTION(extern, bf16);
#endif

}  // namespace cuda

/// For every head: y_i = sum_j p_ij v_j, p_i = softmax over the pattern's keys j of scale * <q_i, k_j>; rows without keys
/// output 0; dropout keeps or drops each p_ij. q, k, v, y: [rows, heads * head width], any strides; log_sum_exp [rows, heads]
/// receives the logarithm of the softmax's denominator (0 rows: not wanted).
template <class S, AttentionPattern Pattern>
void attention(Context<Cuda>& context, const Batch& batch, const cuda::DeviceIndex& index, Index heads, parameter_t<S> scale,
               const AttentionDropout& dropout, Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<S> y,
               Rows<float> log_sum_exp) {
  if (q.empty()) return;
  cuda::attend<S, cuda::KeysOf<Pattern>>(
      context, cuda::attention_problem<S>(context, batch, index, heads, scale, dropout, q, k, v), y, log_sum_exp);
}

/// Gradients of `attention`, from its inputs, its y and its log_sum_exp. dq, dk and dv are overwritten. Every sum has a fixed
/// order.
template <class S, AttentionPattern Pattern>
void attention_backward(Context<Cuda>& context, const Batch& batch, const cuda::DeviceIndex& index, Index heads,
                        parameter_t<S> scale, const AttentionDropout& dropout, Rows<const S> q, Rows<const S> k, Rows<const S> v,
                        Rows<const S> y, Rows<const float> log_sum_exp, Rows<const S> dy, Rows<S> dq, Rows<S> dk, Rows<S> dv) {
  if (q.empty()) return;
  const auto frame = context.frame();
  cuda::attend_backward<S, cuda::KeysOf<Pattern>>(
      context, cuda::attention_problem<S>(context, batch, index, heads, scale, dropout, q, k, v),
      {y, dy, log_sum_exp, context.template make<float>(q.rows, heads)}, dq, dk, dv);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_mma.cuh"
#include "coyote/operations/cuda/attention_mma_backward.cuh"
#include "coyote/operations/cuda/attention_mma_sequence.cuh"
#include "coyote/operations/cuda/attention_walk.cuh"
#include "coyote/operations/cuda/attention_wgmma.cuh"
#include "coyote/operations/cuda/attention_wgmma_backward.cuh"

namespace coyote::inline v0 {

/// For every head: y_i = sum_j p_ij v_j, p_i = softmax over the pattern's keys j of scale * <q_i, k_j>; rows without keys
/// output 0; dropout keeps or drops each p_ij. q, k, v, y: [rows, heads * head width], any strides; log_sum_exp [rows, heads]
/// receives the logarithm of the softmax's denominator (0 rows: not wanted).
template <class S, AttentionPattern Pattern>
void attention(Context<Cuda>& context, const Batch& batch, const cuda::DeviceIndex& index, Index heads, parameter_t<S> scale,
               const AttentionDropout& dropout, Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<S> y,
               Rows<float> log_sum_exp) {
  if (q.empty()) return;
  const auto problem = cuda::attention_problem<S>(context, batch, index, heads, scale, dropout, q, k, v);
  if constexpr (IntervalPattern<Pattern> && std::is_same_v<S, bf16>) {
    if (!cuda::suits_small_tiles(problem) && cuda::launch_wgmma(context, problem, y, log_sum_exp)) return;
    if (cuda::launch_mma(context, problem, y, log_sum_exp)) return;
  }
  cuda::launch_walk<cuda::KeysOf<Pattern>, S>(context.stream(), problem, y, log_sum_exp);
}

/// Gradients of `attention`, from its inputs, its y and its log_sum_exp. dq, dk and dv are overwritten. Every sum has a fixed
/// order.
template <class S, AttentionPattern Pattern>
void attention_backward(Context<Cuda>& context, const Batch& batch, const cuda::DeviceIndex& index, Index heads,
                        parameter_t<S> scale, const AttentionDropout& dropout, Rows<const S> q, Rows<const S> k, Rows<const S> v,
                        Rows<const S> y, Rows<const float> log_sum_exp, Rows<const S> dy, Rows<S> dq, Rows<S> dk, Rows<S> dv) {
  if (q.empty()) return;
  const auto frame = context.frame();
  const auto problem = cuda::attention_problem<S>(context, batch, index, heads, scale, dropout, q, k, v);
  const cuda::AttentionErrors<S> errors{y, dy, log_sum_exp, context.template make<float>(q.rows, heads)};
  if constexpr (IntervalPattern<Pattern> && std::is_same_v<S, bf16>) {
    if (cuda::launch_sequence_backward(context, problem, errors, dq, dk, dv)) return;
    if (cuda::launch_wgmma_backward(context, problem, errors, dq, dk, dv)) return;
    if (cuda::launch_mma_backward(context, problem, errors, dq, dk, dv)) return;
  }
  cuda::launch_walk_backward<cuda::KeysOf<Pattern>, S>(context.stream(), problem, errors, dq, dk, dv);
}

}  // namespace coyote::inline v0

/// Attention by a pattern, to be compiled here or, with `extern`, elsewhere: see operations/cuda/compiled.
#define COYOTE_ATTENTION(EXTERN, S, PATTERN)                                                                                \
  EXTERN template void attention<S, PATTERN>(Context<Cuda>&, const Batch&, const cuda::DeviceIndex&, Index, float,          \
                                             const AttentionDropout&, Rows<const S>, Rows<const S>, Rows<const S>, Rows<S>, \
                                             Rows<float>);                                                                  \
  EXTERN template void attention_backward<S, PATTERN>(                                                                      \
      Context<Cuda>&, const Batch&, const cuda::DeviceIndex&, Index, float, const AttentionDropout&, Rows<const S>,         \
      Rows<const S>, Rows<const S>, Rows<const S>, Rows<const float>, Rows<const S>, Rows<S>, Rows<S>, Rows<S>)
#ifdef COYOTE_CUDA_COMPILED
#include "coyote/mixers/patterns.hpp"

namespace coyote::inline v0 {

COYOTE_ATTENTION(extern, float, Dense);
COYOTE_ATTENTION(extern, bf16, Dense);

}  // namespace coyote::inline v0
#endif

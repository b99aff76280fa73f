// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/attention_state.hpp"
#include "coyote/operations/cuda/attention_walk.cuh"
#include "coyote/operations/cuda/following.cuh"

namespace coyote::inline v0 {
namespace cuda {

/// A decoding step of a walked pattern: see attention_decode. The position stands in device memory.
template <class S>
struct WalkStep {
  const std::int32_t* position;
  Index capacity;
  int heads, width;  // of a head
  float scale;
  Rows<const S> q, k, v;
  const Token* new_tokens;
  Rows<float> keys, values;
  Rows<Token> tokens;
  Rows<std::int32_t> index;
  Rows<S> y;
  bool enters_tokens;  ///< the kernel does so itself: a sequence has one block then
  bool is_settled;     ///< position, tokens, index and earlier rows are

  template <class Pattern>
  __device__ void enter_token(Index sequence, Index now) const {
    tokens(sequence, now) = new_tokens[sequence];
    Pattern::append(Entries<std::int32_t>(index.row(sequence), index.width),
                    Entries<const Token>(tokens.row(sequence), tokens.width), now);
  }
};

inline namespace COYOTE_CUDA_ARCHITECTURES {

inline constexpr int walk_step_threads = 256, walk_step_keys = 32, walk_step_columns = 4;

template <class Pattern, class S>
__global__ void enter_tokens_kernel(WalkStep<S> p) {
  follow();
  const Index sequence = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (sequence < p.q.rows) p.template enter_token<Pattern>(sequence, *p.position);
}

__device__ inline void prefetch(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

/// A block has one head of one sequence. Keys come up to 32 at a time; which ones, it finds out before its input is there, and
/// it has their rows brought near. The row of the step itself it takes from its input, and enters it.
template <class Pattern, class S>
__global__ void __launch_bounds__(walk_step_threads) walk_step_kernel(WalkStep<S> p) {
  constexpr int threads = walk_step_threads, warps = threads / 32, each = walk_step_columns, early = 4;
  __shared__ std::int32_t list[walk_step_keys];
  __shared__ float scores[walk_step_keys];
  const Index sequence = blockIdx.y, begin = sequence * p.capacity;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int at = static_cast<int>(blockIdx.x) * p.width;
  let_next_start();
  if (!p.is_settled) wait_for_previous();
  const Index position = *p.position;
  if constexpr (Pattern::uses_tokens) {
    if (p.enters_tokens) {
      if (thread == 0) p.template enter_token<Pattern>(sequence, position);
      __syncthreads();
    }
  }
  const Entries<const std::int32_t> index(p.index.width > 0 ? p.index.row(sequence) : nullptr, p.index.width);
  const S *const q = p.q.row(sequence) + at, *const k = p.k.row(sequence) + at, *const v = p.v.row(sequence) + at;
  bool is_there = !p.is_settled;
  for (int base = 0; base < p.width; base += threads * each) {
    float most = -INFINITY, total = 0, sums[each] = {}, new_key[each], new_value[each];
    const auto for_columns = [&](auto&& f) {
#pragma unroll
      for (int i = 0; i < each; ++i) {
        const int c = base + thread + threads * i;
        if (c < p.width) f(i, c);
      }
    };
    const auto receive = [&] {
      if (!is_there) wait_for_previous();
      is_there = true;
      for_columns([&](int i, int c) {
        new_key[i] = to_float(k[c]);
        new_value[i] = to_float(v[c]);
      });
    };
    bool has_received = false;
    const auto attend = [&](int n) {
      __syncthreads();
      if (!has_received) {
        if (!is_there) {
          const int lines = (p.width + 31) / 32;
          for (int x = thread; x < 2 * n * lines; x += threads) {
            const float* row = (x % 2 == 0 ? p.keys : p.values).row(begin + list[x / 2 / lines]) + at;
            prefetch(row + 32 * (x / 2 % lines));
          }
        }
        receive();
        has_received = true;
      }
      float values[early][each];
#pragma unroll
      for (int m = 0; m < early; ++m) {
        if (m >= n) break;
        const Index j = list[m];
        for_columns([&](int i, int c) { values[m][i] = j == position ? new_value[i] : p.values.row(begin + j)[at + c]; });
      }
      for (int m = warp; m < n; m += warps) {
        const Index j = list[m];
        const float* const key = p.keys.row(begin + j) + at;
        float dot = 0;
#pragma unroll 8
        for (int c = lane; c < p.width; c += 32) dot = fmaf(to_float(q[c]), j == position ? to_float(k[c]) : key[c], dot);
        dot = warp_sum(dot);
        if (lane == 0) scores[m] = p.scale * dot;
      }
      __syncthreads();
      float highest = most;
      for (int m = 0; m < n; ++m) highest = fmaxf(highest, scores[m]);
      const float shrink = expf(most - highest);
      most = highest;
      total *= shrink;
#pragma unroll
      for (int i = 0; i < each; ++i) sums[i] *= shrink;
#pragma unroll
      for (int m = 0; m < early; ++m) {
        if (m >= n) break;
        const float weight = expf(scores[m] - highest);
        total += weight;
        for_columns([&](int i, int) { sums[i] = fmaf(weight, values[m][i], sums[i]); });
      }
      for (int m = early; m < n; ++m) {
        const Index j = list[m];
        const float weight = expf(scores[m] - highest);
        total += weight;
        for_columns([&](int i, int c) {
          sums[i] = fmaf(weight, j == position ? new_value[i] : p.values.row(begin + j)[at + c], sums[i]);
        });
      }
      __syncthreads();
    };
    int found = 0;
    Pattern::for_each_key(index, p.capacity, position, [&](Index j) {
      if (thread == 0) list[found] = static_cast<std::int32_t>(j);
      if (++found < walk_step_keys) return;
      attend(found);
      found = 0;
    });
    if (found > 0) attend(found);
    if (!has_received) receive();
    for_columns([&](int i, int c) {
      p.y(sequence, at + c) = from_float<S>(total == 0 ? 0.0f : sums[i] / total);
      p.keys.row(begin + position)[at + c] = new_key[i];
      p.values.row(begin + position)[at + c] = new_value[i];
    });
  }
}

}  // namespace COYOTE_CUDA_ARCHITECTURES
}  // namespace cuda

/// One decoding step of attention with a walked pattern, entering the step's row included.
template <AttentionPattern Pattern, class S>
void walk_step(Context<Cuda>& context, cuda::WalkStep<S> step) {
  const auto sequences = static_cast<unsigned>(step.q.rows), heads = static_cast<unsigned>(step.heads);
  step.enters_tokens = step.heads == 1;
  step.is_settled = context.is_settled() && (step.enters_tokens || !Pattern::uses_tokens);
  if constexpr (Pattern::uses_tokens) {
    if (!step.enters_tokens) {
      cuda::launch_following(context, &cuda::enter_tokens_kernel<Pattern, S>, "launch of enter_tokens",
                             dim3((sequences + 31) / 32), dim3(32), 0, step);
    }
  }
  cuda::launch_following(context, &cuda::walk_step_kernel<Pattern, S>, "launch of walk_step", dim3(heads, sequences),
                         dim3(cuda::walk_step_threads), 0, step);
}

}  // namespace coyote::inline v0

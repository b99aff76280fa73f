// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/resident.cuh"
#include "coyote/operations/attention_state.hpp"
#include "coyote/operations/cuda/attention_walk.cuh"
#include "coyote/operations/cuda/attention_walk_step.cuh"
#include "coyote/operations/cuda/following.cuh"

namespace coyote::inline v0 {
namespace cuda {

/// The token index of a decoding state: sequence s at data + s * stride; absent where the pattern has none.
struct StepIndex {
  const std::int32_t* data = nullptr;
  Index stride = 0;
};

inline namespace COYOTE_CUDA_ARCHITECTURES {

// Decoding: one query per sequence and head against a state. The position stands in device memory, so that one captured
// graph serves every step: the grid is made for a full state, and blocks whose part is not there yet leave at once. Long
// states are cut into parts of `step_part` keys, whose softmaxes a second kernel joins in order. This is for interval patterns;
// walked ones have attention_walk_step.cuh.
// Floor: the bytes of the keys and values that the query uses.

inline constexpr int step_warps = 8, step_part = 512;

/// A softmax over some keys: the largest score, the sum of exponentials relative to it. The weighted values stand apart.
struct PartialSoftmax {
  float most, total;
};

/// Adds one softmax's weighted values to another's. Both factors are relative to the larger of the two scores.
__device__ inline void join(PartialSoftmax& a, const PartialSoftmax& b, float& factor_a, float& factor_b) {
  const float highest = b.most > a.most ? b.most : a.most, shift = highest == -INFINITY ? 0.0f : highest;
  factor_a = expf(a.most - shift);
  factor_b = expf(b.most - shift);
  a = {highest, a.total * factor_a + b.total * factor_b};
}

template <class Pattern, class S, int PerLane>
__global__ void __launch_bounds__(32 * step_warps)
    step_parts(const std::int32_t* position_now, StepIndex index, Index capacity, int heads, int width, float scale,
               Rows<const S> q, Rows<const float> keys, Rows<const float> values, int parts, Rows<S> y, PartialSoftmax* softmaxes,
               float* sums) {
  __shared__ PartialSoftmax of_warp[step_warps];
  __shared__ float out_of_warp[step_warps][32 * PerLane];
  follow();
  const int head = blockIdx.y, sequence = blockIdx.z, part = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Index position = min(static_cast<Index>(*position_now), capacity - 1);
  Index last = position;
  const Entries<const std::int32_t> own_index(index.data == nullptr ? nullptr : index.data + sequence * index.stride,
                                              index.data == nullptr ? 0 : index.stride);
  Index first = Pattern::first_key(own_index, capacity, position);
  if (first < 0) first = 0;
  if (parts > 1) {
    first = max(first, static_cast<Index>(part) * step_part);
    last = min(last, static_cast<Index>(part + 1) * step_part - 1);
    if (static_cast<Index>(part) * step_part > position) return;
  }
  const Index begin = sequence * capacity;
  const int at = head * width;
  const HeldRow<S, PerLane> query(q.row(sequence) + at, width);
  for (int base = 0; base < width; base += 32 * PerLane) {
    PartialSoftmax softmax = {-INFINITY, 0};
    LaneRow<PerLane> out;
    out.clear();
    const auto enter = [&](Index j, float score) {
      PartialSoftmax one = {score, 1};
      float shrink, weight;
      join(softmax, one, shrink, weight);
      out.multiply(shrink);
      out.add(weight, values.row(begin + j) + at, base, width);
    };
    constexpr int together = 4;
    Index j = first + warp;
    for (; j + (together - 1) * step_warps <= last; j += together * step_warps) {
      float scores[together];
#pragma unroll
      for (int n = 0; n < together; ++n) scores[n] = scale * query.dot(keys.row(begin + j + n * step_warps) + at);
#pragma unroll
      for (int n = 0; n < together; ++n) enter(j + n * step_warps, scores[n]);
    }
    for (; j <= last; j += step_warps) enter(j, scale * query.dot(keys.row(begin + j) + at));
    __syncthreads();
    if (lane == 0) of_warp[warp] = softmax;
#pragma unroll
    for (int m = 0; m < PerLane; ++m) out_of_warp[warp][lane + 32 * m] = out.x[m];
    __syncthreads();
    for (int c = threadIdx.x; c < 32 * PerLane && base + c < width; c += 32 * step_warps) {
      PartialSoftmax all = {-INFINITY, 0};
      float sum = 0, a, b;
      for (int w = 0; w < step_warps; ++w) {
        join(all, of_warp[w], a, b);
        sum = sum * a + out_of_warp[w][c] * b;
      }
      if (parts == 1) {
        y(sequence, at + base + c) = from_float<S>(all.total == 0 ? 0.0f : sum / all.total);
      } else {
        const Index slot = (static_cast<Index>(sequence) * heads + head) * parts + part;
        if (base + c == 0) softmaxes[slot] = all;
        sums[slot * width + base + c] = sum;
      }
    }
  }
}

/// Joins the parts of each sequence and head, in order.
template <class S>
__global__ void __launch_bounds__(128) step_join(const std::int32_t* position_now, Index capacity, int heads, int width,
                                                 int parts, const PartialSoftmax* softmaxes, const float* sums, Rows<S> y) {
  follow();
  const int head = blockIdx.x, sequence = blockIdx.y;
  const Index position = min(static_cast<Index>(*position_now), capacity - 1);
  const int present = static_cast<int>(position / step_part) + 1;
  const Index slot = (static_cast<Index>(sequence) * heads + head) * parts;
  for (int c = threadIdx.x; c < width; c += 128) {
    PartialSoftmax all = {-INFINITY, 0};
    float sum = 0, a, b;
    for (int n = 0; n < present; ++n) {
      join(all, softmaxes[slot + n], a, b);
      sum = sum * a + sums[(slot + n) * width + c] * b;
    }
    y(sequence, head * width + c) = from_float<S>(all.total == 0 ? 0.0f : sum / all.total);
  }
}

/// Enters a row into every sequence's state: one block each.
template <class Pattern, class S>
__global__ void __launch_bounds__(128)
    enter_rows(const std::int32_t* position_now, Index capacity, Rows<const S> k, Rows<const S> v, const Token* new_tokens,
               Rows<float> keys, Rows<float> values, Rows<Token> tokens, Rows<std::int32_t> index) {
  follow();
  const Index sequence = blockIdx.x, position = *position_now, slot = sequence * capacity + position % capacity;
  for (Index c = threadIdx.x; c < k.width; c += 128) {
    keys(slot, c) = to_float(k(sequence, c));
    values(slot, c) = to_float(v(sequence, c));
  }
  if constexpr (Pattern::uses_tokens) {
    if (threadIdx.x == 0) {
      tokens(sequence, position) = new_tokens[sequence];
      Pattern::append(Entries<std::int32_t>(index.row(sequence), index.width),
                      Entries<const Token>(tokens.row(sequence), tokens.width), position);
    }
  }
}

}  // namespace COYOTE_CUDA_ARCHITECTURES
}  // namespace cuda

/// Enters row *position of every sequence into a state: k and v [sequences, width] go to row position % capacity of the
/// sequence's part of keys and values [sequences * capacity, width]; where the pattern looks at tokens, new_tokens
/// [sequences] to tokens [sequences, capacity] and into index [sequences, index_size(capacity)], which began as -1.
/// Constant expected work per sequence. Everything stands on the device, the position too.
template <class S, AttentionPattern Pattern>
void attention_enter(Context<Cuda>& context, const std::int32_t* position, Index capacity, Rows<const S> k, Rows<const S> v,
                     const Token* new_tokens, Rows<float> keys, Rows<float> values, Rows<Token> tokens,
                     Rows<std::int32_t> index) {
  if (k.empty()) return;
  cuda::launch_following(context, &cuda::enter_rows<Pattern, S>, "launch of enter_rows", dim3(static_cast<unsigned>(k.rows)),
                         dim3(128), 0, position, capacity, k, v, new_tokens, keys, values, tokens, index);
}

/// One decoding step: q, y [sequences, heads * head width]; keys and values [sequences * capacity, width] hold the rows up to
/// *position, or, when that is capacity or more, a full window in any order. The position is read on the device.
template <class S, IntervalPattern Pattern>
void attention_step(Context<Cuda>& context, const cuda::StepIndex& index, Index capacity, const std::int32_t* position,
                    Index heads, parameter_t<S> scale, Rows<const S> q, Rows<const float> keys, Rows<const float> values,
                    Rows<S> y) {
  if (q.empty()) return;
  const auto frame = context.frame();
  const int width = static_cast<int>(q.width / heads);
  const Index parts = ceil_div(capacity, cuda::step_part), slots = q.rows * heads * parts;
  const auto softmaxes = context.template make<cuda::PartialSoftmax>(parts > 1 ? slots : 0, 1);
  const auto sums = context.template make<float>(parts > 1 ? slots : 0, width);
  const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(heads), static_cast<unsigned>(q.rows));
  cuda::with_columns(width, [&](auto columns) {
    cuda::launch_following(context, &cuda::step_parts<Pattern, S, decltype(columns)::value>, "launch of step_parts", grid,
                           dim3(32 * cuda::step_warps), 0, position, index, capacity, static_cast<int>(heads), width, scale, q,
                           keys, values, static_cast<int>(parts), y, softmaxes.data, sums.data);
  });
  if (parts == 1) return;
  const dim3 joins(static_cast<unsigned>(heads), static_cast<unsigned>(q.rows));
  cuda::launch_following(context, &cuda::step_join<S>, "launch of step_join", joins, dim3(128), 0, position, capacity,
                         static_cast<int>(heads), width, static_cast<int>(parts), softmaxes.data, sums.data, y);
}

/// One decoding step of attention: attention_enter and attention_step, or walk_step. See the host's.
template <class S, AttentionPattern Pattern, AttentionPattern Kept = Pattern>
void attention_decode(Context<Cuda>& context, const Step& at, Index heads, float scale, Rows<const S> q, Rows<const S> k,
                      Rows<const S> v, Rows<float> keys, Rows<float> values, Rows<Token> tokens, Rows<std::int32_t> index,
                      Rows<S> y) {
  if (q.empty()) return;
  const auto frame = context.frame();
  const ResidentStep<Cuda> resident(context, at);
  const DeviceStep& now = *static_cast<const Step&>(resident).device;
  const Index rows = keys.rows / q.rows;
  if constexpr (IntervalPattern<Kept>) {
    attention_enter<S, Pattern>(context, now.position, rows, k, v, now.tokens, keys, values, tokens, index);
    attention_step<S, Kept>(context, cuda::StepIndex{index.width > 0 ? index.data : nullptr, index.stride}, rows, now.position,
                            heads, scale, q, keys, values, y);
  } else {
    walk_step<Pattern, S>(context, {now.position, rows, static_cast<int>(heads), static_cast<int>(q.width / heads), scale, q, k,
                                    v, now.tokens, keys, values, tokens, index, y, false, false});
  }
}

}  // namespace coyote::inline v0

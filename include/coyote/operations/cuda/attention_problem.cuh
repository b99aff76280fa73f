// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/context.cuh"
#include "coyote/operations/cuda/attention_index.cuh"
#include "coyote/operations/dropout.hpp"

namespace coyote::inline v0::cuda {

/// Which probabilities dropout keeps, for kernels: the rule of DropoutRule, whose step may stand in device memory so that a
/// captured graph reads a new one in every replay.
struct DeviceDropout {
  std::uint32_t key_0 = 0, key_1 = 0;
  std::uint32_t threshold = 0;  // in the upper half
  float scale = 1;
  std::uint64_t step = 0;
  const std::uint64_t* device_step = nullptr;

  __device__ bool active() const { return threshold != 0; }
  __device__ std::uint64_t current_step() const { return device_step != nullptr ? *device_step : step; }
  /// The random words of keys 8 * (column / 8) .. + 7; rule_row = row * heads + head, columns are the batch's rows.
  __device__ RandomWords words(std::uint64_t step_now, std::uint64_t rule_row, std::uint64_t column) const {
    const std::uint64_t index = rule_row << 32 | column / 8;
    return philox(RandomWords{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                              static_cast<std::uint32_t>(step_now), static_cast<std::uint32_t>(step_now >> 32)},
                  key_0, key_1);
  }
  /// The factor of one probability: scale or 0.
  __device__ float factor(std::uint64_t step_now, std::uint64_t rule_row, std::uint64_t column) const {
    const std::uint32_t word = words(step_now, rule_row, column)[static_cast<std::uint32_t>(column % 8 / 2)];
    return (column % 2 == 0 ? word << 16 : word) >= threshold ? scale : 0.0f;
  }
};

/// The logarithm of a probability, which rounding may have made positive where scores are large: then 0. NaN stays.
__device__ inline float not_positive(float x) {
  float r;
  asm("min.NaN.f32 %0, %1, 0f00000000;" : "=f"(r) : "f"(x));
  return r;
}

/// One attention: what all its kernels are told.
template <class S>
struct AttentionProblem {
  Sequences sequences;
  DeviceIndex index;
  DeviceDropout dropout;
  std::int32_t heads = 1, width = 0;  // width of a head
  float scale = 1;
  Rows<const S> q, k, v;

  /// By what dropout's rule knows a row of the batch in a head.
  __device__ std::uint64_t rule_row(std::int64_t row, std::int32_t head) const {
    return static_cast<std::uint64_t>(row * heads + head);
  }
};

/// The device pointer to the context's step, where there is one.
template <class C>
const std::uint64_t* device_step_of([[maybe_unused]] C& context) {
  if constexpr (requires { context.device_step(); }) {
    return context.device_step();
  } else {
    return nullptr;
  }
}

template <class S>
AttentionProblem<S> attention_problem(Context<Cuda>& context, const Batch& batch, const DeviceIndex& index, Index heads,
                                      float scale, const AttentionDropout& dropout, Rows<const S> q, Rows<const S> k,
                                      Rows<const S> v) {
  const DropoutRule rule = dropout.rule();
  const auto key = rule.stream().key();
  return {.sequences = sequences_of(batch),
          .index = index,
          .dropout = {.key_0 = key[0],
                      .key_1 = key[1],
                      .threshold = rule.threshold() << 16,
                      .scale = static_cast<float>(rule.scale()),
                      .step = rule.stream().step(),
                      .device_step = device_step_of(context)},
          .heads = static_cast<std::int32_t>(heads),
          .width = static_cast<std::int32_t>(q.width / heads),
          .scale = scale,
          .q = q,
          .k = k,
          .v = v};
}

}  // namespace coyote::inline v0::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/context.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// Where the rows of channel-major activations stand: value t of channel c of sequence s is element
/// begin(s) + c * channel_pitch + t. A plain aggregate for kernels.
struct Lines {
  const std::int32_t* offsets = nullptr;  ///< of the batch's sequences, on the device; absent: all have `length` values
  bool packed = false;                    ///< begin(s) follows from the offsets, on a boundary of 8 values
  std::int32_t sequences = 0;
  std::int32_t length = 0;  ///< of the longest, before `fold`
  std::int32_t fold = 1;    ///< 2: lines are twice as long as their sequences, see Wrap in long_convolution.cuh
  std::int64_t sequence_pitch = 0, channel_pitch = 0;

  __host__ __device__ std::int64_t begin(std::int64_t s) const {
    return packed ? fold * ((offsets[s] & ~7) + 8 * s) : s * sequence_pitch;
  }
  __host__ __device__ std::int32_t size(std::int64_t s) const {
    return fold * (offsets != nullptr ? offsets[s + 1] - offsets[s] : length);
  }
  __host__ __device__ std::int32_t longest() const { return fold * length; }
};

/// The lines of a batch in scratch memory of our own; every line begins on a boundary of 8 values.
struct ScratchLines {
  Lines lines;
  Index elements = 0;  ///< what `width` channels take

  ScratchLines(const Sequences& sequences, Index width, int fold) {
    lines.offsets = sequences.offsets;
    lines.packed = sequences.offsets != nullptr;
    lines.sequences = sequences.sequences;
    lines.length = sequences.length;
    lines.fold = fold;
    if (lines.packed) {
      lines.channel_pitch = round_up(fold * (sequences.rows + 8 * sequences.sequences), 8);
      elements = lines.channel_pitch * width;
    } else {
      lines.channel_pitch = round_up(static_cast<Index>(fold) * sequences.length, 8);
      lines.sequence_pitch = lines.channel_pitch * width;
      elements = lines.sequence_pitch * sequences.sequences;
    }
  }
};

/// Values of either activation type. Kernels of much code take them so and branch once per line: half the code to compile.
struct Values {
  void* data = nullptr;
  bool is_bf16 = false;

  template <class S>
  static Values of(const S* data) {
    return {const_cast<S*>(data), std::is_same_v<S, bf16>};
  }
  Values from(Index element) const {
    return {static_cast<char*>(data) + element * (is_bf16 ? sizeof(bf16) : sizeof(float)), is_bf16};
  }
};

/// A filter in channel-major order: tap t of channel c is data[c * channel_pitch + t], t < count.
struct LineTaps {
  const float* data = nullptr;
  std::int64_t channel_pitch = 0;
  std::int32_t count = 0;
  bool per_sequence = false;  ///< a sequence uses as many taps as it has rows, whatever its lines are
};

/// Where gradients of taps are added: tap t of channel c is data[t * tap_pitch + c * channel_pitch], t < count.
struct TapGradient {
  float* data = nullptr;
  std::int64_t tap_pitch = 0, channel_pitch = 0;
  std::int32_t count = 0;
  TapGradient from(Index channel) const { return {data + channel * channel_pitch, tap_pitch, channel_pitch, count}; }
};

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

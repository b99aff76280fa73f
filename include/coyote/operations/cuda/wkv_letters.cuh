// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>

#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/wkv_sums.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// How the blocks of a team tell each other sums: by letters in device memory, which the second-level cache holds. A letter takes
// about 2 us from one block to another.

/// Sums on their way from a block to others, with the step that they are of in the same access: who finds it has found the sums.
struct WkvLetter {
  uint4 words;

  static constexpr unsigned no_step = 0xffffffffu;

  __device__ unsigned step() const { return words.w; }
  __device__ WkvSums sums() const { return {__uint_as_float(words.x), __uint_as_float(words.y), __uint_as_float(words.z)}; }
  __device__ void write(const WkvSums& sums, unsigned step) {
    asm volatile(
        "{\n.reg .b64 a, b;\n.reg .b128 all;\nmov.b64 a, {%1, %2};\nmov.b64 b, {%3, %4};\nmov.b128 all, {a, b};\n"
        "st.relaxed.gpu.global.b128 [%0], all;\n}" ::"l"(this),
        "r"(__float_as_uint(sums.first)), "r"(__float_as_uint(sums.second)), "r"(__float_as_uint(sums.highest)), "r"(step)
        : "memory");
  }
  /// The letter so many behind this.
  template <int Distance>
  __device__ WkvLetter read() const {
    WkvLetter result;
    asm volatile(
        "{\n.reg .b64 a, b;\n.reg .b128 all;\nld.relaxed.gpu.global.b128 all, [%4 + %5];\nmov.b128 {a, b}, all;\n"
        "mov.b64 {%0, %1}, a;\nmov.b64 {%2, %3}, b;\n}"
        : "=r"(result.words.x), "=r"(result.words.y), "=r"(result.words.z), "=r"(result.words.w)
        : "l"(this), "n"(Distance * static_cast<int>(sizeof(WkvLetter)))
        : "memory");
    return result;
  }
};

/// By all threads of a block, which meet: letters [teams][2][blocks][channels] of earlier launches would be taken for this one's,
/// so that every block clears its own before anybody writes. Gives those of the team.
///
/// Two letters of a block are enough, for even and odd steps, if a block reads all of a step before it writes the next: it writes
/// those of the step after next when it has had everybody's next ones, and each of these was written when the ones of this step
/// had been read.
__device__ inline WkvLetter* begin_letters(WkvLetter* letters, std::int32_t unit, WkvBlock block, int rank, int channels) {
  const int channel = static_cast<int>(threadIdx.x);
  letters += static_cast<std::int64_t>(unit) * 2 * block.team * channels;
  if (channel < channels) {
    for (int i = 0; i < 2; ++i) letters[(i * block.team + rank) * channels + channel].write({}, WkvLetter::no_step);
  }
  cooperative_groups::this_grid().sync();
  return letters;
}
/// Memory for them, in the current frame.
inline WkvLetter* make_letters(Context<Cuda>& context, Index teams, WkvBlock block, int channels) {
  if (block.team == 1) return nullptr;
  return reinterpret_cast<WkvLetter*>(context.make<uint4>(teams, Index{2} * block.team * channels).data);
}

/// Starts kernel(arguments...), which calls `follow`. The blocks of teams are all there at once, and start when all work before
/// has ended.
template <class... Parameters, class... Arguments>
void launch_teams(const Context<Cuda>& context, int team, unsigned blocks, int threads, int shared_memory,
                  void (*kernel)(Parameters...), const Arguments&... arguments) {
  const auto bytes = static_cast<std::size_t>(shared_memory);
  if (team == 1) {
    return launch_following(context, kernel, "launch of wkv", blocks, static_cast<unsigned>(threads), bytes, arguments...);
  }
  COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_memory));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = blocks;
  configuration.blockDim = static_cast<unsigned>(threads);
  configuration.dynamicSmemBytes = bytes;
  configuration.stream = context.stream();
  configuration.attrs = &attribute;
  configuration.numAttrs = 1;
  COYOTE_CUDA_CHECK(cudaLaunchKernelEx(&configuration, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/hopper.cuh"
#include "coyote/operations/cuda/long_convolution_toeplitz.cuh"

/// The Toeplitz products of long_convolution_toeplitz.cuh on Hopper's wgmma, for batches of many equally long lines.
///
/// M = 64 sequences, N columns, operands in shared memory. The copy engine brings 64 x 128 values at a time through a ring of
/// slots. The Toeplitz operand takes 16 bytes per tap: 8 x 8 core matrices in the order of their diagonals; in a tile whose
/// groups of 8 columns are taken in reverse, neighbours along either side are neighbours in memory, so that a descriptor with
/// both strides 128 bytes describes it and the matrix is never expanded. On the diagonal N shrinks with the columns that are
/// left.
///
/// One warp copies, one builds the core matrices of the next channel, and two warpgroups of four warps each own N columns. Blocks
/// are persistent. For the adjoint everything is counted from the end: column p becomes L - 1 - p, and the tile's halves swap.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// N columns per warpgroup, slots of the ring, filters kept at once, blocks per multiprocessor.
struct GroupShape {
  int columns = 128, slots = 4, filters = 2, blocks = 2;
  friend bool operator==(const GroupShape&, const GroupShape&) = default;
};

inline constexpr int group_sequences = 64, slot_columns = 128, slot_bytes = group_sequences * slot_columns * 2;
inline constexpr int group_threads = 320;
/// Core matrices above the diagonal that its tiles reach. The adjoint's tiles keep all N columns: wgmma's accumulators of the
/// columns left there would begin at a register of their own, for which the compiler gives up running products side by side.
template <int N, bool Adjoint>
inline constexpr int zero_matrices = Adjoint ? N / 8 : 3;

/// Core matrices of the filter of lines of `padded` values, in bytes.
template <int N, bool Adjoint>
__host__ __device__ constexpr int core_bytes(int padded) {
  return (padded / 8 + zero_matrices<N, Adjoint>)*128;
}

/// wait_barrier as a loop that the compiler sees: around these accumulators it takes 6 registers less, and nothing spills.
__device__ inline void wait_in_loop(unsigned barrier, unsigned parity) {
  unsigned done = 0;
  while (done == 0) {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  }
}

#define COYOTE_NAMES_16(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15)                             \
  "%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 ", %" #a4 ", %" #a5 ", %" #a6 ", %" #a7 ", %" #a8 ", %" #a9 ", %" #a10 ", %" #a11 \
  ", %" #a12 ", %" #a13 ", %" #a14 ", %" #a15
#define COYOTE_SUMS_16(i)                                                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7]), \
      "+f"(d[i + 8]), "+f"(d[i + 9]), "+f"(d[i + 10]), "+f"(d[i + 11]), "+f"(d[i + 12]), "+f"(d[i + 13]), "+f"(d[i + 14]),    \
      "+f"(d[i + 15])
#define COYOTE_NAMES_0 COYOTE_NAMES_16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define COYOTE_NAMES_1 COYOTE_NAMES_0 ", " COYOTE_NAMES_16(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31)
#define COYOTE_NAMES_2 COYOTE_NAMES_1 ", " COYOTE_NAMES_16(32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47)
#define COYOTE_NAMES_3 COYOTE_NAMES_2 ", " COYOTE_NAMES_16(48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63)
#define COYOTE_NAMES_4 COYOTE_NAMES_3 ", " COYOTE_NAMES_16(64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79)
#define COYOTE_NAMES_5 COYOTE_NAMES_4 ", " COYOTE_NAMES_16(80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95)
#define COYOTE_NAMES_6 \
  COYOTE_NAMES_5 ", " COYOTE_NAMES_16(96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111)
#define COYOTE_NAMES_7 \
  COYOTE_NAMES_6 ", " COYOTE_NAMES_16(112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127)
#define COYOTE_SUMS_0 COYOTE_SUMS_16(0)
#define COYOTE_SUMS_1 COYOTE_SUMS_0, COYOTE_SUMS_16(16)
#define COYOTE_SUMS_2 COYOTE_SUMS_1, COYOTE_SUMS_16(32)
#define COYOTE_SUMS_3 COYOTE_SUMS_2, COYOTE_SUMS_16(48)
#define COYOTE_SUMS_4 COYOTE_SUMS_3, COYOTE_SUMS_16(64)
#define COYOTE_SUMS_5 COYOTE_SUMS_4, COYOTE_SUMS_16(80)
#define COYOTE_SUMS_6 COYOTE_SUMS_5, COYOTE_SUMS_16(96)
#define COYOTE_SUMS_7 COYOTE_SUMS_6, COYOTE_SUMS_16(112)
#define COYOTE_GROUP_MULTIPLY(columns, blocks, left, right)                                                  \
  if constexpr (Columns == columns) {                                                                        \
    asm volatile("{\n.reg .pred p;\nsetp.eq.u32 p, 1, 1;\nwgmma.mma_async.sync.aligned.m64n" #columns        \
                 "k16.f32.bf16.bf16 {" COYOTE_NAMES_##blocks "}, %" #left ", %" #right ", p, 1, 1, 0, 0;\n}" \
                 : COYOTE_SUMS_##blocks                                                                      \
                 : "l"(a), "l"(b));                                                                          \
  }

/// d += a b with a 64 x 16 and b 16 x Columns, both described by shared-memory descriptors; d holds Columns / 2 numbers.
template <int Columns>
__device__ inline void group_multiply_add(float* d, std::uint64_t a, std::uint64_t b) {
  static_assert(Columns % 32 == 0 && 32 <= Columns && Columns <= 256);
  COYOTE_GROUP_MULTIPLY(32, 0, 16, 17)
  COYOTE_GROUP_MULTIPLY(64, 1, 32, 33)
  COYOTE_GROUP_MULTIPLY(96, 2, 48, 49)
  COYOTE_GROUP_MULTIPLY(128, 3, 64, 65)
  COYOTE_GROUP_MULTIPLY(160, 4, 80, 81)
  COYOTE_GROUP_MULTIPLY(192, 5, 96, 97)
  COYOTE_GROUP_MULTIPLY(224, 6, 112, 113)
  COYOTE_GROUP_MULTIPLY(256, 7, 128, 129)
}
#undef COYOTE_GROUP_MULTIPLY
#undef COYOTE_SUMS_7
#undef COYOTE_SUMS_6
#undef COYOTE_SUMS_5
#undef COYOTE_SUMS_4
#undef COYOTE_SUMS_3
#undef COYOTE_SUMS_2
#undef COYOTE_SUMS_1
#undef COYOTE_SUMS_0
#undef COYOTE_NAMES_7
#undef COYOTE_NAMES_6
#undef COYOTE_NAMES_5
#undef COYOTE_NAMES_4
#undef COYOTE_NAMES_3
#undef COYOTE_NAMES_2
#undef COYOTE_NAMES_1
#undef COYOTE_NAMES_0
#undef COYOTE_SUMS_16
#undef COYOTE_NAMES_16

/// Core matrix s, -zero_matrices <= s < padded / 8, holds for column r and row e taps[8 s + r - e], or taps[8 s + e - r] for the
/// adjoint; they stand in descending order of s, or ascending for the adjoint. By one warp.
template <int N, bool Adjoint>
__device__ inline void build_core_matrices(char* to, const float* taps, int count, int padded, int lane) {
  constexpr int zeros = zero_matrices<N, Adjoint>;
#pragma unroll 4
  for (int x = lane - 8 * zeros; x < padded; x += 32) {
    const int s = (x + 8 * zeros) / 8 - zeros, r = x - 8 * s;
    float values[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const int t = Adjoint ? 8 * s + e - r : x - e;
      values[e] = t >= 0 && t < count ? __ldg(taps + t) : 0.0f;
    }
    const int matrix = Adjoint ? s + zeros : padded / 8 - 1 - s;
    *reinterpret_cast<uint4*>(to + matrix * 128 + r * 16) = make_uint4(pack(values[0], values[1]), pack(values[2], values[3]),
                                                                       pack(values[4], values[5]), pack(values[6], values[7]));
  }
}

template <int N, int Slots, int Filters, int Blocks, bool Adjoint>
__global__ void __launch_bounds__(group_threads, Blocks)
    toeplitz_group_kernel(const __grid_constant__ CUtensorMap map, Lines lines, int width, int tiles, LineTaps taps, bf16* y) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int groups = N / 8;  // of 8 columns
  constexpr int diagonal_slots = N / slot_columns;
  extern __shared__ char group_memory[];
  const int length = lines.longest(), padded = (length + 2 * N - 1) / (2 * N) * (2 * N);
  const int pairs = padded / (2 * N), all_slots = padded / slot_columns, filter_bytes = core_bytes<N, Adjoint>(padded);
  const unsigned base = shared_address(group_memory), ring = (base + 1023) / 1024 * 1024;
  char* const filters = group_memory + (ring - base) + Slots * slot_bytes;
  const unsigned full = ring + Slots * slot_bytes + static_cast<unsigned>(Filters * filter_bytes), empty = full + 8 * Slots,
                 filter_full = empty + 8 * Slots, filter_empty = filter_full + 8 * Filters;
  const int thread = static_cast<int>(threadIdx.x), jobs = width * tiles;
  if (thread == 0) {
    for (int i = 0; i < Slots; ++i) {
      init_barrier(full + 8 * i, 1);
      init_barrier(empty + 8 * i, 8);
    }
    for (int i = 0; i < Filters; ++i) {
      init_barrier(filter_full + 8 * i, 32);
      init_barrier(filter_empty + 8 * i, 8);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();

  if (thread >= 288) {  // the builder
    int turn = 0;
    for (int job = static_cast<int>(blockIdx.x); job < jobs; job += static_cast<int>(gridDim.x), ++turn) {
      const int buffer = turn % Filters;
      if (turn >= Filters) wait_in_loop(filter_empty + 8 * buffer, (turn / Filters - 1) & 1);
      build_core_matrices<N, Adjoint>(filters + buffer * filter_bytes, taps.data + job / tiles * taps.channel_pitch, taps.count,
                                      padded, thread - 288);
      fence_async();
      arrive(filter_full + 8 * buffer);
    }
    return;
  }
  if (thread >= 256) {  // the copier
    if (thread > 256) return;
    int turn = 0;
    for (int job = static_cast<int>(blockIdx.x); job < jobs; job += static_cast<int>(gridDim.x)) {
      for (int pair = pairs - 1; pair >= 0; --pair) {
        for (int k = 0; k < 2 * diagonal_slots * (pair + 1); ++k, ++turn) {
          const int slot = turn % Slots;
          if (turn >= Slots) wait_in_loop(empty + 8 * slot, (turn / Slots - 1) & 1);
          arrive_and_expect(full + 8 * slot, slot_bytes);
          const int column = (Adjoint ? all_slots - 1 - k : k) * slot_columns;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            // 64 sequences by 64 columns of one channel.
            copy_box(ring + slot * slot_bytes + half * slot_bytes / 2, map, column + 64 * half, job / tiles,
                     job % tiles * group_sequences, full + 8 * slot);
          }
        }
      }
    }
    return;
  }

  const int group = __shfl_sync(0xFFFFFFFFu, thread / 128, 0), lane = thread % 32, warp = thread / 32 % 4;
  const bool leader = lane == 0;
  int turn = 0, filter_turn = 0, pair_turn = 0;
  for (int job = static_cast<int>(blockIdx.x); job < jobs; job += static_cast<int>(gridDim.x), ++filter_turn) {
    const int buffer = filter_turn % Filters;
    wait_in_loop(filter_full + 8 * buffer, (filter_turn / Filters) & 1);
    const unsigned filter = shared_address(filters + buffer * filter_bytes);
    const int channel = job / tiles, s0 = job % tiles * group_sequences;
    for (int pair = pairs - 1; pair >= 0; --pair, ++pair_turn) {
      // Of a pair of chunks the warpgroups take turns to own the longer one. Counted from the end for the adjoint.
      const int chunk = 2 * pair + (group ^ (pair_turn & 1));
      const int before = chunk * diagonal_slots, slots = 2 * diagonal_slots * (pair + 1);
      const int first_matrix = padded / 8 - (chunk + 1) * groups;
      std::uint64_t right =
          (((filter + (Adjoint ? (chunk * groups - 1 + zero_matrices<N, Adjoint>) : first_matrix) * 128) & 0x3FFFFu) >> 4) |
          std::uint64_t{8} << 16 | std::uint64_t{8} << 32;
      constexpr std::uint64_t left_shape = std::uint64_t{1} << 16 | std::uint64_t{64} << 32 | std::uint64_t{1} << 62;
      float sums[N / 2];
#pragma unroll
      for (int i = 0; i < N / 2; ++i) sums[i] = 0;
      int previous = -1;
      const auto begin_slot = [&](int slot) {
        wait_in_loop(full + 8 * slot, (turn / Slots) & 1);
        begin_products();
        return left_shape | ((ring + slot * slot_bytes) & 0x3FFFFu) >> 4;
      };
      const auto end_slot = [&](int slot) {
        commit_products();
        wait_products<1>();
        if (previous >= 0 && leader) arrive(empty + 8 * previous);
        previous = slot;
        ++turn;
      };
      const auto left_of = [](std::uint64_t slot, int step) {
        const int m = Adjoint ? 7 - step : step;
        return slot + static_cast<std::uint64_t>(m / 4 * 512 + m % 4 * 2);
      };
      constexpr std::uint64_t stride = Adjoint ? std::uint64_t(-16) : 16;
      for (int k = 0; k < before; ++k) {
        const int slot = turn % Slots;
        const std::uint64_t left = begin_slot(slot);
#pragma unroll
        for (int step = 0; step < 8; ++step) {
          group_multiply_add<N>(sums, left_of(left, step), right);
          right += stride;
        }
        end_slot(slot);
      }
      const auto diagonal = [&]<int First>() {
        const int slot = turn % Slots;
        const std::uint64_t left = begin_slot(slot);
        const auto two_steps = [&]<int Step>() {
          constexpr int columns = Adjoint ? N : N - First * slot_columns - 16 * Step;
#pragma unroll
          for (int step = Step; step < Step + 2; ++step) {
            group_multiply_add<columns>(sums, left_of(left, step), right);
            right += stride;
          }
        };
        two_steps.template operator()<0>();
        two_steps.template operator()<2>();
        two_steps.template operator()<4>();
        two_steps.template operator()<6>();
        end_slot(slot);
      };
      diagonal.template operator()<0>();
      if constexpr (diagonal_slots == 2) diagonal.template operator()<1>();
      wait_products<0>();
      pin(sums);
      if (leader) {
        arrive(empty + 8 * previous);
        if (pair == 0) arrive(filter_empty + 8 * buffer);
      }
      for (int k = before + diagonal_slots; k < slots; ++k, ++turn) {  // the other warpgroup's alone
        const int slot = turn % Slots;
        wait_in_loop(full + 8 * slot, (turn / Slots) & 1);
        if (leader) arrive(empty + 8 * slot);
      }

      const int column0 = Adjoint ? padded - (chunk + 1) * N : chunk * N;
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const int s = s0 + warp * 16 + upper * 8 + lane / 4;
        bf16* const line = y + s * lines.sequence_pitch + channel * lines.channel_pitch;
#pragma unroll
        for (int g = 0; g < groups / 4; ++g) {
          unsigned words[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int reversed = groups - 1 - (4 * g + i);
            words[i] = pack(sums[4 * reversed + 2 * upper], sums[4 * reversed + 2 * upper + 1]);
          }
          transpose_quad(words, lane % 4);
          const int column = column0 + (4 * g + lane % 4) * 8;
          if (s < lines.sequences && column < length)
            store_8(line + column, make_uint4(words[0], words[1], words[2], words[3]), length - column);
        }
      }
    }
  }
#endif
}

/// The longest lines that wgmma takes over from transforms.
inline constexpr Index longest_group_toeplitz = 2048;

/// Lines that the copy engine can read: equally long, on boundaries of 16 bytes; and enough sequences to fill its 64 rows.
inline bool suits_groups(const Context<Cuda>& context, const Lines& lines, const bf16* x) {
  return context.limits().is_hopper() && lines.offsets == nullptr && lines.sequences > 32 && lines.longest() > 128 &&
         lines.longest() <= longest_group_toeplitz && reinterpret_cast<std::uintptr_t>(x) % 16 == 0 &&
         lines.channel_pitch % 8 == 0 && lines.sequence_pitch % 8 == 0;
}

inline CUtensorMap line_map(const Lines& lines, Index width, const bf16* x) {
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(lines.longest()), static_cast<cuuint64_t>(width),
                               static_cast<cuuint64_t>(lines.sequences)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(2 * lines.channel_pitch),
                                 static_cast<cuuint64_t>(2 * lines.sequence_pitch)};
  const cuuint32_t box[3] = {64, 1, group_sequences};
  return tensor_map(x, sizes, strides, box);
}

constexpr GroupShape group_shape(Index longest) {
  if (longest <= 1024) return {128, 4, 2, 2};
  return {256, 9, 2, 1};
}

/// toeplitz_convolve for lines that suit. y must not be x: a block's columns are read by others. A template so that only those
/// who call it compile it.
template <class S>
void toeplitz_group_convolve(Context<Cuda>& context, const Lines& lines, Index width, const S* x, const LineTaps& taps, S* y,
                             bool adjoint) {
  const CUtensorMap map = line_map(lines, width, x);
  const int tiles = static_cast<int>(ceil_div(lines.sequences, group_sequences));
  const auto launch = [&]<int N, int Slots, int Filters, int Blocks, bool Adjoint>() {
    auto* const kernel = toeplitz_group_kernel<N, Slots, Filters, Blocks, Adjoint>;
    const int padded = static_cast<int>(round_up(lines.longest(), 2 * N));
    const int bytes = 1024 + Slots * slot_bytes + Filters * core_bytes<N, Adjoint>(padded) + 16 * (Slots + Filters);
    COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const Index blocks = std::min<Index>(width * tiles, Blocks * context.limits().multiprocessors);
    kernel<<<static_cast<unsigned>(blocks), group_threads, bytes, context.stream()>>>(map, lines, static_cast<int>(width), tiles,
                                                                                      taps, y);
    COYOTE_CUDA_CHECK_LAUNCH("toeplitz_group_kernel");
  };
  const auto launch_shape = [&]<bool Adjoint>() {
    const GroupShape shape = group_shape(lines.longest());
    if (shape == GroupShape{128, 4, 2, 2}) launch.template operator()<128, 4, 2, 2, Adjoint>();
    if (shape == GroupShape{256, 9, 2, 1}) launch.template operator()<256, 9, 2, 1, Adjoint>();
  };
  if (adjoint) {
    launch_shape.template operator()<true>();
  } else {
    launch_shape.template operator()<false>();
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

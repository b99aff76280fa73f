// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/context.cuh"
#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/mma_tiles.cuh"
#include "coyote/operations/cuda/pack.cuh"

// Linear maps so narrow that a tile of whole rows and all weights lie in shared memory: bf16, up to 128 channels, or three times
// 64 outputs. In and Out are widths filled up with zeros.

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// Calls use(In, Out), constants that hold the widths of a map, when it is a narrow one; says whether it is.
template <class Use>
bool with_narrow_widths(Index in, Index out, Use&& use) {
  const auto with = [&]<int In, int Out>() {
    use(std::integral_constant<int, In>{}, std::integral_constant<int, Out>{});
    return true;
  };
  if (in <= 64) {
    if (out <= 64) return with.template operator()<64, 64>();
    if (out <= 128) return with.template operator()<64, 128>();
    if (out <= 192) return with.template operator()<64, 192>();
  } else if (in <= 128) {
    if (out <= 64) return with.template operator()<128, 64>();
    if (out <= 128) return with.template operator()<128, 128>();
  }
  return false;
}

/// Are all rows of a view whole chunks of 16 bytes? An absent one's are.
inline bool lies_in_chunks(Rows<const bf16> view) { return reads_packs<8>(view) && view.stride % 8 == 0 && view.width % 8 == 0; }

/// Starts copying rows first .. first + Count - 1 of a matrix, row r to place(r), which keeps to its 32 rows; what does not exist
/// becomes 0. Threads go side by side through 64 columns, down the rows, and then to the next columns: all of a thread's
/// addresses differ by constants.
template <int Width, int Count, int Threads, class Place>
__device__ void copy_rows(Tile<Width> tile, Rows<const bf16> from, Index first, Place&& place) {
  constexpr int together = Threads / 8;
  static_assert(together % 32 == 0 && Count % together == 0);
  const int row = threadIdx.x / 8, chunk = threadIdx.x % 8;
  const std::uint32_t to = tile.at(place(row), chunk);
  const bf16* const source = from.row(first + row) + 8 * chunk;
#pragma unroll
  for (int i = 0; i < Count; i += together) {
#pragma unroll
    for (int c = 0; c < Width; c += 64) {
      const bool exists = first + row + i < from.rows && c + 8 * chunk < from.width;
      copy_16_bytes(to + i * Tile<Width>::row_bytes + 2 * c, exists ? source + i * from.stride + c : from.data, exists);
    }
  }
}

/// Where a row or column of the weights stands, so that a lane's accumulators of four neighbouring products of 8 columns, columns
/// 2 t and 2 t + 1 of each, are columns 8 t .. 8 t + 7 of the result: 16 bytes.
__device__ inline int narrow_weight_place(int number) {
  const int within = number % 32;
  return number - within + within % 8 / 2 * 8 + within / 8 * 2 + within % 2;
}

struct NarrowProduct {
  Rows<const bf16> x, weight;
  const bf16* bias;  // absent when nullptr
  Rows<const bf16> skip;
  Rows<bf16> y;
};

template <int In, int Out>
struct NarrowProductTiling {
  static constexpr int rows = 128, threads = 256, bytes = 2 * (rows * In + In * Out);
};

/// Copies the weights to a tile, each column to its narrow_weight_place: 16 bytes go, 4 by 4, to four neighbouring chunks. All
/// reads are under way before the first word is stored.
template <int In, int Out, int Threads>
__device__ void copy_weights(Tile<Out> tile, Rows<const bf16> weight) {
  constexpr int together = Threads / 8;
  const int row = threadIdx.x / 8, chunk = threadIdx.x % 8;
  uint4 words[In / together][Out / 64];
#pragma unroll
  for (int i = 0; i < In / together; ++i) {
#pragma unroll
    for (int c = 0; c < Out / 64; ++c) {
      const int k = row + together * i, column = 64 * c + 8 * chunk;
      const bool exists = k < weight.rows && column < weight.width;
      words[i][c] = exists ? *reinterpret_cast<const uint4*>(weight.row(k) + column) : uint4{};
    }
  }
#pragma unroll
  for (int i = 0; i < In / together; ++i) {
#pragma unroll
    for (int c = 0; c < Out / 64; ++c) {
      const std::uint32_t pairs[4] = {words[i][c].x, words[i][c].y, words[i][c].z, words[i][c].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const std::uint32_t to = tile.at(row + together * i, 8 * c + chunk / 4 * 4 + j) + chunk % 4 * 4;
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(pairs[j]) : "memory");
      }
    }
  }
}

/// A block has 128 rows, a warp 16 of them and all columns, 32 at a time.
template <int In, int Out>
__global__ void __launch_bounds__(NarrowProductTiling<In, Out>::threads) narrow_product_kernel(NarrowProduct p) {
  constexpr int rows = NarrowProductTiling<In, Out>::rows, threads = NarrowProductTiling<In, Out>::threads;
  extern __shared__ __align__(128) std::byte narrow_memory[];
  follow();
  const Tile<In> x{shared_address(narrow_memory)};
  const Tile<Out> weight{x.address + 2 * rows * In};
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  const Index first = Index{blockIdx.x} * rows;
  copy_rows<In, rows, threads>(x, p.x, first, [](int r) { return r; });
  commit_copies();
  copy_weights<In, Out, threads>(weight, p.weight);
  wait_copies<0>();
  __syncthreads();
  std::uint32_t left[In / 16][4];
#pragma unroll
  for (int k = 0; k < In / 16; ++k) x.left(left[k], row, k);
#pragma unroll
  for (int q = 0; q < Out / 32; ++q) {
    float sums[4][4];
    clear(sums);
#pragma unroll
    for (int k = 0; k < In / 16; ++k) {
#pragma unroll
      for (int n = 0; n < 4; n += 2) {
        std::uint32_t right[4];
        weight.right(right, 16 * k, 2 * q + n / 2);
        multiply_add(sums[n], left[k], right[0], right[1]);
        multiply_add(sums[n + 1], left[k], right[2], right[3]);
      }
    }
    const int c = 32 * q + lane % 4 * 8;
    if (c >= p.y.width) continue;
    const Pack<8> bias = p.bias != nullptr ? load<8>(p.bias + c) : make_pack<8>([](int) { return 0.0f; });
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const Index i = first + row + lane / 4 + 8 * lower;
      if (i >= p.y.rows) continue;
      const Pack<8> skip = p.skip.rows > 0 ? load<8>(p.skip.row(i) + c) : make_pack<8>([](int) { return 0.0f; });
      store<8>(p.y.row(i) + c, make_pack<8>([&](int e) { return sums[e / 2][2 * lower + e % 2] + bias[e] + skip[e]; }));
    }
  }
}

/// y = x weight (+ bias, unless nullptr) (+ skip, unless absent). False, and nothing done, when the map is too wide or does not
/// lie on boundaries of 16 bytes. 2 rows in out flop; bytes: x, y, and the weights once per 128 rows.
/// S is bf16; a template so that only those who call it compile it.
template <class S>
bool narrow_product(Context<Cuda>& context, Rows<const S> x, Rows<const S> weight, const S* bias, Rows<const S> skip, Rows<S> y) {
  if (!lies_in_chunks(x) || !lies_in_chunks(weight) || !lies_in_chunks(y) || !lies_in_chunks(skip)) return false;
  return with_narrow_widths(x.width, y.width, [&](auto in, auto out) {
    using Tiling = NarrowProductTiling<in(), out()>;
    const auto kernel = narrow_product_kernel<in(), out()>;
    launch_following(context, kernel, "launch of narrow_product", static_cast<unsigned>(ceil_div(x.rows, Index{Tiling::rows})),
                     Tiling::threads, Tiling::bytes, NarrowProduct{x, weight, bias, skip, y});
  });
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <optional>

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/cuda/mma_tiles.cuh"

// The gradients of a narrow linear map, all of them from one pass over x and dy. Apart, as products and sums, they read dy three
// times and x once in five kernels, each of which takes as long to start as its bytes take to come.

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// What the kernel reads and writes. partial [blocks, in out + out or in out]: what each block has for dweight, row by row, and
/// for dbias.
struct NarrowGradients {
  Rows<const bf16> x, weight, dy;
  Rows<bf16> dx;  // absent when nobody wants it
  bool adds;
  Rows<float> partial;
};

/// Tiles of 64 rows, as many under way as blocks have room for; in and out are widths filled up with zeros.
template <int In, int Out>
struct NarrowTiling {
  static constexpr int rows = 64, threads = 256;
  static constexpr int stages = In + Out <= 128 ? 4 : In + Out <= 192 ? 3 : 2;
  static constexpr int stage_bytes = 2 * rows * (In + Out), bytes = stages * stage_bytes + 2 * In * Out;
};

/// Starts copying rows first .. first + Count - 1 of a matrix, row r to place(r); what does not exist becomes 0.
template <int Width, int Count, int Threads, class Place>
__device__ void copy_rows(Tile<Width> tile, Rows<const bf16> from, Index first, Place&& place) {
  constexpr int chunks = Tile<Width>::chunks;
#pragma unroll
  for (int n = threadIdx.x; n < Count * chunks; n += Threads) {
    const int row = n / chunks, chunk = n % chunks;
    const bool exists = first + row < from.rows && 8 * chunk < from.width;
    copy_16_bytes(tile.at(place(row), chunk), exists ? from.row(first + row) + 8 * chunk : from.data, exists);
  }
}

/// Eight warps: two halves of dweight's rows by four quarters of its columns, and four times 16 rows of dx by two halves of its
/// columns. The sums for dbias are a product with rows of ones.
template <int In, int Out>
__global__ void __launch_bounds__(NarrowTiling<In, Out>::threads) narrow_gradients_kernel(NarrowGradients g) {
  using Tiling = NarrowTiling<In, Out>;
  constexpr int rows = Tiling::rows, threads = Tiling::threads, stages = Tiling::stages;
  extern __shared__ __align__(128) unsigned char memory[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const std::uint32_t base = shared_address(memory);
  const Tile<Out> weight{base + stages * Tiling::stage_bytes};
  const auto x_tile = [&](int stage) { return Tile<In>{base + static_cast<std::uint32_t>(stage * Tiling::stage_bytes)}; };
  const auto dy_tile = [&](int stage) { return Tile<Out>{x_tile(stage).address + 2 * rows * In}; };
  const bool wants_dx = g.dx.rows > 0;

  // A lane's accumulators of four neighbouring products of 8 columns are columns 2 t + {0, 1} of each. With the rows of the
  // weights in this order they are columns 8 t .. 8 t + 7 of dx: 16 bytes.
  if (wants_dx) {
    copy_rows<Out, In, threads>(weight, g.weight, 0, [](int row) {
      const int within = row % 32;
      return row - within + within % 8 / 2 * 8 + within / 8 * 2 + within % 2;
    });
  }
  const Index tiles = (g.x.rows + rows - 1) / rows, step = gridDim.x;
  const auto copy = [&](Index tile, int stage) {
    if (tile < tiles) {
      const auto same = [](int row) { return row; };
      copy_rows<In, rows, threads>(x_tile(stage), g.x, tile * rows, same);
      copy_rows<Out, rows, threads>(dy_tile(stage), g.dy, tile * rows, same);
    }
    commit_copies();
  };
#pragma unroll
  for (int s = 0; s < stages - 1; ++s) copy(blockIdx.x + s * step, s);

  const int half = warp % 2, quarter = warp / 2;
  float products[In / 32][Out / 32][4], sums[Out / 32][4];
#pragma unroll
  for (int m = 0; m < In / 32; ++m) clear(products[m]);
  clear(sums);
  int stage = 0;
  for (Index tile = blockIdx.x; tile < tiles; tile += step) {
    wait_copies<stages - 2>();
    __syncthreads();
    copy(tile + (stages - 1) * step, stage == 0 ? stages - 1 : stage - 1);
    const Tile<In> x = x_tile(stage);
    const Tile<Out> dy = dy_tile(stage);
    if (++stage == stages) stage = 0;
#pragma unroll
    for (int k = 0; k < rows; k += 16) {
      std::uint32_t left[In / 32][4];
#pragma unroll
      for (int m = 0; m < In / 32; ++m) x.left_transposed(left[m], k, half * (In / 32) + m);
#pragma unroll
      for (int n = 0; n < Out / 32; n += 2) {
        std::uint32_t right[4];
        dy.right(right, k, quarter * (Out / 64) + n / 2);
#pragma unroll
        for (int m = 0; m < In / 32; ++m) {
          multiply_add(products[m][n], left[m], right[0], right[1]);
          multiply_add(products[m][n + 1], left[m], right[2], right[3]);
        }
        if (half == 0) {
          constexpr std::uint32_t one = 0x3F803F80;
          constexpr std::uint32_t ones[4] = {one, one, one, one};
          multiply_add(sums[n], ones, right[0], right[1]);
          multiply_add(sums[n + 1], ones, right[2], right[3]);
        }
      }
    }
    if (!wants_dx) continue;
    const int row = warp % 4 * 16, column = warp / 4 * (In / 2);
    float dx[In / 64][4][4];
#pragma unroll
    for (int q = 0; q < In / 64; ++q) clear(dx[q]);
#pragma unroll
    for (int k = 0; k < Out / 16; ++k) {
      std::uint32_t left[4];
      dy.left(left, row, k);
#pragma unroll
      for (int q = 0; q < In / 64; ++q) {
#pragma unroll
        for (int n = 0; n < 4; n += 2) {
          std::uint32_t right[4];
          weight.right_transposed(right, column + 32 * q + 8 * n, k);
          multiply_add(dx[q][n], left, right[0], right[1]);
          multiply_add(dx[q][n + 1], left, right[2], right[3]);
        }
      }
    }
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const Index i = tile * rows + row + lane / 4 + 8 * lower;
      if (i >= g.dx.rows) continue;
#pragma unroll
      for (int q = 0; q < In / 64; ++q) {
        const int c = column + 32 * q + lane % 4 * 8;
        if (c >= g.dx.width) continue;
        bf16* const to = g.dx.row(i) + c;
        Pack<8> values = make_pack<8>([&](int e) { return dx[q][e / 2][2 * lower + e % 2]; });
        if (g.adds) {
          const Pack<8> before = load<8>(static_cast<const bf16*>(to));
#pragma unroll
          for (int e = 0; e < 8; ++e) values[e] += before[e];
        }
        store<8>(to, values);
      }
    }
  }

  const auto in = static_cast<int>(g.x.width), out = static_cast<int>(g.dy.width);
  float* const partial = g.partial.row(blockIdx.x);
#pragma unroll
  for (int n = 0; n < Out / 32; ++n) {
    const int c = quarter * (Out / 4) + 8 * n + lane % 4 * 2;
    if (c >= out) continue;
#pragma unroll
    for (int m = 0; m < In / 32; ++m) {
#pragma unroll
      for (int lower = 0; lower < 2; ++lower) {
        const int i = half * (In / 2) + 16 * m + lane / 4 + 8 * lower;
        if (i < in) {
          *reinterpret_cast<float2*>(partial + i * out + c) = {products[m][n][2 * lower], products[m][n][2 * lower + 1]};
        }
      }
    }
    if (half == 0 && lane < 4 && g.partial.width > in * out) {
      *reinterpret_cast<float2*>(partial + in * out + c) = {sums[n][0], sums[n][1]};
    }
  }
}

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

/// dx (=|+=) dy weight^T, unless absent; dweight += x^T dy; dbias += the sum of dy, unless absent. False, and nothing done, when
/// the map is too wide for one pass or does not lie on boundaries of 16 bytes.
/// 4 rows in out flop; bytes: x, dy, dx, and in out floats for each multiprocessor.
inline bool narrow_gradients(Context<Cuda>& context, Rows<const bf16> x, Rows<const bf16> weight, Rows<const bf16> dy,
                             Rows<bf16> dx, Write write, Rows<float> dweight, Rows<float> dbias) {
  const auto fits = [](auto view) { return reads_packs<8>(view) && view.stride % 8 == 0 && view.width % 8 == 0; };
  if (write == Write::none) dx = {};
  if (!fits(x) || !fits(dy) || !fits(dx) || (dx.rows > 0 && !fits(weight))) return false;
  bool done = false;
  with_narrow_widths(x.width, dy.width, [&](auto in, auto out) {
    using Tiling = NarrowTiling<in(), out()>;
    if (Tiling::bytes > context.limits().shared_memory) return;
    const auto frame = context.frame();
    const Index blocks = std::min<Index>(ceil_div(x.rows, Index{Tiling::rows}), context.limits().multiprocessors);
    const Rows<float> partial = context.make<float>(blocks, x.width * dy.width + dbias.width);
    const auto kernel = narrow_gradients_kernel<in(), out()>;
    COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tiling::bytes));
    kernel<<<static_cast<unsigned>(blocks), Tiling::threads, Tiling::bytes, context.stream()>>>(
        {x, weight, dy, dx, write == Write::add, partial});
    COYOTE_CUDA_CHECK_LAUNCH("narrow_gradients");
    add_column_sums(context, partial, dweight, dbias);
    done = true;
  });
  return done;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

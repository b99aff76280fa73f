// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/cuda/narrow_product.cuh"

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

/// One block of 16 warps for each multiprocessor, so that there are as few partial sums as can be, and all tiles on their way
/// that have room. In and Out are widths filled up with zeros.
template <int In, int Out>
struct NarrowTiling {
  static constexpr int rows = 128, threads = 512;
  static constexpr int stages = In + Out <= 192 ? 3 : 2;
  static constexpr int stage_bytes = 2 * rows * (In + Out), bytes = stages * stage_bytes + 2 * In * Out;
};

/// A warp's part of dweight = x^T dy, a quarter of its rows by a quarter of its columns, and of dbias, whose columns of four
/// warps' common quarter take turns over those: a product with rows of ones.
template <int In, int Out>
struct NarrowProducts {
  static constexpr int m = In / 64, n = Out / 32, turns = (n + 3) / 4;
  float products[m][n][4], sums[turns][4];
  int down = threadIdx.x / 32 % 4, across = threadIdx.x / 128;

  __device__ NarrowProducts() {
#pragma unroll
    for (int i = 0; i < m; ++i) clear(products[i]);
    clear(sums);
  }
  template <int Rows>
  __device__ void add(Tile<In> x, Tile<Out> dy) {
    std::uint32_t left[2][m][4], right[2][n / 2][4];
    const auto load = [&](int k) {
#pragma unroll
      for (int i = 0; i < m; ++i) x.left_transposed(left[k % 2][i], 16 * k, down * m + i);
#pragma unroll
      for (int j = 0; j < n / 2; ++j) dy.right(right[k % 2][j], 16 * k, across * (n / 2) + j);
    };
    load(0);
#pragma unroll
    for (int k = 0; k < Rows / 16; ++k) {
      if (k + 1 < Rows / 16) load(k + 1);
#pragma unroll
      for (int j = 0; j < n; ++j) {
        const std::uint32_t *const b = right[k % 2][j / 2] + j % 2 * 2, one = 0x3F803F80;
#pragma unroll
        for (int i = 0; i < m; ++i) multiply_add(products[i][j], left[k % 2][i], b[0], b[1]);
        if (j % 4 == down) multiply_add(sums[j / 4], {one, one, one, one}, b[0], b[1]);
      }
    }
  }
  /// Leaves what exists of it, dweight row by row and then dbias.
  __device__ void store(int in, int out, bool wants_sums, float* to) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const int c = across * (Out / 4) + 8 * j + lane % 4 * 2;
      if (c >= out) continue;
#pragma unroll
      for (int i = 0; i < 2 * m; ++i) {
        const int row = down * (In / 4) + 8 * i + lane / 4;
        const float* const pair = products[i / 2][j] + i % 2 * 2;
        if (row < in) *reinterpret_cast<float2*>(to + row * out + c) = {pair[0], pair[1]};
      }
      if (wants_sums && j % 4 == down && lane < 4)
        *reinterpret_cast<float2*>(to + in * out + c) = {sums[j / 4][0], sums[j / 4][1]};
    }
  }
};

/// dx (=|+=) dy weight^T for a tile: a warp has 16 rows and half of the columns.
template <int In, int Out>
__device__ void narrow_errors(Tile<Out> dy, Tile<Out> weight, Index first, Rows<bf16> dx, bool adds) {
  constexpr int groups = In / 64;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 8 * 16, column = threadIdx.x / 256 * (In / 2);
  float sums[4 * groups][4];
  clear(sums);
  std::uint32_t left[2][4], right[2][2 * groups][4];
  const auto load = [&](int k) {
    dy.left(left[k % 2], row, k);
#pragma unroll
    for (int j = 0; j < 2 * groups; ++j) weight.right_transposed(right[k % 2][j], column + 16 * j, k);
  };
  load(0);
#pragma unroll
  for (int k = 0; k < Out / 16; ++k) {
    if (k + 1 < Out / 16) load(k + 1);
#pragma unroll
    for (int j = 0; j < 4 * groups; ++j) {
      const std::uint32_t* const b = right[k % 2][j / 2] + j % 2 * 2;
      multiply_add(sums[j], left[k % 2], b[0], b[1]);
    }
  }
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    const Index i = first + row + lane / 4 + 8 * lower;
    if (i >= dx.rows) continue;
#pragma unroll
    for (int q = 0; q < groups; ++q) {
      const int c = column + 32 * q + lane % 4 * 8;
      if (c >= dx.width) continue;
      bf16* const to = dx.row(i) + c;
      Pack<8> values = make_pack<8>([&](int e) { return sums[4 * q + e / 2][2 * lower + e % 2]; });
      if (adds) {
        const Pack<8> before = cuda::load<8>(static_cast<const bf16*>(to));
#pragma unroll
        for (int e = 0; e < 8; ++e) values[e] += before[e];
      }
      store<8>(to, values);
    }
  }
}

template <int In, int Out>
__global__ void __launch_bounds__(NarrowTiling<In, Out>::threads) narrow_gradients_kernel(NarrowGradients g) {
  using Tiling = NarrowTiling<In, Out>;
  constexpr int rows = Tiling::rows, threads = Tiling::threads, stages = Tiling::stages;
  extern __shared__ __align__(128) std::byte narrow_memory[];
  follow();
  const std::uint32_t base = shared_address(narrow_memory);
  const Tile<Out> weight{base + stages * Tiling::stage_bytes};
  const auto x_tile = [&](int stage) { return Tile<In>{base + static_cast<std::uint32_t>(stage * Tiling::stage_bytes)}; };
  const auto dy_tile = [&](int stage) { return Tile<Out>{x_tile(stage).address + 2 * rows * In}; };
  const auto tiles = static_cast<int>((g.x.rows + rows - 1) / rows), step = static_cast<int>(gridDim.x);
  const auto copy = [&](int tile, int stage) {
    if (tile < tiles) {
      const auto same = [](int row) { return row; };
      copy_rows<In, rows, threads>(x_tile(stage), g.x, Index{tile} * rows, same);
      copy_rows<Out, rows, threads>(dy_tile(stage), g.dy, Index{tile} * rows, same);
    }
    commit_copies();
  };
  if (g.dx.rows > 0) copy_rows<Out, In, threads>(weight, g.weight, 0, narrow_weight_place);
#pragma unroll 1
  for (int s = 0; s < stages; ++s) copy(static_cast<int>(blockIdx.x) + s * step, s);

  NarrowProducts<In, Out> products;
  int stage = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += step) {
    wait_copies<stages - 1>();
    __syncthreads();
    const Tile<Out> dy = dy_tile(stage);
    products.template add<rows>(x_tile(stage), dy);
    if (g.dx.rows > 0) narrow_errors<In, Out>(dy, weight, Index{tile} * rows, g.dx, g.adds);
    __syncthreads();
    copy(tile + stages * step, stage);
    stage = stage + 1 == stages ? 0 : stage + 1;
  }
  const auto in = static_cast<int>(g.x.width), out = static_cast<int>(g.dy.width);
  products.store(in, out, g.partial.width > in * out, g.partial.row(blockIdx.x));
}

/// dx (=|+=) dy weight^T, unless absent; dweight += x^T dy; dbias += the sum of dy, unless absent. False, and nothing done, when
/// the map is too wide for one pass or does not lie on boundaries of 16 bytes.
/// 4 rows in out flop; bytes: x, dy, dx, and in out floats for each multiprocessor.
/// S is bf16; a template so that only those who call it compile it.
template <class S>
bool narrow_gradients(Context<Cuda>& context, Rows<const S> x, Rows<const S> weight, Rows<const S> dy, Rows<S> dx, Write write,
                      Rows<float> dweight, Rows<float> dbias) {
  if (write == Write::none) dx = {};
  if (!lies_in_chunks(x) || !lies_in_chunks(dy) || !lies_in_chunks(dx) || (dx.rows > 0 && !lies_in_chunks(weight))) return false;
  bool done = false;
  with_narrow_widths(x.width, dy.width, [&](auto in, auto out) {
    using Tiling = NarrowTiling<in(), out()>;
    if (Tiling::bytes > context.limits().shared_memory) return;
    const auto frame = context.frame();
    const Index blocks = std::min<Index>(ceil_div(x.rows, Index{Tiling::rows}), context.limits().multiprocessors);
    const PartialSums partial = context.make_partial_sums(blocks, x.width * dy.width + dbias.width);
    const auto kernel = narrow_gradients_kernel<in(), out()>;
    launch_following(context, kernel, "launch of narrow_gradients", static_cast<unsigned>(blocks), Tiling::threads, Tiling::bytes,
                     NarrowGradients{x, weight, dy, dx, write == Write::add, partial.rows});
    add_column_sums(context, partial, dweight, dbias);
    done = true;
  });
  return done;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

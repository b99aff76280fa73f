// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/mma_tiles.cuh"
#include "coyote/operations/cuda/pack.cuh"
#include "coyote/operations/cuda/product.cuh"
#include "coyote/operations/norm.hpp"

namespace coyote::inline v0::cuda {

// Products of the few rows that decoding makes, in bf16: bound by how long one thing waits for another, not by bytes or flops.
// A block has 8 or 16 rows and 32 columns, and its warps share the depth, so that a thread has all its reads under way at once
// and the weights straight from memory in the registers of mma.m16n8k16, of which they are the left operand. Settled weights are
// read before the kernel waits for its input; a norm in front is applied to the rows in registers, by every block for itself;
// what comes behind (bias, gate, convolution, recurrence) is an epilogue.

/// Up to so many rows.
inline constexpr Index most_step_rows = 64;

/// One of the maps with which a block makes an output: x [rows, depth] times weight.
struct StepMap {
  Rows<const bf16> x;
  Operand<bf16> weight;
};
template <int Maps>
struct StepProblem {
  StepMap maps[Maps];
  Index columns;
  bool is_settled;       ///< the weights, and what the epilogue's `prepare` reads, are
  NormRule<float> norm;  ///< of x, for kernels that have one
};

inline namespace COYOTE_CUDA_ARCHITECTURES {

inline constexpr int step_columns = 32, step_depth_warps = 8, step_chunk = 32;

/// How many blocks a multiprocessor has room for.
template <int Maps>
inline constexpr int blocks_at_once = Maps == 1 ? 2 : 1;

/// What the epilogue is told of a row's norm.
struct RowStatistics {
  float mean = 0, inverse = 1;
};

/// A lane 4 g + t holds, of two chunks of 32 of the depth, the weights of 8 neighbours from 8 t on: for four columns, 4 g and on,
/// where rows lie contiguous, or else g, g + 8, g + 16 and g + 24. A product of 16 takes four of the eight in any order, as long
/// as both operands have the same.
template <bool ByRows>
struct StepWeights {
  std::uint32_t words[2][16];

  __device__ void read(const Operand<bf16>& weight, Index depth, Index columns, Index first_column, int chunk) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Index k = Index{step_chunk} * (chunk + step_depth_warps * i) + 8 * t;
      if constexpr (ByRows) {
        const Index column = first_column + 4 * g;
        const bool exists = k < depth && column < columns;
        const bf16* from = weight.data + k * weight.down + column;
#pragma unroll
        for (int r = 0; r < 8; ++r) {
          const uint2 pair = exists ? *reinterpret_cast<const uint2*>(from + r * weight.down) : uint2{};
          words[i][2 * r] = pair.x;
          words[i][2 * r + 1] = pair.y;
        }
      } else {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const Index column = first_column + 8 * n + g;
          const uint4 four =
              k < depth && column < columns ? *reinterpret_cast<const uint4*>(weight.data + column * weight.across + k) : uint4{};
          words[i][4 * n] = four.x;
          words[i][4 * n + 1] = four.y;
          words[i][4 * n + 2] = four.z;
          words[i][4 * n + 3] = four.w;
        }
      }
    }
  }
  /// Half s of chunk i, for the columns of `tile`.
  __device__ void left(std::uint32_t (&a)[4], int i, int s, int tile) const {
    if constexpr (ByRows) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t k = words[i][2 * (4 * s + 2 * half) + tile], next = words[i][2 * (4 * s + 2 * half + 1) + tile];
        a[2 * half] = __byte_perm(k, next, 0x5410);
        a[2 * half + 1] = __byte_perm(k, next, 0x7632);
      }
    } else {
#pragma unroll
      for (int n = 0; n < 4; ++n) a[n] = words[i][4 * (2 * tile + n % 2) + 2 * s + n / 2];
    }
  }
  /// The columns of a tile that rows g and g + 8 of its left operand are.
  __device__ static int column(int tile, bool lower) {
    const int g = threadIdx.x % 32 / 4;
    return ByRows ? 4 * g + 2 * tile + lower : 16 * tile + 8 * lower + g;
  }
};

/// The rows of a block's input that a lane holds: of row g of each tile, the 8 neighbours that it has of the weights' depth.
template <int Tiles>
struct StepRows {
  uint4 words[2][Tiles];

  __device__ void read(Rows<const bf16> x, Index first_row, int chunk) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Index k = Index{step_chunk} * (chunk + step_depth_warps * i) + 8 * t;
#pragma unroll
      for (int n = 0; n < Tiles; ++n) {
        const Index row = first_row + 8 * n + g;
        words[i][n] = k < x.width && row < x.rows ? *reinterpret_cast<const uint4*>(x.row(row) + k) : uint4{};
      }
    }
  }
  __device__ Pack<8> floats(int i, int n) const {
    const std::uint32_t w[4] = {words[i][n].x, words[i][n].y, words[i][n].z, words[i][n].w};
    return make_pack<8>([&](int e) { return __uint_as_float(e % 2 == 0 ? w[e / 2] << 16 : w[e / 2] & 0xffff0000u); });
  }
  __device__ void set(int i, int n, const Pack<8>& x) {
    words[i][n] = {pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])};
  }
  __device__ std::uint32_t word(int i, int n, int at) const {
    return at == 0 ? words[i][n].x : at == 1 ? words[i][n].y : at == 2 ? words[i][n].z : words[i][n].w;
  }
};

/// Scale and shift of a norm where a lane holds input.
struct StepNorm {
  Pack<8> scale[2], shift[2];

  __device__ void read(const NormRule<float>& norm, Index depth, int chunk) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Index k = Index{step_chunk} * (chunk + step_depth_warps * i) + 8 * (threadIdx.x % 4);
      const auto none = make_pack<8>([](int) { return 0.0f; });
      scale[i] = k < depth ? load<8>(norm.scale.data + k) : none;
      shift[i] = k < depth && norm.shift.rows > 0 ? load<8>(norm.shift.data + k) : none;
    }
  }
};

/// Adds up what lanes have of the rows g of each tile over the lanes and warps that hold them, for all of these. of_warps: a
/// number for every warp and row.
template <int Tiles>
__device__ void add_over_rows(float (&sums)[Tiles], float* of_warps) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % step_depth_warps;
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    sums[n] += __shfl_xor_sync(0xffffffffu, sums[n], 1);
    sums[n] += __shfl_xor_sync(0xffffffffu, sums[n], 2);
    if (lane % 4 == 0) of_warps[(warp * Tiles + n) * 8 + lane / 4] = sums[n];
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    sums[n] = 0;
#pragma unroll
    for (int w = 0; w < step_depth_warps; ++w) sums[n] += of_warps[(w * Tiles + n) * 8 + lane / 4];
  }
}

/// Makes a block's output: the epilogue's
///
///     Held prepare(row, column)                     // reads what is settled
///     void receive(Held&, row, column)              // reads what kernels before have made
///     void finish(Held, row, column, sums, statistics)
///
/// are called for each of its rows and columns by one thread, the last with the inner product of every map.
template <int Tiles, int Maps, bool Normed, bool ByRows, class Epilogue>
__global__ void __launch_bounds__(32 * step_depth_warps * Maps, blocks_at_once<Maps>)
    step_product_kernel(StepProblem<Maps> p, Epilogue epilogue) {
  static_assert(!Normed || Maps == 1);
  constexpr int warps = step_depth_warps, threads = 32 * warps * Maps, rows = 8 * Tiles, pitch = step_columns + 1;
  constexpr int outputs = rows * step_columns, each = (outputs + threads - 1) / threads;
  extern __shared__ float step_parts[];  // [map][warp][row][column]
  __shared__ float partial[2][Normed ? warps * rows : 1];
  __shared__ RowStatistics statistics[rows];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32 % warps, map = thread / (32 * warps);
  const int g = lane / 4, t = lane % 4;
  const Index first_row = Index{blockIdx.y} * rows, first_column = Index{blockIdx.x} * step_columns;
  StepMap own = p.maps[0];
#pragma unroll
  for (int n = 1; n < Maps; ++n) {
    if (n == map) own = p.maps[n];
  }
  const Index depth = own.x.width;
  const int passes = static_cast<int>(ceil_div(depth, Index{2 * warps * step_chunk}));
  const auto chunk = [&](int pass) { return 2 * warps * pass + warp; };
  const auto for_outputs = [&](auto&& f) {
#pragma unroll
    for (int e = 0; e < each; ++e) {
      const int at = thread + threads * e;
      const Index row = first_row + at / step_columns, column = first_column + at % step_columns;
      if (at < outputs && row < own.x.rows && column < p.columns) f(e, at / step_columns, at % step_columns, row, column);
    }
  };

  let_next_start();
  if (!p.is_settled) wait_for_previous();
  StepWeights<ByRows> weights;
  weights.read(own.weight, depth, p.columns, first_column, chunk(0));
  StepNorm norm;
  if constexpr (Normed) norm.read(p.norm, depth, chunk(0));
  typename Epilogue::Held held[each];
  for_outputs([&](int e, int, int, Index row, Index column) { held[e] = epilogue.prepare(row, column); });
  if (p.is_settled) wait_for_previous();

  StepRows<Tiles> x;
  x.read(own.x, first_row, chunk(0));
  for_outputs([&](int e, int, int, Index row, Index column) { epilogue.receive(held[e], row, column); });
  int pass_held = 0;
  const auto have = [&](int pass) {
    if (pass == pass_held) return;
    x.read(own.x, first_row, chunk(pass));
    pass_held = pass;
  };
  RowStatistics of_row[Tiles];
  if constexpr (Normed) {
    const float share = 1.0f / static_cast<float>(depth);
    const auto over_rows = [&](float* sums, auto&& term) {
      for (int pass = 0; pass < passes; ++pass) {
        have(pass);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (Index{step_chunk} * (chunk(pass) + warps * i) + 8 * t >= depth) continue;
#pragma unroll
          for (int n = 0; n < Tiles; ++n) {
            const Pack<8> values = x.floats(i, n);
#pragma unroll
            for (int e = 0; e < 8; ++e) sums[n] += term(n, values[e]);
          }
        }
      }
    };
    if (p.norm.kind == NormKind::layer) {
      float totals[Tiles] = {};
      over_rows(totals, [](int, float value) { return value; });
      add_over_rows(totals, partial[0]);
#pragma unroll
      for (int n = 0; n < Tiles; ++n) of_row[n].mean = totals[n] * share;
    }
    float squares[Tiles] = {};
    over_rows(squares, [&](int n, float value) { return (value - of_row[n].mean) * (value - of_row[n].mean); });
    add_over_rows(squares, partial[1]);
#pragma unroll
    for (int n = 0; n < Tiles; ++n) {
      of_row[n].inverse = rsqrtf(fmaf(squares[n], share, p.norm.epsilon));
      if (warp == 0 && t == 0) statistics[8 * n + g] = of_row[n];
    }
  }

  float sums[2][Tiles][4] = {};
  for (int pass = 0; pass < passes; ++pass) {
    have(pass);
    if (pass > 0) {
      weights.read(own.weight, depth, p.columns, first_column, chunk(pass));
      if constexpr (Normed) norm.read(p.norm, depth, chunk(pass));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if constexpr (Normed) {
#pragma unroll
        for (int n = 0; n < Tiles; ++n) {
          const Pack<8> values = x.floats(i, n);
          x.set(i, n, make_pack<8>([&](int e) {
                  return fmaf((values[e] - of_row[n].mean) * of_row[n].inverse, norm.scale[i][e], norm.shift[i][e]);
                }));
        }
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
          std::uint32_t left[4];
          weights.left(left, i, s, tile);
#pragma unroll
          for (int n = 0; n < Tiles; ++n) multiply_add(sums[tile][n], left, x.word(i, n, 2 * s), x.word(i, n, 2 * s + 1));
        }
      }
    }
  }

  float* const to = step_parts + (map * warps + warp) * rows * pitch;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
    for (int n = 0; n < Tiles; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        to[(8 * n + 2 * t + e % 2) * pitch + StepWeights<ByRows>::column(tile, e >= 2)] = sums[tile][n][e];
      }
    }
  }
  __syncthreads();
  for_outputs([&](int e, int r, int c, Index row, Index column) {
    float totals[Maps];
#pragma unroll
    for (int n = 0; n < Maps; ++n) {
      totals[n] = 0;
#pragma unroll
      for (int w = 0; w < warps; ++w) totals[n] += step_parts[((n * warps + w) * rows + r) * pitch + c];
    }
    epilogue.finish(held[e], row, column, totals, Normed ? statistics[r] : RowStatistics{});
  });
}

/// The product itself: plus bias and skip, unless they are absent.
template <class C>
struct StepOutput {
  const float* bias;
  Rows<const C> skip;
  Rows<C> y;

  struct Held {
    float more;
  };
  __device__ Held prepare(Index, Index column) const { return {bias != nullptr ? bias[column] : 0.0f}; }
  __device__ void receive(Held& held, Index row, Index column) const {
    if (skip.rows > 0) held.more += to_float(skip(row, column));
  }
  __device__ void finish(const Held& held, Index row, Index column, const float (&sums)[1], RowStatistics) const {
    y(row, column) = from_float<C>(sums[0] + held.more);
  }
};

}  // namespace COYOTE_CUDA_ARCHITECTURES

/// Can the kernels read these maps' input and weights, 16 bytes at a time?
template <int Maps>
bool suits_steps(const StepProblem<Maps>& p) {
  for (const StepMap& map : p.maps) {
    const Index rows = map.x.rows, depth = map.x.width;
    if (rows < 1 || rows > most_step_rows || depth < 8 || depth % 8 != 0 || p.columns % 8 != 0) return false;
    if (!is_aligned(map.x.data, map.x.stride) || !is_aligned(map.weight.data, map.weight.stride())) return false;
  }
  return true;
}

/// epilogue(x weight of every map), or of norm(x); false, and nothing done, where rows are many or do not lie as the kernels want
/// them. All maps lie by rows, or all by columns, as ByRows says. 2 rows depth columns flop a map; bytes: each map's weights once
/// for 16 rows, x once for 32 columns.
template <bool Normed, bool ByRows, int Maps, class Epilogue>
bool step_product(Context<Cuda>& context, const StepProblem<Maps>& problem, const Epilogue& epilogue) {
  if (!suits_steps(problem)) return false;
  const Index rows = problem.maps[0].x.rows;
  const auto launch = [&](auto tiles) {
    constexpr int bytes = Maps * step_depth_warps * 8 * tiles() * (step_columns + 1) * static_cast<int>(sizeof(float));
    const auto kernel = &step_product_kernel<tiles(), Maps, Normed, ByRows, Epilogue>;
    if constexpr (bytes > 32 * 1024) {
      COYOTE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
    const dim3 blocks(static_cast<unsigned>(ceil_div(problem.columns, Index{step_columns})),
                      static_cast<unsigned>(ceil_div(rows, Index{8} * tiles())));
    launch_following(context, kernel, "launch of step_product", blocks, dim3(32 * step_depth_warps * Maps), bytes, problem,
                     epilogue);
  };
  // Eight rows a block while all blocks run at once: there is half as much to do before each can write.
  const Index resident = blocks_at_once<Maps> * context.limits().multiprocessors;
  if (rows <= 8 || ceil_div(rows, 8) * ceil_div(problem.columns, step_columns) <= resident) {
    launch(std::integral_constant<int, 1>{});
  } else {
    launch(std::integral_constant<int, 2>{});
  }
  return true;
}

}  // namespace coyote::inline v0::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/pack.cuh"
#include "coyote/operations/cuda/product.cuh"

namespace coyote::inline v0::cuda {

// Products of a few rows, as decoding makes them (those in bf16 have step_product.cuh): bound by how long one read of the weights
// takes, so many blocks, each with a few columns, whose threads have all their reads under way at once.

/// Up to so many rows.
inline constexpr Index most_product_rows = 8;

inline namespace COYOTE_CUDA_ARCHITECTURES {

inline constexpr int row_product_threads = 256;

/// Adds up sums[r][i] over the lanes whose numbers differ in bits from `first_bit` on.
template <int R, int P>
__device__ void add_over_lanes(float (&sums)[R][P], int first_bit) {
  for (int bit = first_bit; bit < 32; bit *= 2) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int i = 0; i < P; ++i) sums[r][i] += __shfl_xor_sync(0xffffffffu, sums[r][i], bit);
    }
  }
}

/// c = a b + bias + skip for R rows. b's rows are contiguous: two lanes side by side have a pack of columns each, the others of
/// the block every 128th row. Sums are added in a fixed order.
template <int R, class T, class C>
__global__ void __launch_bounds__(row_product_threads)
    row_product_kernel(Rows<const T> a, const T* b, Index stride, const float* bias, Rows<const C> skip, Rows<C> c) {
  constexpr int P = pack_size<T>, columns = 2 * P, steps = row_product_threads / 2;
  __shared__ float parts[row_product_threads / 32][R][columns];
  follow();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, side = thread % 2;
  const Index column = Index{blockIdx.x} * columns + side * P, depth = a.width;
  float sums[R][P] = {};
  if (column < c.width) {
#pragma unroll 4
    for (Index k = thread / 2; k < depth; k += steps) {
      const Pack<P> weights = load<P>(b + k * stride + column);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float x = r < a.rows ? to_float(a(r, k)) : 0.0f;
#pragma unroll
        for (int i = 0; i < P; ++i) sums[r][i] = fmaf(x, weights[i], sums[r][i]);
      }
    }
  }
  add_over_lanes(sums, 2);
  if (lane < 2) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int i = 0; i < P; ++i) parts[warp][r][side * P + i] = sums[r][i];
    }
  }
  __syncthreads();
  for (int at = thread; at < R * columns; at += row_product_threads) {
    const int r = at / columns, j = at % columns;
    const Index to = Index{blockIdx.x} * columns + j;
    if (r >= c.rows || to >= c.width) continue;
    float sum = (bias != nullptr ? bias[to] : 0.0f) + (skip.rows > 0 ? to_float(skip(r, to)) : 0.0f);
    for (int w = 0; w < row_product_threads / 32; ++w) sum += parts[w][r][j];
    c(r, to) = from_float<C>(sum);
  }
}

/// The same where b's columns are contiguous: a warp has one.
template <int R, class T, class C>
__global__ void __launch_bounds__(row_product_threads)
    column_product_kernel(Rows<const T> a, const T* b, Index stride, const float* bias, Rows<const C> skip, Rows<C> c) {
  constexpr int P = pack_size<T>;
  follow();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const Index column = Index{blockIdx.x} * (row_product_threads / 32) + thread / 32, depth = a.width;
  if (column >= c.width) return;
  float sums[R][1] = {};
  for (Index k = Index{lane} * P; k < depth; k += 32 * P) {
    const Pack<P> weights = load<P>(b + column * stride + k);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (r >= a.rows) break;
      const Pack<P> x = load<P>(a.row(r) + k);
#pragma unroll
      for (int i = 0; i < P; ++i) sums[r][0] = fmaf(x[i], weights[i], sums[r][0]);
    }
  }
  add_over_lanes(sums, 1);
  if (lane != 0) return;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    if (r >= c.rows) break;
    const float more = (bias != nullptr ? bias[column] : 0.0f) + (skip.rows > 0 ? to_float(skip(r, column)) : 0.0f);
    c(r, column) = from_float<C>(sums[r][0] + more);
  }
}

}  // namespace COYOTE_CUDA_ARCHITECTURES

/// c = a b (+ bias + skip, unless absent) where rows are few and lie as the kernels want them; false where they do not. Floor:
/// one read of b.
template <class T, class C>
bool row_product(Context<Cuda>& context, Rows<const T> a, Operand<T> b, const float* bias, Rows<const C> skip, Rows<C> c) {
  constexpr Index pack = pack_size<T>;
  const bool by_rows = b.across == 1;
  if (c.rows > most_product_rows || !is_aligned(b.data, b.stride())) return false;
  if (by_rows ? c.width % pack != 0 : a.width % pack != 0 || !is_aligned(a.data, a.stride)) return false;
  const Index columns = by_rows ? 2 * pack : row_product_threads / 32;
  const dim3 blocks(static_cast<unsigned>(ceil_div(c.width, columns)));
  const auto launch = [&](auto rows) {
    launch_following(context, by_rows ? &row_product_kernel<rows(), T, C> : &column_product_kernel<rows(), T, C>,
                     "launch of row_product", blocks, dim3(row_product_threads), 0, a, b.data, b.stride(), bias, skip, c);
  };
  if (c.rows == 1) {
    launch(std::integral_constant<int, 1>{});
  } else if (c.rows <= 4) {
    launch(std::integral_constant<int, 4>{});
  } else {
    launch(std::integral_constant<int, 8>{});
  }
  return true;
}

}  // namespace coyote::inline v0::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/rowwise.cuh"
#include "coyote/operations/head_products.hpp"
#include "coyote/operations/shared_channels.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// Calls f(row, column) for every element: for functions that write what they make themselves.
template <class F>
__global__ void __launch_bounds__(row_threads) for_elements_kernel(Index rows, Index width, F f) {
  const Index column = Index{blockIdx.y} * blockDim.x + threadIdx.x, row = Index{blockIdx.x} * blockDim.y + threadIdx.y;
  if (column < width && row < rows) f(row, column);
}
template <class F>
void for_elements(Context<Cuda>& context, Index rows, Index width, const F& f) {
  if (rows == 0 || width == 0) return;
  for_elements_kernel<<<row_grid(rows, width), row_block(width), 0, context.stream()>>>(rows, width, f);
  COYOTE_CUDA_CHECK_LAUNCH("for_elements");
}

template <class S>
struct RepeatChannels {
  Index share;
  Rows<const S> x;
  Rows<S> y;
  __device__ void operator()(Index i, Index c) const { y(i, c) = x(i, c / share); }
};
template <class S>
struct SumChannels {
  Index share;
  Rows<const S> x;
  Rows<S> y;
  __device__ void operator()(Index i, Index c) const {
    float sum = 0;
    for (Index k = 0; k < share; ++k) sum += to_float(x(i, c * share + k));
    y(i, c) = from_float<S>(sum);
  }
};
template <class S>
struct SplitChannels {
  Index share;
  Rows<const S> x;
  Rows<S> y;
  __device__ void operator()(Index i, Index c) const { y(i * share + c % share, c / share) = x(i, c); }
};
template <class S>
struct JoinChannels {
  Index share;
  Rows<const S> x;
  Rows<S> y;
  __device__ void operator()(Index i, Index c) const { y(i, c) = x(i * share + c % share, c / share); }
};

template <class S, int E, int F>
struct OuterElement {
  Rows<const S> a, b;
  Rows<S> y;
  __device__ void operator()(Index row, Index c) const {
    y(row, c) = from_float<S>(to_float(a(row, c / F)) * to_float(b(row, c / (E * F) * F + c % F)));
  }
};
/// Element (row, g): head g of both gradients.
template <class S, int E, int F>
struct OuterHeadGradient {
  Rows<const S> a, b, dy;
  Rows<S> da, db;
  __device__ void operator()(Index row, Index g) const {
    const S *left = a.row(row) + g * E, *right = b.row(row) + g * F, *from = dy.row(row) + g * E * F;
    float sums[F] = {};
    for (int i = 0; i < E; ++i) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < F; ++j) {
        const float gradient = to_float(from[i * F + j]);
        sum = fmaf(gradient, to_float(right[j]), sum);
        sums[j] = fmaf(gradient, to_float(left[i]), sums[j]);
      }
      da(row, g * E + i) = from_float<S>(sum);
    }
#pragma unroll
    for (int j = 0; j < F; ++j) db(row, g * F + j) = from_float<S>(sums[j]);
  }
};
template <class S, int E, int F>
struct ContractedElement {
  Rows<const S> a, b;
  Rows<S> y;
  __device__ void operator()(Index row, Index c) const {
    const Index g = c / F, j = c % F;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < E; ++i) sum = fmaf(to_float(a(row, g * E + i)), to_float(b(row, (g * E + i) * F + j)), sum);
    y(row, c) = from_float<S>(sum);
  }
};
template <class S, int E, int F>
struct ContractedGradient {
  Rows<const S> a, b, dy;
  Rows<S> da, db;
  __device__ void operator()(Index row, Index k) const {
    const S* from = dy.row(row) + k / E * F;
    const float left = to_float(a(row, k));
    float sum = 0;
#pragma unroll
    for (int j = 0; j < F; ++j) {
      const float gradient = to_float(from[j]);
      sum = fmaf(gradient, to_float(b(row, k * F + j)), sum);
      db(row, k * F + j) = from_float<S>(left * gradient);
    }
    da(row, k) = from_float<S>(sum);
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i, c] = x[i, c / share]
template <class P>
void repeat_channels(Context<Cuda>& context, Index share, Rows<const P> x, Rows<P> y) {
  cuda::for_elements(context, y.rows, y.width, cuda::RepeatChannels<P>{share, x, y});
}
/// y[i, c] = sum_k x[i, c * share + k]
template <class P>
void sum_channels(Context<Cuda>& context, Index share, Rows<const P> x, Rows<P> y) {
  cuda::for_elements(context, y.rows, y.width, cuda::SumChannels<P>{share, x, y});
}
/// y[i * share + c % share, c / share] = x[i, c]
template <class S>
void split_channels(Context<Cuda>& context, Index share, Rows<const S> x, Rows<S> y) {
  cuda::for_elements(context, x.rows, x.width, cuda::SplitChannels<S>{share, x, y});
}
/// y[i, c] = x[i * share + c % share, c / share]
template <class S>
void join_channels(Context<Cuda>& context, Index share, Rows<const S> x, Rows<S> y) {
  cuda::for_elements(context, y.rows, y.width, cuda::JoinChannels<S>{share, x, y});
}

/// y[(g*E + i)*F + j] = a[g*E + i] * b[g*F + j] in every row.
template <class S, Index E, Index F>
void outer_product(Context<Cuda>& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  cuda::for_elements(context, y.rows, y.width, cuda::OuterElement<S, static_cast<int>(E), static_cast<int>(F)>{a, b, y});
}
template <class S, Index E, Index F>
void outer_product_backward(Context<Cuda>& context, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da, Rows<S> db) {
  cuda::for_elements(context, dy.rows, a.width / E,
                     cuda::OuterHeadGradient<S, static_cast<int>(E), static_cast<int>(F)>{a, b, dy, da, db});
}
/// y[g*F + j] = sum_i a[g*E + i] * b[(g*E + i)*F + j] in every row.
template <class S, Index E, Index F>
void contraction(Context<Cuda>& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  cuda::for_elements(context, y.rows, y.width, cuda::ContractedElement<S, static_cast<int>(E), static_cast<int>(F)>{a, b, y});
}
template <class S, Index E, Index F>
void contraction_backward(Context<Cuda>& context, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da, Rows<S> db) {
  cuda::for_elements(context, dy.rows, a.width,
                     cuda::ContractedGradient<S, static_cast<int>(E), static_cast<int>(F)>{a, b, dy, da, db});
}

}  // namespace coyote::inline v0

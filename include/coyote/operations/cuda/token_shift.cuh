// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/token_shift.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

template <class S>
struct TokenShift {
  Sequences sequences;
  Rows<const S> x;
  Rows<const float> mix, rest;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> now = load<N>(x.row(row) + column), m = load<N>(mix.data + column);
    if (sequences.position(row) == 0) return make_pack<N>([&](int i) { return m[i] * now[i]; });
    const Pack<N> before = load<N>(x.row(row - 1) + column), r = load<N>(rest.data + column);
    return make_pack<N>([&](int i) { return m[i] * now[i] + r[i] * before[i]; });
  }
};

template <class S>
struct TokenShiftGradient {
  Sequences sequences;
  Rows<const S> dy;
  Rows<const float> mix, rest;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> now = load<N>(dy.row(row) + column), m = load<N>(mix.data + column);
    if (row + 1 == dy.rows || sequences.position(row + 1) == 0) return make_pack<N>([&](int i) { return m[i] * now[i]; });
    const Pack<N> next = load<N>(dy.row(row + 1) + column), r = load<N>(rest.data + column);
    return make_pack<N>([&](int i) { return m[i] * now[i] + r[i] * next[i]; });
  }
};

template <class S>
struct TokenShiftMixGradient {
  Sequences sequences;
  Rows<const S> x, dy;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> now = load<N>(x.row(row) + column), g = load<N>(dy.row(row) + column);
    if (sequences.position(row) == 0) return make_pack<N>([&](int i) { return g[i] * now[i]; });
    const Pack<N> before = load<N>(x.row(row - 1) + column);
    return make_pack<N>([&](int i) { return g[i] * (now[i] - before[i]); });
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i] = mix * x[i] + rest * x[i - 1] with rest = 1 - mix, per channel; the row before a sequence's first is 0.
template <class S>
void token_shift(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> mix, Rows<const float> rest,
                 Rows<S> y) {
  cuda::map_rows(context, cuda::TokenShift<S>{cuda::sequences_of(batch), x, mix, rest}, Write::overwrite, y, x, mix, rest);
}

/// dx[i] (=|+=) mix * dy[i] + rest * dy[i + 1]; dmix += sum_i dy[i] * (x[i] - x[i - 1])
template <class S>
void token_shift_backward(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> mix,
                          Rows<const float> rest, Rows<const S> dy, Rows<S> dx, Write write, Rows<float> dmix) {
  const cuda::Sequences sequences = cuda::sequences_of(batch);
  cuda::map_rows(context, cuda::TokenShiftGradient<S>{sequences, dy, mix, rest}, write, dx, dy, mix, rest);
  cuda::sum_rows<S>(context, x.rows, cuda::TokenShiftMixGradient<S>{sequences, x, dy}, dmix, x, dy);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/array.hpp"
#include "coyote/operations/input_conv.hpp"

namespace coyote::inline v0 {

namespace reference {
struct InnerProduct {
  template <class S>
  constexpr S operator()(const S* a, const S* b, Index n) const {
    S sum = a[0] * b[0];
    for (Index c = 1; c < n; ++c) sum += a[c] * b[c];
    return sum;
  }
};
}  // namespace reference

/// The lags of every row of a batch, [rows, L::count], -1 behind the last of a row.
template <class S, LagSource L>
constexpr void find_all_lags(Context<Reference>&, const Batch& batch, Rows<const S> q, Rows<const S> k, Rows<std::int32_t> lags) {
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s), n = batch.size(s);
    Array<std::int32_t> index(lag_index_size<L>(n));
    Array<S> scratch(lag_scratch_size<L>(n, q.width));
    find_lags<S, L>(batch.tokens.empty() ? batch.tokens : batch.tokens_of(s), q.slice(first, n), k.slice(first, n),
                    {index.data(), static_cast<std::size_t>(index.size())},
                    {scratch.data(), static_cast<std::size_t>(scratch.size())}, lags.slice(first, n));
  }
}

/// y_i = sum_t w_it v_(i - lags_it) with w_i = softmax over t of <q_i, k_(i - lags_it)>, or these inner products themselves.
/// `weights`, [rows, lags], receives w.
template <class S, bool Softmax>
constexpr void input_convolution(Context<Reference>&, const Batch& batch, Rows<const std::int32_t> lags, Rows<const S> q,
                                 Rows<const S> k, Rows<const S> v, Rows<S> weights, Rows<S> y) {
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s), n = batch.size(s);
    for (Index i = 0; i < n; ++i) {
      input_convolution_row<S, Softmax>(reference::InnerProduct{}, {lags.row(first + i), static_cast<std::size_t>(lags.width)}, i,
                                        q.row(first + i), k.slice(first, n), v.slice(first, n), weights.row(first + i),
                                        y.row(first + i));
    }
  }
}

/// Its gradients, for fixed lags; dq, dk and dv are overwritten. ds [rows, lags] is scratch.
template <class S, bool Softmax>
constexpr void input_convolution_backward(Context<Reference>& context, const Batch& batch, Rows<const std::int32_t> lags,
                                          Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<const S> weights,
                                          Rows<const S> dy, Rows<S> ds, Rows<S> dq, Rows<S> dk, Rows<S> dv) {
  clear<S>(context, dk);
  clear<S>(context, dv);
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s), n = batch.size(s);
    for (Index i = 0; i < n; ++i) {
      const std::span<const std::int32_t> own(lags.row(first + i), static_cast<std::size_t>(lags.width));
      input_convolution_row_backward<S, Softmax>(reference::InnerProduct{}, own, i, dy.row(first + i), k.slice(first, n),
                                                 v.slice(first, n), weights.row(first + i), ds.row(first + i), dq.row(first + i));
      input_convolution_row_scatter<S>(own, i, weights.row(first + i), ds.row(first + i), q.slice(first, n), dy.slice(first, n),
                                       dk.slice(first, n), dv.slice(first, n));
    }
  }
}

/// One row: keys and values [rows so far, width] of one sequence, of which row `position` is the newest.
template <class S, bool Softmax>
constexpr void input_convolution_step(Context<Reference>&, std::span<const std::int32_t> lags, Index position, const S* q,
                                      Rows<const S> keys, Rows<const S> values, S* weights, S* y) {
  input_convolution_row<S, Softmax>(reference::InnerProduct{}, lags, position, q, keys, values, weights, y);
}

}  // namespace coyote::inline v0

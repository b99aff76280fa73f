// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/operations/cpu/activation.hpp"
#include "coyote/operations/input_conv.hpp"
#include "coyote/operations/token_shift.hpp"

namespace coyote::inline v0 {
namespace cpu::inline COYOTE_ISA {

struct InnerProduct {
  template <class S>
  S operator()(const S* a, const S* b, Index n) const {
    Vec<S> sum = {};
    for_each_register<S>(n, [&](Index c, Index count) { sum += load_some(a + c, count) * load_some(b + c, count); });
    return horizontal_sum<S>(sum);
  }
};

}  // namespace cpu::inline COYOTE_ISA

/// See the Reference implementation.
template <class S, LagSource L>
void find_all_lags(Context<Cpu>& context, const Batch& batch, Rows<const S> q, Rows<const S> k, Rows<std::int32_t> lags) {
  context.parallel(batch.sequences, [&](Index s, Arena& memory) {
    const Index first = batch.begin(s), n = batch.size(s);
    const auto take = [&]<class T>(std::type_identity<T>, Index count) -> std::span<T> {
      const auto size = static_cast<std::size_t>(count);
      return {static_cast<T*>(memory.allocate(size * sizeof(T))), size};
    };
    const auto index = take(std::type_identity<std::int32_t>{}, lag_index_size<L>(n));
    const auto scratch = take(std::type_identity<S>{}, lag_scratch_size<L>(n, q.width));
    find_lags<S, L>(batch.tokens.empty() ? batch.tokens : batch.tokens_of(s), q.slice(first, n), k.slice(first, n), index,
                    scratch, lags.slice(first, n));
  });
}

/// See the Reference implementation.
template <class S, bool Softmax>
void input_convolution(Context<Cpu>& context, const Batch& batch, Rows<const std::int32_t> lags, Rows<const S> q, Rows<const S> k,
                       Rows<const S> v, Rows<S> weights, Rows<S> y) {
  context.for_rows(q.rows, 2 * lags.width * q.width, [&](Index i) {
    const Index position = position_of(batch, i), first = i - position;
    input_convolution_row<S, Softmax>(cpu::InnerProduct{}, {lags.row(i), static_cast<std::size_t>(lags.width)}, position,
                                      q.row(i), k.slice(first, position + 1), v.slice(first, position + 1), weights.row(i),
                                      y.row(i));
  });
}

/// See the Reference implementation.
template <class S, bool Softmax>
void input_convolution_backward(Context<Cpu>& context, const Batch& batch, Rows<const std::int32_t> lags, Rows<const S> q,
                                Rows<const S> k, Rows<const S> v, Rows<const S> weights, Rows<const S> dy, Rows<S> ds, Rows<S> dq,
                                Rows<S> dk, Rows<S> dv) {
  const auto own = [&](Index i) { return std::span<const std::int32_t>(lags.row(i), static_cast<std::size_t>(lags.width)); };
  context.for_rows(q.rows, 2 * lags.width * q.width, [&](Index i) {
    const Index position = position_of(batch, i), first = i - position;
    input_convolution_row_backward<S, Softmax>(cpu::InnerProduct{}, own(i), position, dy.row(i), k.slice(first, position + 1),
                                               v.slice(first, position + 1), weights.row(i), ds.row(i), dq.row(i));
  });
  // Rows add to earlier ones, so that a strip of a sequence's columns belongs to one thread.
  const Index strip = batch.sequences < 8 ? 4 * cpu::lanes<S> : round_up(q.width, cpu::lanes<S>);
  const Index strips = ceil_div(q.width, strip);
  context.parallel(batch.sequences * strips, [&](Index block, Arena&) {
    const Index s = block / strips, c = block % strips * strip, width = std::min(strip, q.width - c);
    const Index first = batch.begin(s), n = batch.size(s);
    const auto part = [&](auto x) { return x.slice(first, n).columns(c, width); };
    for (Index i = 0; i < n; ++i) {
      std::fill_n(part(dk).row(i), width, S{});
      std::fill_n(part(dv).row(i), width, S{});
    }
    for (Index i = 0; i < n; ++i) {
      input_convolution_row_scatter<S>(own(first + i), i, weights.row(first + i), ds.row(first + i), part(q), part(dy), part(dk),
                                       part(dv));
    }
  });
}

/// See the Reference implementation.
template <class S, bool Softmax>
void input_convolution_step(Context<Cpu>&, std::span<const std::int32_t> lags, Index position, const S* q, Rows<const S> keys,
                            Rows<const S> values, S* weights, S* y) {
  input_convolution_row<S, Softmax>(cpu::InnerProduct{}, lags, position, q, keys, values, weights, y);
}

}  // namespace coyote::inline v0

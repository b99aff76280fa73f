// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/batch.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// y[i] = f[i] * x[i] for the rows picked (all when `picked` is absent), 0 for the others. y may be x. f, picked [rows, 1].
template <class S, RowContext C>
constexpr void scale_rows(C& context, Rows<const S> f, Rows<const unsigned char> picked, Rows<const S> x, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    if (picked.rows > 0 && picked(i, 0) == 0) {
      for (Index c = 0; c < y.width; ++c) y(i, c) = S{};
    } else {
      for (Index c = 0; c < y.width; ++c) y(i, c) = f(i, 0) * x(i, c);
    }
  });
}

/// Gradients of scale_rows with all rows picked: dx[i] = f[i] * dy[i], df[i] = <dy[i], x[i]>.
template <class S, RowContext C>
constexpr void scale_rows_backward(C& context, Rows<const S> f, Rows<const S> x, Rows<const S> dy, Rows<S> dx, Rows<S> df) {
  context.for_rows(dy.rows, 3 * dy.width, [&](Index i) {
    S sum{};
    for (Index c = 0; c < dy.width; ++c) {
      dx(i, c) = f(i, 0) * dy(i, c);
      sum += dy(i, c) * x(i, c);
    }
    df(i, 0) = sum;
  });
}

/// picked = f >= threshold. f, picked [rows, 1].
template <class S, RowContext C>
void pick_above(C& context, double threshold, Rows<const S> f, Rows<unsigned char> picked) {
  context.for_rows(f.rows, 1, [&](Index i) { picked(i, 0) = static_cast<double>(f(i, 0)) >= threshold; });
}

/// picked = 1 for the Rule::chosen(n) rows of each sequence, of n, with the highest f; of equal ones the earlier rows; NaN comes
/// last.
template <class S, class Rule, RowContext C>
void pick_top(C& context, const Batch& batch, Rows<const S> f, Rows<unsigned char> picked) {
  const auto frame = context.frame();
  auto made = context.template make<Index>(1, batch.length);
  Index* order = Rows<Index>(made).data;
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index n = batch.size(s), k = Rule::chosen(n);
    for (Index i = 0; i < n; ++i) {
      order[i] = batch.begin(s) + i;
      picked(order[i], 0) = 0;
    }
    const auto before = [&](Index a, Index b) {
      const bool a_known = f(a, 0) == f(a, 0), b_known = f(b, 0) == f(b, 0);
      if (a_known != b_known) return a_known;
      if (a_known && f(a, 0) != f(b, 0)) return f(a, 0) > f(b, 0);
      return a < b;
    };
    if (k < n) std::nth_element(order, order + k, order + n, before);
    for (Index i = 0; i < k; ++i) picked(order[i], 0) = 1;
  }
}

namespace detail {
/// mean f - target / n over a sequence of n rows.
template <class S, class Rule>
double excess_of(const Batch& batch, Rows<const S> f, Index s) {
  double sum = 0;
  for (Index i = batch.begin(s); i < batch.end(s); ++i) sum += static_cast<double>(f(i, 0));
  return (sum - Rule::target(batch.size(s))) / static_cast<double>(batch.size(s));
}
}  // namespace detail

/// Adds weight * max(0, mean f - Rule::target(n) / n), averaged over the sequences of a batch, to the context's auxiliary loss.
template <class S, class Rule, RowContext C>
void add_penalty(C& context, const Batch& batch, double weight, Rows<const S> f) {
  double sum = 0;
  for (Index s = 0; s < batch.sequences; ++s) sum += std::max(0.0, detail::excess_of<S, Rule>(batch, f, s));
  context.auxiliary_loss += weight * sum / static_cast<double>(batch.sequences);
}

/// Adds the penalty's gradient to df.
template <class S, class Rule, RowContext C>
void add_penalty_backward(C&, const Batch& batch, double weight, Rows<const S> f, Rows<S> df) {
  for (Index s = 0; s < batch.sequences; ++s) {
    if (!(detail::excess_of<S, Rule>(batch, f, s) > 0)) continue;
    const auto slope = static_cast<S>(weight / static_cast<double>(batch.sequences) / static_cast<double>(batch.size(s)));
    for (Index i = batch.begin(s); i < batch.end(s); ++i) df(i, 0) += slope;
  }
}

/// The auxiliary loss of the latest training step, where the host can read it.
template <RowContext C>
constexpr double auxiliary_loss(const C& context) {
  return context.auxiliary_loss;
}

/// The context's auxiliary loss is 0 again: at the beginning of a training step.
template <RowContext C>
constexpr void clear_penalties(C& context) {
  context.auxiliary_loss = 0;
}

}  // namespace coyote::inline v0

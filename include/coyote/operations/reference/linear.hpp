// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/batch.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

namespace reference {

/// The bias of row i (position in its sequence), column c, of a view with 0, 1 or >= length rows.
template <class S>
constexpr S bias_at(Rows<const S> bias, Index position, Index c) {
  return bias.rows == 0 ? S{} : bias(bias.rows == 1 ? 0 : position, c);
}

}  // namespace reference

/// y[i, c] = sum_a x[i, a] weight[a, c] + bias
template <class S>
constexpr void linear(Context<Reference>&, const Batch& batch, Rows<const S> x, Rows<const S> weight, Rows<const S> bias,
                      Rows<S> y) {
  for (Index s = 0; s < batch.sequences; ++s) {
    for (Index i = batch.begin(s); i < batch.end(s); ++i) {
      for (Index c = 0; c < y.width; ++c) {
        S sum = x(i, 0) * weight(0, c);
        for (Index a = 1; a < x.width; ++a) sum += x(i, a) * weight(a, c);
        y(i, c) = bias.rows == 0 ? sum : sum + reference::bias_at(bias, i - batch.begin(s), c);
      }
    }
  }
}

/// dx (=|+=) dy weight^T, dweight += x^T dy, dbias += dy (summed over the rows that share a bias)
template <class S>
constexpr void linear_backward(Context<Reference>&, const Batch& batch, Rows<const S> x, Rows<const S> weight, Rows<const S> dy,
                               Rows<S> dx, Write write, Rows<S> dweight, Rows<S> dbias) {
  for (Index s = 0; s < batch.sequences; ++s) {
    for (Index i = batch.begin(s); i < batch.end(s); ++i) {
      for (Index a = 0; a < x.width; ++a) {
        S sum{};
        for (Index c = 0; c < dy.width; ++c) {
          sum += dy(i, c) * weight(a, c);
          if (dweight.rows > 0) dweight(a, c) += x(i, a) * dy(i, c);
        }
        if (write != Write::none) write_to(dx(i, a), sum, write);
      }
      if (dbias.rows > 0) {
        for (Index c = 0; c < dy.width; ++c) dbias(dbias.rows == 1 ? 0 : i - batch.begin(s), c) += dy(i, c);
      }
    }
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coyote/core/batch.hpp"
#include "coyote/core/scalar.hpp"
#include "coyote/operations/dropout.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// y[i] = table[tokens[i]]
template <class S, RowContext C>
void embed(C& context, std::span<const Token> tokens, Rows<const parameter_t<S>> table, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index i) {
    const auto* row = table.row(tokens[static_cast<std::size_t>(i)]);
    for (Index c = 0; c < y.width; ++c) y(i, c) = static_cast<S>(row[c]);
  });
}

/// y[i] = (table[tokens[i]] + positions[position of row i in its sequence]) * what dropout's rule makes of it; positions may be
/// absent, and a rule that is not active keeps all.
template <class S, RowContext C>
void embed_batch(C& context, const Batch& batch, Rows<const parameter_t<S>> table, Rows<const parameter_t<S>> positions,
                 const DropoutRule& rule, Rows<S> y) {
  embed<S>(context, batch.resident_tokens(), table, y);
  if (positions.rows > 0) {
    context.for_rows(batch.sequences, batch.length * y.width, [&](Index s) {
      for (Index i = 0; i < batch.size(s); ++i) {
        for (Index c = 0; c < y.width; ++c) y(batch.begin(s) + i, c) += static_cast<S>(positions(i, c));
      }
    });
  }
  if (rule.active()) drop<S>(context, rule, Rows<const S>(y), y, Write::overwrite);
}

/// What embed_batch_backward wants to know of a batch's tokens ahead of time: nothing, on the host.
struct TokenOrder {};
template <RowContext C>
TokenOrder token_order(C&, std::span<const Token>, Index) {
  return {};
}

/// Gradients of embed_batch: with d = dy * what dropout's rule makes of it, dtable[tokens[i]] += d[i] and
/// dpositions[position of row i] += d[i], unless they are absent. `order` is token_order's of the same tokens. dy may be changed.
template <class S, RowContext C>
void embed_batch_backward(C& context, const TokenOrder&, const Batch& batch, const DropoutRule& rule, Rows<S> dy,
                          Rows<parameter_t<S>> dtable, Rows<parameter_t<S>> dpositions) {
  using P = parameter_t<S>;
  if (rule.active()) drop<S>(context, rule, Rows<const S>(dy), dy, Write::overwrite);
  if (dpositions.rows > 0) {
    context.for_rows(batch.length, dy.width * batch.sequences, [&](Index i) {
      for (Index s = 0; s < batch.sequences; ++s) {
        if (i >= batch.size(s)) continue;
        for (Index c = 0; c < dy.width; ++c) dpositions(i, c) += static_cast<P>(dy(batch.begin(s) + i, c));
      }
    });
  }
  if (dtable.rows == 0) return;
  // Cut by columns, so that no two threads meet in a row of the table.
  constexpr Index strip = 32;
  context.for_rows(ceil_div(dy.width, strip), 32768, [&](Index block) {
    const Index first = block * strip, last = first + strip < dy.width ? first + strip : dy.width;
    for (Index i = 0; i < dy.rows; ++i) {
      auto* row = dtable.row(batch.tokens[static_cast<std::size_t>(i)]);
      for (Index c = first; c < last; ++c) row[c] += static_cast<P>(dy(i, c));
    }
  });
}

/// y[n] = x[rows[n]]
template <class S, RowContext C>
void gather(C& context, std::span<const Index> rows, Rows<const S> x, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index n) {
    for (Index c = 0; c < y.width; ++c) y(n, c) = x(rows[static_cast<std::size_t>(n)], c);
  });
}

/// y[rows[n]] = x[n], and 0 elsewhere; `rows` ascends.
template <class S, RowContext C>
void scatter(C& context, std::span<const Index> rows, Rows<const S> x, Rows<S> y) {
  clear<S>(context, y);
  context.for_rows(x.rows, x.width, [&](Index n) {
    for (Index c = 0; c < x.width; ++c) y(rows[static_cast<std::size_t>(n)], c) = x(n, c);
  });
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/decoding.hpp"
#include "coyote/operations/pattern.hpp"

namespace coyote::inline v0 {

/// One decoding step of attention: q, k, v and y [sequences, width] belong to the step's row. k and v go into keys and values,
/// [sequences * rows, width], at row position mod `rows` of their sequence; where the pattern looks at tokens, the step's go into
/// `tokens` [sequences, capacity] and `index` [sequences, index_size(capacity)], which began as -1. Then
/// y = sum_j softmax_j(scale <q, k_j>) v_j for each head over the keys among those rows that `Kept` uses: the pattern itself, or
/// for one with a window, whose rows are all its keys in whatever order, the dense pattern.
template <class S, AttentionPattern Pattern, AttentionPattern Kept = Pattern, RowContext C>
void attention_decode(C& context, const Step& at, Index heads, parameter_t<S> scale, Rows<const S> q, Rows<const S> k,
                      Rows<const S> v, Rows<parameter_t<S>> keys, Rows<parameter_t<S>> values, Rows<Token> tokens,
                      Rows<std::int32_t> index, Rows<S> y) {
  const auto frame = context.frame();
  const Index rows = keys.rows / q.rows, indexed = index.width > 0 ? q.rows : 0;
  store_rows<S>(context, at, k, keys);
  store_rows<S>(context, at, v, values);
  auto made = context.template make<Index>(1, indexed + 1);
  const Rows<Index> starts = made;
  starts(0, 0) = 0;
  for (Index s = 0; s < indexed; ++s) starts(0, s + 1) = (s + 1) * index.width;
  if constexpr (Pattern::uses_tokens) {
    for (Index s = 0; s < q.rows; ++s) {
      tokens(s, at.position) = at.tokens[static_cast<std::size_t>(s)];
      Pattern::append(Entries<std::int32_t>(index.row(s), index.width), Entries<const Token>(tokens.row(s), tokens.width),
                      at.position);
    }
  }
  const Index position = at.position < rows ? at.position : rows - 1;
  attention_step<S, Kept>(context, PatternIndex{index.data, indexed > 0 ? starts.data : nullptr}, rows, position, heads, scale, q,
                          keys, values, y);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/selectors/selector.hpp"

namespace coyote::inline v0 {

/// The k rows of a sequence with the highest scores f = sigmoid(u w), k = Rule::chosen(rows), ceil(sqrt(rows)) by default; of
/// equal scores the earlier rows. A later row can displace an earlier one, so it is not causal: no step, no language model.
/// Source: Zoology (arXiv 2312.04927), section 5.
template <class Rule = SquareRootRows>
struct TopRows : SigmoidSelector<Rule> {
  static constexpr bool is_causal = false;
};

template <class Rule, class Backend, class S>
class Picker<TopRows<Rule>, Backend, S> : public SigmoidPicker<Rule, Backend, S> {
 public:
  using SigmoidPicker<Rule, Backend, S>::SigmoidPicker;

  void pick(Context<Backend>& context, const Batch& batch, Rows<const S> f, Rows<unsigned char> picked) const {
    const auto frame = context.frame();
    auto made = context.template make<Index>(1, batch.length);
    Index* order = Rows<Index>(made).data;
    for (Index s = 0; s < batch.sequences; ++s) {
      const Index n = batch.size(s), k = Rule::chosen(n);
      for (Index i = 0; i < n; ++i) {
        order[i] = batch.begin(s) + i;
        picked(order[i], 0) = 0;
      }
      // NaN comes last, so that the order stays one.
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
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

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
    pick_top<S, Rule>(context, batch, f, picked);
  }
};

}  // namespace coyote::inline v0

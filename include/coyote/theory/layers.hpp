// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/reference/operations.hpp"
#include "coyote/theory/stack.hpp"

namespace coyote::inline v0::theory {

/// The ordinary architecture of a stack: Coyote layers with free filters and positional biases, as many as it takes.
template <Wrap W>
using StackMixer = Repeat<
    Coyote<LongConv<FreeFilter, std::conditional_t<W == Wrap::causal, Causal, Cyclic>, PositionBias>, LinearWith<PositionBias>>>;

/// A stack as an ordinary model with dense parameters: what the theorem says, on any backend and scalar that has the layers.
/// `convert` maps the stack's ring to T; KEEP columns become explicit (1 * column) * 1. Errors: W differs from the stack's.
template <Wrap W, class Backend, class T, Ring S, class Convert>
constexpr auto as_layers(const Stack<S>& stack, Convert&& convert) {
  if (stack.wrap() != W) throw Error("theory::as_layers", "the stack's own ends (causal or cyclic)", "the others");
  auto model =
      Model<StackMixer<W>, Backend, T>::blank({stack.width(), stack.length()}, {.count = stack.programs().size(), .each = {}});
  Index at = 0;  // parameters come layer by layer: weight, bias, taps, bias
  auto set = [&](const Path&, Parameter<parameter_t<T>>& p) {
    const Program<S>& program = stack.programs()[at / 4];
    const Index kind = at++ % 4;
    for (Index c = 0; c < stack.width(); ++c) {
      const Column<S>* found = nullptr;
      for (const Column<S>& column : program.columns()) {
        if (column.column == c) found = &column;
      }
      if (found == nullptr) {
        if (kind == 0) p.value(c, c) = convert(S(1));
        for (Index i = 0; kind == 3 && i < p.rows; ++i) p.value(i, c) = convert(S(1));
        continue;
      }
      if (kind == 0) {
        for (const auto& term : found->form.terms) p.value(term.column, c) += convert(term.coefficient);
      } else if (kind == 2) {
        for (const auto& run : found->taps.runs) {
          for (Index t = run.first; t <= run.last; ++t) p.value(t, c) += convert(run.value);
        }
      } else {
        for (Index i = 0; i < p.rows; ++i) p.value(i, c) = convert((kind == 1 ? found->b1 : found->b2).at(i));
      }
    }
  };
  model.visit(set);
  return model;
}

}  // namespace coyote::inline v0::theory

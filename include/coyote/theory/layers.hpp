// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <limits>

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/core/storage.hpp"
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

/// How far ordinary layers are from the exact stack.
struct LayerError {
  double largest = 0;  ///< of any number of the output; infinite where one is not finite
  double size = 0;     ///< the largest exact number of the output
  double relative() const { return largest == 0 ? 0 : largest / size; }
};

/// Runs a stack exactly, and as ordinary layers on a backend in T, on the same input [.., ..] in the upper left corner.
/// `convert` maps the stack's ring to double: weights, the input, and exact results. Errors: as as_layers; an input too large.
template <Wrap W, class Backend, class T, Ring S, class Convert>
LayerError layer_error(const Stack<S>& stack, std::type_identity_t<Rows<const S>> u, Convert&& convert) {
  using P = parameter_t<T>;
  const auto model = as_layers<W, Backend, T>(stack, [&](const S& x) { return static_cast<P>(convert(x)); });
  const Matrix<S> input = stack.embedded(u), exact = stack.run(u);
  Matrix<T> x(stack.length(), stack.width());
  for (Index n = 0; n < x.size(); ++n) x.data()[n] = static_cast<T>(static_cast<P>(convert(input.data()[n])));
  const Storage<Backend, T> from = to_backend<Backend>(std::move(x));
  Storage<Backend, T> to(stack.length(), stack.width());
  Context<Backend> context = make_context<Backend>();
  model.forward(context, {.sequences = 1, .length = stack.length()}, from, to);
  const Matrix<T>& y = to_host<Backend, T>(to);
  LayerError error;
  for (Index n = 0; n < y.size(); ++n) {
    const double wanted = convert(exact.data()[n]), off = std::abs(static_cast<double>(static_cast<P>(y.data()[n])) - wanted);
    error.largest = std::isfinite(off) ? std::max(error.largest, off) : std::numeric_limits<double>::infinity();
    error.size = std::max(error.size, std::abs(wanted));
    if (std::isinf(error.largest)) break;
  }
  return error;
}

}  // namespace coyote::inline v0::theory

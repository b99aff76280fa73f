// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"

namespace coyote::inline v0::detail {

// What stands between the parts of a combinator: a part's output, and the gradient by it.

/// A layer whose output is columns of its input, where they lie: it has `columns(u)` in place of forward, backward and step. The
/// gradient by its output is made where it belongs, in those columns of the gradient by its input; whoever makes the input (see
/// internal::Projected) answers for it that every column is made once.
template <class L, class T>
concept IsView = requires(const L& layer, Rows<T> u) {
  layer.columns(u);
};

template <class L, class Backend, class S>
using OutputOf = std::conditional_t<IsView<L, const S>, Rows<const S>, Tensor<Backend, S>>;

/// layer(u), in memory made for it.
template <class L, class Backend, class S>
constexpr OutputOf<L, Backend, S> output(const L& layer, Context<Backend>& context, const Batch& batch, Rows<const S> u,
                                         typename L::Saved& saved) {
  if constexpr (IsView<L, const S>) {
    return layer.columns(u);
  } else {
    Tensor<Backend, S> y = context.template make<S>(u.rows, layer.output_width());
    layer.forward(context, batch, u, y, saved);
    return y;
  }
}

/// The same for a decoding step.
template <class L, class Backend, class S>
constexpr OutputOf<L, Backend, S> step_output(const L& layer, Context<Backend>& context, typename L::State& state, const Step& at,
                                              Rows<const S> u) {
  if constexpr (IsView<L, const S>) {
    return layer.columns(u);
  } else {
    Tensor<Backend, S> y = context.template make<S>(u.rows, layer.output_width());
    layer.step(context, state, at, u, y);
    return y;
  }
}

/// Where the gradient by a layer's output is to be written, of which input_gradient makes the one by its input, du.
template <class L, class Backend, class S>
constexpr auto output_gradient(const L& layer, Context<Backend>& context, Index rows, Rows<S> du) {
  if constexpr (IsView<L, S>) {
    return layer.columns(du);
  } else {
    return context.template make<S>(rows, layer.output_width());
  }
}
template <class L, class Backend, class S>
constexpr void input_gradient(const L& layer, Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du,
                              Write write, typename L::Saved& saved) {
  if constexpr (!IsView<L, S>) layer.backward(context, batch, dy, du, write, saved);
}

}  // namespace coyote::inline v0::detail

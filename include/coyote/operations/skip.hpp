// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/norm.hpp"
#include "coyote/operations/reference/linear.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0::detail {

// What a residual passes by a mixer is added where the mixer's last operation, or its layer, can do so in the same pass over
// memory; elsewhere by a pass of its own. The same goes for the norm in front of a decoding step.

/// linear, and y += skip unless that is absent.
template <class S, class C, class P>
constexpr void linear_onto(C& context, const Batch& batch, Rows<const S> x, Rows<const P> weight, Rows<const P> bias, Rows<S> y,
                           Rows<const S> skip) {
  if constexpr (requires { linear<S>(context, batch, x, weight, bias, y, skip); }) {
    linear<S>(context, batch, x, weight, bias, y, skip);
  } else {
    linear<S>(context, batch, x, weight, bias, y);
    if (skip.rows > 0) assign<S>(context, skip, y, Write::add);
  }
}

/// y = skip + layer(u). A layer that can add takes `skip` as its forward's last argument.
template <class L, class C, class S>
constexpr void forward_onto(const L& layer, C& context, const Batch& batch, Rows<const S> u, Rows<S> y, typename L::Saved& saved,
                            Rows<const S> skip) {
  if constexpr (requires { layer.forward(context, batch, u, y, saved, skip); }) {
    layer.forward(context, batch, u, y, saved, skip);
  } else {
    layer.forward(context, batch, u, y, saved);
    assign<S>(context, skip, y, Write::add);
  }
}

/// The same for a decoding step, whose last argument `skip` is.
template <class L, class C, class S>
constexpr void step_onto(const L& layer, C& context, typename L::State& state, const Step& at, Rows<const S> u, Rows<S> y,
                         Rows<const S> skip) {
  if constexpr (requires { layer.step(context, state, at, u, y, skip); }) {
    layer.step(context, state, at, u, y, skip);
  } else {
    layer.step(context, state, at, u, y);
    assign<S>(context, skip, y, Write::add);
  }
}

/// y = skip + layer(norm(u)) for a decoding step. Where steps normalise, a layer that can takes the norm's rule behind `skip`.
template <class Norm, class L, class C, class S>
constexpr void step_normed(const Norm& norm, typename Norm::State& norm_state, const L& layer, C& context,
                           typename L::State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip) {
  if constexpr (requires { layer.step(context, state, at, u, y, skip, norm.rule()); }) {
    layer.step(context, state, at, u, y, skip, norm.rule());
  } else {
    const auto frame = context.frame();
    auto normed = context.template make<S>(u.rows, norm.output_width());
    norm.step(context, norm_state, at, u, normed);
    step_onto<L, C, S>(layer, context, state, at, normed, y, skip);
  }
}

}  // namespace coyote::inline v0::detail

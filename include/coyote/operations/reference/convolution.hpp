// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/reference/linear.hpp"
#include "coyote/operations/wrap.hpp"

namespace coyote::inline v0 {

namespace reference {

/// Calls use(t, j) for every tap t that row i of an n-row sequence sees, with j = the row that the tap reads.
template <class Use>
constexpr void for_each_tap(Wrap wrap, Index taps, Index n, Index i, Use&& use) {
  const Index count = wrap == Wrap::cyclic ? n : (taps < i + 1 ? taps : i + 1);
  for (Index t = 0; t < count; ++t) use(t, i >= t ? i - t : i - t + n);
}

/// convolved[i, c] = sum_t taps[t, c] x[i - t, c] + bias;  y = convolved, times the gate when there is one.
template <class S>
constexpr void convolve(const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const S> taps, Rows<const S> bias,
                        Rows<const S> gate, Rows<S> convolved, Rows<S> y) {
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s);
    for (Index i = 0; i < batch.size(s); ++i) {
      for (Index c = 0; c < y.width; ++c) {
        S sum = taps(0, c) * x(first + i, c);
        for_each_tap(wrap, taps.rows, batch.size(s), i, [&](Index t, Index j) {
          if (t > 0) sum += taps(t, c) * x(first + j, c);
        });
        if (bias.rows > 0) sum += bias_at(bias, i, c);
        if (convolved.rows > 0) convolved(first + i, c) = sum;
        y(first + i, c) = gate.rows > 0 ? sum * gate(first + i, c) : sum;
      }
    }
  }
}

/// The adjoint of convolve for the value before the gate, given its gradient dc(i, c).
template <class S, class Gradient>
constexpr void convolve_backward(const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const S> taps, Gradient&& dc, Rows<S> dx,
                                 Write write, Rows<S> dtaps, Rows<S> dbias) {
  if (write == Write::overwrite) {
    for (Index i = 0; i < dx.rows; ++i) {
      for (Index c = 0; c < dx.width; ++c) dx(i, c) = S{};
    }
  }
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s);
    for (Index i = 0; i < batch.size(s); ++i) {
      for (Index c = 0; c < x.width; ++c) {
        const S d = dc(first + i, c);
        for_each_tap(wrap, taps.rows, batch.size(s), i, [&](Index t, Index j) {
          if (write != Write::none) dx(first + j, c) += taps(t, c) * d;
          if (dtaps.rows > 0) dtaps(t, c) += x(first + j, c) * d;
        });
        if (dbias.rows > 0) dbias(dbias.rows == 1 ? 0 : i, c) += d;
      }
    }
  }
}

}  // namespace reference

/// y[i] = sum_{k = 0 .. min(i, K-1)} taps[k] x[i-k] + bias, times gate[i] when there is one. taps [K, D]; the template's K is
/// their number if the caller knows it, else 0.
template <class S, Index K = 0>
constexpr void short_convolution(Context<Reference>&, const Batch& batch, Rows<const S> x, Rows<const S> taps, Rows<const S> bias,
                                 Rows<const S> gate, Rows<S> y) {
  reference::convolve<S>(batch, Wrap::causal, x, taps, bias, gate, {}, y);
}

/// Gradients of short_convolution; dgate = dy * (value before the gate).
template <class S, Index K = 0>
constexpr void short_convolution_backward(Context<Reference>& context, const Batch& batch, Rows<const S> x, Rows<const S> taps,
                                          Rows<const S> bias, Rows<const S> gate, Rows<const S> dy, Rows<S> dx, Write write,
                                          Rows<S> dgate, Rows<S> dtaps, Rows<S> dbias) {
  if (gate.rows > 0) {
    reference::convolve<S>(batch, Wrap::causal, x, taps, bias, {}, {}, dgate);
    multiply<S>(context, dgate, dy, dgate, Write::overwrite);
  }
  const auto dc = [&](Index i, Index c) { return gate.rows > 0 ? dy(i, c) * gate(i, c) : dy(i, c); };
  reference::convolve_backward<S>(batch, Wrap::causal, x, taps, dc, dx, write, dtaps, dbias);
}

/// The same with taps [L, D], of which a sequence of n rows uses the first n; cyclic: y[i] = sum_{t < n} taps[t] x[(i-t) mod n].
/// `convolved`, when it has rows, receives the value before the gate.
template <class S>
constexpr void long_convolution(Context<Reference>&, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const S> taps,
                                Rows<const S> bias, Rows<const S> gate, Rows<S> convolved, Rows<S> y) {
  reference::convolve<S>(batch, wrap, x, taps, bias, gate, convolved, y);
}

template <class S>
constexpr void long_convolution_backward(Context<Reference>& context, const Batch& batch, Wrap wrap, Rows<const S> x,
                                         Rows<const S> taps, Rows<const S> gate, Rows<const S> convolved, Rows<const S> dy,
                                         Rows<S> dx, Write write, Rows<S> dgate, Rows<S> dtaps, Rows<S> dbias) {
  if (gate.rows > 0) multiply<S>(context, convolved, dy, dgate, Write::overwrite);
  const auto dc = [&](Index i, Index c) { return gate.rows > 0 ? dy(i, c) * gate(i, c) : dy(i, c); };
  reference::convolve_backward<S>(batch, wrap, x, taps, dc, dx, write, dtaps, dbias);
}

}  // namespace coyote::inline v0

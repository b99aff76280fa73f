// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/reference/linear.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// The net of an implicit filter, and what it does besides its linear maps.

/// A linear map of a net, and where its gradients go. The output's bias may be absent.
template <class P>
struct NetMap {
  Rows<const P> weight, bias;
  Rows<P> dweight, dbias;
};

/// A net of `layers` hidden layers of `width` units each: map(0) takes the features, map(layers) gives the outputs; map(l) is a
/// NetMap<P>. frequency [1, width] is absent where the activation has none.
template <class P, class MapAt>
struct Net {
  Index layers, width;
  Rows<const P> frequency;
  Rows<P> dfrequency;
  MapAt map;
};

/// y[t] = x[t] * coarse[t / n] * fine[t % n], per channel, n = fine.rows. y may be x.
template <class P, RowContext C>
void apply_window(C& context, Rows<const P> coarse, Rows<const P> fine, Rows<const P> x, Rows<P> y) {
  context.for_rows(y.rows, 2 * y.width, [&](Index t) {
    const P *slow = coarse.row(t / fine.rows), *fast = fine.row(t % fine.rows);
    for (Index c = 0; c < y.width; ++c) y(t, c) = x(t, c) * (slow[c] * fast[c]);
  });
}

/// after = Activation::value(x) with x = before, or frequency * before where the activation has frequencies, [1, width].
template <class P, class Activation, RowContext C>
void activate_net(C& context, Rows<const P> frequency, Rows<const P> before, Rows<P> after) {
  context.for_rows(before.rows, (Activation::has_frequency ? 16 : 1) * before.width, [&](Index t) {
    for (Index k = 0; k < before.width; ++k) {
      if constexpr (Activation::has_frequency) {
        after(t, k) = Activation::value(frequency(0, k) * before(t, k));
      } else {
        after(t, k) = Activation::value(before(t, k));
      }
    }
  });
}

/// dbefore from dafter, which is used up; dfrequency += its gradient.
template <class P, class Activation, RowContext C>
void activate_net_backward(C& context, Rows<const P> frequency, Rows<const P> before, Rows<P> dafter, Rows<P> dbefore,
                           Rows<P> dfrequency) {
  context.for_rows(before.rows, (Activation::has_frequency ? 16 : 1) * before.width, [&](Index t) {
    for (Index k = 0; k < before.width; ++k) {
      if constexpr (Activation::has_frequency) {
        const P f = frequency(0, k), d = dafter(t, k) * Activation::slope(f * before(t, k));
        dbefore(t, k) = d * f;
        dafter(t, k) = d * before(t, k);
      } else {
        dbefore(t, k) = dafter(t, k) * Activation::slope(before(t, k));
      }
    }
  });
  if constexpr (Activation::has_frequency) {
    context.template sum_rows<P>(before.rows, dfrequency, [&](Index t, P* sums) {
      for (Index k = 0; k < before.width; ++k) sums[k] += dafter(t, k);
    });
  }
}

namespace detail {

/// implicit_net, one operation after the other.
template <class P, class Activation, class C, class MapAt>
void net_by_layers(C& context, const Net<P, MapAt>& net, Rows<const P> features, Rows<P> before, Rows<P> after, Rows<P> out) {
  const Batch rows{.sequences = 1, .length = out.rows};
  Rows<const P> x = features;
  for (Index l = 0; l < net.layers; ++l) {
    const NetMap<P> map = net.map(l);
    const Rows<P> sums = before.columns(l * net.width, net.width), units = after.columns(l * net.width, net.width);
    linear<P>(context, rows, x, map.weight, map.bias, sums);
    activate_net<P, Activation>(context, net.frequency, sums, units);
    x = units;
  }
  const NetMap<P> last = net.map(net.layers);
  linear<P>(context, rows, x, last.weight, last.bias, out);
}
template <class P, class Activation, class C, class MapAt>
void net_by_layers_backward(C& context, const Net<P, MapAt>& net, Rows<const P> features, Rows<const P> before,
                            Rows<const P> after, Rows<const P> dout, Rows<P> dfeatures) {
  const auto frame = context.frame();
  const Index n = dout.rows, width = net.width;
  const Batch rows{.sequences = 1, .length = n};
  auto gradient_ = context.template make<P>(n, width), scaled_ = context.template make<P>(n, width);
  const Rows<P> gradient = gradient_, scaled = scaled_;
  for (Index l = net.layers; l > 0; --l) {
    const NetMap<P> map = net.map(l);
    linear_backward<P>(context, rows, after.columns((l - 1) * width, width), map.weight, dout, gradient, Write::overwrite,
                       map.dweight, map.dbias);
    activate_net_backward<P, Activation>(context, net.frequency, before.columns((l - 1) * width, width), gradient, scaled,
                                         net.dfrequency);
    dout = scaled;
  }
  const NetMap<P> map = net.map(0);
  linear_backward<P>(context, rows, features, map.weight, dout, dfeatures, dfeatures.rows > 0 ? Write::add : Write::none,
                     map.dweight, map.dbias);
}

}  // namespace detail

/// out = the net at every row of `features`. before and after [rows, layers * width] keep the hidden layers' values before and
/// after the activation, side by side.
template <class P, class Activation, RowContext C, class MapAt>
void implicit_net(C& context, const Net<P, MapAt>& net, Rows<const P> features, Rows<P> before, Rows<P> after, Rows<P> out) {
  detail::net_by_layers<P, Activation>(context, net, features, before, after, out);
}
/// Adds to the gradients of all parameters of the net, and to dfeatures unless that is absent.
template <class P, class Activation, RowContext C, class MapAt>
void implicit_net_backward(C& context, const Net<P, MapAt>& net, Rows<const P> features, Rows<const P> before,
                           Rows<const P> after, Rows<const P> dout, Rows<P> dfeatures) {
  detail::net_by_layers_backward<P, Activation>(context, net, features, before, after, dout, dfeatures);
}

}  // namespace coyote::inline v0

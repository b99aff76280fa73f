// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <limits>
#include <type_traits>

#include "coyote/core/scalar.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// Sums of exponential sequences: the impulse responses of diagonal state spaces. Channels do not depend on each other;
// written once for the backends whose context has `for_rows`. Powers are made by repeated multiplication and polynomials
// by Horner's rule, so nothing is divided, any ring will do, and ratios of magnitude at most 1 are stable: the relative
// error of power t is about t roundings.

namespace detail {

/// Channels that are worked on together: neighbours in memory, one vector register or a few.
inline constexpr Index mode_block = 16;

/// x, or 0 where it is so small that it counts for nothing: products that decay would otherwise end in denormal numbers, which
/// processors are slow with, and stay there.
template <class P>
constexpr P flushed(P x) {
  if constexpr (std::floating_point<P>) {
    constexpr P tiny = std::numeric_limits<P>::min() / std::numeric_limits<P>::epsilon();
    return x < tiny && x > -tiny ? P{} : x;
  } else {
    return x;
  }
}

/// Calls work(first, count) for all blocks of channels; `count` is a constant where a block is full.
template <class C, class Work>
constexpr void for_mode_blocks(C& context, Index channels, Index operations, Work&& work) {
  context.for_rows(ceil_div(channels, mode_block), operations * mode_block, [&](Index block) {
    const Index first = block * mode_block, rest = channels - first;
    if (rest >= mode_block) {
      work(first, std::integral_constant<Index, mode_block>{});
    } else {
      work(first, rest);
    }
  });
}

}  // namespace detail

/// taps[t, c] = sum_s weight[s, c] ratio[s, c]^t. ratio, weight [modes, channels], at least one mode.
template <class P, RowContext C>
constexpr void exponential_taps(C& context, Rows<const P> ratio, Rows<const P> weight, Rows<P> taps) {
  detail::for_mode_blocks(context, taps.width, 3 * taps.rows * ratio.rows, [&](Index first, auto count) {
    P r[detail::mode_block]{}, power[detail::mode_block]{};
    for (Index s = 0; s < ratio.rows; ++s) {
      for (Index k = 0; k < count; ++k) {
        r[k] = ratio(s, first + k);
        power[k] = weight(s, first + k);
      }
      for (Index t = 0; t < taps.rows; ++t) {
        P* to = taps.row(t) + first;
        for (Index k = 0; k < count; ++k) {
          to[k] = s == 0 ? power[k] : to[k] + power[k];
          power[k] = detail::flushed(power[k] * r[k]);
        }
      }
    }
  });
}

/// What the gradients of exponential_taps are made of: value[s, c] = sum_t dtaps[t, c] ratio^t, the gradient by the weight,
/// and slope[s, c] = sum_t dtaps[t, c] t ratio^(t-1), which times the weight is that by the ratio.
template <class P, RowContext C>
constexpr void exponential_taps_backward(C& context, Rows<const P> ratio, Rows<const P> dtaps, Rows<P> value, Rows<P> slope) {
  detail::for_mode_blocks(context, dtaps.width, 4 * dtaps.rows * ratio.rows, [&](Index first, auto count) {
    for (Index s = 0; s < ratio.rows; ++s) {
      P r[detail::mode_block]{}, f[detail::mode_block]{}, g[detail::mode_block]{};
      for (Index k = 0; k < count; ++k) r[k] = ratio(s, first + k);
      for (Index t = dtaps.rows; t-- > 0;) {
        const P* from = dtaps.row(t) + first;
        for (Index k = 0; k < count; ++k) {
          g[k] = detail::flushed(g[k] * r[k] + f[k]);
          f[k] = detail::flushed(f[k] * r[k] + from[k]);
        }
      }
      for (Index k = 0; k < count; ++k) {
        value(s, first + k) = f[k];
        slope(s, first + k) = g[k];
      }
    }
  });
}

/// taps[t, c] = sum_s Re(weight_s ratio_s^t), complex numbers in two rows each: ratio and weight are [2 modes, channels],
/// row 2s the real and row 2s + 1 the imaginary part of mode s.
template <class P, RowContext C>
constexpr void complex_exponential_taps(C& context, Rows<const P> ratio, Rows<const P> weight, Rows<P> taps) {
  detail::for_mode_blocks(context, taps.width, 4 * taps.rows * ratio.rows, [&](Index first, auto count) {
    constexpr Index block = detail::mode_block;
    P r[block]{}, i[block]{}, power[block]{}, imaginary[block]{};
    for (Index s = 0; s < ratio.rows; s += 2) {
      for (Index k = 0; k < count; ++k) {
        r[k] = ratio(s, first + k);
        i[k] = ratio(s + 1, first + k);
        power[k] = weight(s, first + k);
        imaginary[k] = weight(s + 1, first + k);
      }
      for (Index t = 0; t < taps.rows; ++t) {
        P* to = taps.row(t) + first;
        for (Index k = 0; k < count; ++k) {
          to[k] = s == 0 ? power[k] : to[k] + power[k];
          const P next = power[k] * r[k] - imaginary[k] * i[k];
          imaginary[k] = detail::flushed(power[k] * i[k] + imaginary[k] * r[k]);
          power[k] = detail::flushed(next);
        }
      }
    }
  });
}

/// The complex value_s = sum_t dtaps[t] ratio_s^t and slope_s = sum_t dtaps[t] t ratio_s^(t-1), in the layout of
/// complex_exponential_taps. A change of the weight and the ratio changes the loss by Re(value dweight + weight slope dratio).
template <class P, RowContext C>
constexpr void complex_exponential_taps_backward(C& context, Rows<const P> ratio, Rows<const P> dtaps, Rows<P> value,
                                                 Rows<P> slope) {
  detail::for_mode_blocks(context, dtaps.width, 8 * dtaps.rows * ratio.rows, [&](Index first, auto count) {
    constexpr Index block = detail::mode_block;
    for (Index s = 0; s < ratio.rows; s += 2) {
      P r[block]{}, i[block]{}, f[block]{}, fi[block]{}, g[block]{}, gi[block]{};
      for (Index k = 0; k < count; ++k) {
        r[k] = ratio(s, first + k);
        i[k] = ratio(s + 1, first + k);
      }
      for (Index t = dtaps.rows; t-- > 0;) {
        const P* from = dtaps.row(t) + first;
        for (Index k = 0; k < count; ++k) {
          const P slope_real = g[k] * r[k] - gi[k] * i[k] + f[k];
          gi[k] = detail::flushed(g[k] * i[k] + gi[k] * r[k] + fi[k]);
          g[k] = detail::flushed(slope_real);
          const P value_real = f[k] * r[k] - fi[k] * i[k] + from[k];
          fi[k] = detail::flushed(f[k] * i[k] + fi[k] * r[k]);
          f[k] = detail::flushed(value_real);
        }
      }
      for (Index k = 0; k < count; ++k) {
        value(s, first + k) = f[k];
        value(s + 1, first + k) = fi[k];
        slope(s, first + k) = g[k];
        slope(s + 1, first + k) = gi[k];
      }
    }
  });
}

/// One row of every sequence: x_s <- ratio_s x_s + input_s u, y = sum_s output_s x_s. modes [sequences * modes, channels]: mode s
/// of sequence i in row i * modes + s. `input` may be absent: 1.
template <class S, RowContext C>
constexpr void modes_step(C& context, Rows<const parameter_t<S>> ratio, Rows<const parameter_t<S>> input,
                          Rows<const parameter_t<S>> output, Rows<parameter_t<S>> modes, Rows<const S> u, Rows<S> y) {
  using P = parameter_t<S>;
  context.for_rows(u.rows, 4 * ratio.rows * u.width, [&](Index i) {
    for (Index s = 0; s < ratio.rows; ++s) {
      P* x = modes.row(i * ratio.rows + s);
      for (Index c = 0; c < u.width; ++c) {
        const P now = static_cast<P>(u(i, c));
        x[c] = ratio(s, c) * x[c] + (input.rows > 0 ? input(s, c) * now : now);
        const P part = output(s, c) * x[c];
        y(i, c) = s == 0 ? static_cast<S>(part) : static_cast<S>(static_cast<P>(y(i, c)) + part);
      }
    }
  });
}

}  // namespace coyote::inline v0

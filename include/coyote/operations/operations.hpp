// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a backend provides: free functions whose first argument is its context, found by argument-dependent look-up.
/// Layers are written once, over these. S is the scalar of activations, P = parameter_t<S> that of parameters.
/// All views are row-major Rows; a view with no rows means "absent". Nothing overlaps unless said.
///
/// Bias: a view of 0 rows (none), 1 row (per channel) or L rows (per position and channel, L >= the longest sequence).
/// Gradients of parameters (dweight, dtaps, dbias, ...) are added to; absent ones are not wanted.
///
///     copy<S>(ctx, x, y)                               y = x
///     accumulate<S>(ctx, x, y)                         y += x
///     multiply<S>(ctx, a, b, y, write)                 y (=|+=) a * b, elementwise
///     clear<S>(ctx, y)                                 y = 0
///     linear<S>(ctx, batch, x, weight, bias, y)        y = x weight + bias;  weight [in, out]
///     linear_backward<S>(ctx, batch, x, weight, dy, dx, write, dweight, dbias)
///     short_convolution<S, K = 0>(ctx, batch, x, taps, bias, gate, y)
///                                                      y[i] = (sum_{k<=min(i,K-1)} taps[k] x[i-k] + bias) (* gate)
///     short_convolution_backward<S, K = 0>(ctx, batch, x, taps, bias, gate, dy, dx, write, dgate, dtaps, dbias)
///     long_convolution<S>(ctx, batch, wrap, x, taps, bias, gate, convolved, y)
///                                                      the same with taps [L, D]; `convolved`, when present, receives
///                                                      the value before the gate
///     long_convolution_backward<S>(ctx, batch, wrap, x, taps, gate, convolved, dy, dx, write, dgate, dtaps, dbias)
///     attention<S, Pattern>(ctx, batch, index, heads, scale, dropout, q, k, v, y, log_sum_exp)
///     attention_backward<S, Pattern>(ctx, batch, index, heads, scale, dropout, q, k, v, y, log_sum_exp, dy, dq,
///                                                      dk, dv)
///     ... and one per remaining leaf; each is documented with its Reference implementation, which is its definition.

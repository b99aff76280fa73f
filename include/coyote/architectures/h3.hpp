// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/contract.hpp"
#include "coyote/combinators/outer.hpp"
#include "coyote/filters/diagonal.hpp"
#include "coyote/filters/shared.hpp"
#include "coyote/filters/shift.hpp"
#include "coyote/filters/skip.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/long_conv.hpp"

namespace coyote::inline v0 {

/// H3 with H = D / E heads of E channels: q, k, v linear in u, and for every head g
///
///     kbar = shift * k + D_k k                        one filter per channel
///     z[a, b] = diagonal_g * (kbar[a] v[b]) + D_g kbar[a] v[b]      one filter per head, E * E channels each
///     o[b] = sum_a q[a] z[a, b]
///
/// then y = o W_o + b_o. In and out [batch, length, D]. Degree 3. With FirFilter and DiagonalFilter it has the parameters, cost
/// and state of a recurrent H3 with m taps and n_s real modes: 4D^2 + 4D + mD + D + (3 n_s + 1) H parameters, state (m-1) D +
/// D E n_s. Errors: a width that E does not divide. Source: H3 (arXiv 2212.14052), section 3.
template <class Shift, class Diagonal, Index E = 1>
using H3 = Chain<Contract<E,                                                                     //
                          Linear,                                                                // q
                          Chain<Outer<E,                                                         //
                                      Chain<Linear, LongConv<WithSkip<Shift>, Causal, NoBias>>,  // k
                                      Linear>,                                                   // v
                                LongConv<SharedFilter<E * E, WithSkip<Diagonal>>, Causal, NoBias>>>,
                 Linear>;

/// As in the public code: heads of 2 channels, a shift state space of L states with its input vector trained too (D*L
/// parameters and the making of the taps beyond the recurrent form), L / 2 complex modes (which count twice in the state).
/// Channel (g, a) is column g*2 + a on the way in and out.
using H3Public = H3<ShiftFilter, ComplexDiagonalFilter, 2>;

/// The options of an H3's shift filter and of its diagonal filter, given the options of the whole.
template <class Options>
constexpr auto& h3_shift(Options& options) {
  return std::get<1>(std::get<0>(std::get<0>(options.parts).right.parts).left.parts).filter.filter;
}
template <class Options>
constexpr auto& h3_diagonal(Options& options) {
  return std::get<1>(std::get<0>(options.parts).right.parts).filter.filter;
}

}  // namespace coyote::inline v0

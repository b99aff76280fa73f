// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/contract.hpp"
#include "coyote/combinators/outer.hpp"
#include "coyote/filters/decay.hpp"
#include "coyote/filters/shared.hpp"
#include "coyote/filters/sum.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/long_conv.hpp"

namespace coyote::inline v0 {

/// Linear attention with heads of E channels: q, k, v linear in u, and for every head g
///
///     z_i[a, b] = sum_{j<=i} taps_g[i-j] k_j[a] v_j[b]              a state of E * E numbers
///     o_i[b] = sum_a q_i[a] z_i[a, b]   ( = sum_{j<=i} taps_g[i-j] <q_i, k_j> v_j[b] )
///
/// then y = o W_o + b_o. In and out [batch, length, D]. The features are queries and keys themselves and the sum is not
/// normalised, so that it is a polynomial, of degree 3. With SumFilter: 4D^2 + 4D parameters, 4 L D^2 + 2 L D E
/// multiplications, 4 L D^2 + L D (2E - 1) additions, state D E. Errors: a width that E does not divide.
/// Source: Katharopoulos et al. (arXiv 2006.16236), eq. 8, without the normaliser.
template <Index E, class F = SumFilter>
using LinearAttention = Chain<Contract<E, Linear,                       // q
                                       Chain<Outer<E, Linear, Linear>,  // k, v
                                             LongConv<SharedFilter<E * E, F>, Causal, NoBias>>>,
                              Linear>;

/// Retention: the same with taps_g[t] = gain_g decay_g^t, one gain and one decay per head, which train (DecayFilter). Beyond
/// linear attention's: 2 D/E parameters and 2 L D E multiplications. The published layer also rotates queries and keys,
/// normalises each head and gates the result: these are not in it.
/// Source: Retentive Network (arXiv 2307.08621), eq. 5.
template <Index E>
using Retention = LinearAttention<E, DecayFilter>;

}  // namespace coyote::inline v0

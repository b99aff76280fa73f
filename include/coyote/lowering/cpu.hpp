// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/lowering/gated_convolution.hpp"
#include "coyote/lowering/lowered.hpp"

namespace coyote::inline v0 {

// The fusion rules of the Cpu backend.

/// A gate whose right branch is a convolution: bias and gate go into the convolution's epilogue.
template <class A, Index K, class Bias>
struct Lower<Combine<Product, A, ShortConv<K, Bias>>, Cpu> {
  using type = internal::GatedConvolution<lowered<A, Cpu>, ShortConv<K, Bias>>;
};
template <class A, class F, class Ends, class Bias>
struct Lower<Combine<Product, A, LongConv<F, Ends, Bias>>, Cpu> {
  using type = internal::GatedConvolution<lowered<A, Cpu>, LongConv<F, Ends, Bias>>;
};

}  // namespace coyote::inline v0

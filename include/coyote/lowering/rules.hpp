// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/lowering/gated_convolution.hpp"
#include "coyote/lowering/lowered.hpp"

namespace coyote::inline v0 {

// The fusion rules, and which backends have them. They are types alone: a rule for a device brings none of its headers.

/// Convolutions apply a gate while they store their value.
template <class Backend>
inline constexpr bool gates_convolutions = std::same_as<Backend, Cpu> || std::same_as<Backend, Cuda>;

/// A gate whose right branch is a convolution: bias and gate go into the convolution's epilogue.
template <class A, Index K, class Bias, class Backend>
requires gates_convolutions<Backend>
struct Lower<Combine<Product, A, ShortConv<K, Bias>>, Backend> {
  using type = internal::GatedConvolution<lowered<A, Backend>, ShortConv<K, Bias>>;
};
template <class A, class F, class Ends, class Bias, class Backend>
requires gates_convolutions<Backend>
struct Lower<Combine<Product, A, LongConv<F, Ends, Bias>>, Backend> {
  using type = internal::GatedConvolution<lowered<A, Backend>, LongConv<F, Ends, Bias>>;
};

}  // namespace coyote::inline v0

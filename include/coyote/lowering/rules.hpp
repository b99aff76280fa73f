// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/lowering/convolution_with_input.hpp"
#include "coyote/lowering/gated_convolution.hpp"
#include "coyote/lowering/lowered.hpp"
#include "coyote/lowering/projections.hpp"
#include "coyote/lowering/time_mix.hpp"

namespace coyote::inline v0 {

// The fusion rules, and which backends have them. They are types alone: a rule for a device brings none of its headers.

/// Convolutions take in what stands around them: a gate while they store their value, the input itself as a tap.
template <class Backend>
inline constexpr bool fuses_convolutions = std::same_as<Backend, Cpu> || std::same_as<Backend, Cuda>;

/// Linear maps of one input are one product.
template <class Backend, class M>
inline constexpr bool packs_projections = std::same_as<Backend, Cuda>&& internal::Projections<M>::count > 1;

namespace internal {
/// Mixers whose layer can gate its output.
template <class M>
inline constexpr bool is_convolution = false;
template <Index K, class Bias>
inline constexpr bool is_convolution<ShortConv<K, Bias>> = true;
template <class F, class Ends, class Bias>
inline constexpr bool is_convolution<LongConv<F, Ends, Bias>> = true;
template <class F, class Ends, class Bias>
inline constexpr bool is_convolution<ConvolutionWithInput<F, Ends, Bias>> = true;
}  // namespace internal

/// A long convolution plus its input: one more tap of weight 1.
template <class F, class Ends, class Bias, class Backend>
requires fuses_convolutions<Backend>
struct Lower<Combine<Addition, LongConv<F, Ends, Bias>, Identity>, Backend> {
  using type = internal::ConvolutionWithInput<F, Ends, Bias>;
};

/// A gate whose right branch is a convolution: bias and gate go into the convolution's epilogue.
template <class A, class C, class Backend>
requires(
    fuses_convolutions<Backend>&& internal::is_convolution<lowered<C, Backend>>) struct Lower<Combine<Product, A, C>, Backend> {
  using type = internal::GatedConvolution<lowered<A, Backend>, lowered<C, Backend>>;
};

/// Two branches that read their input by linear maps alone, and those alike: the maps are one product.
template <class Join, class A, class B, class Backend>
requires packs_projections<Backend, Combine<Join, A, B>>
struct Lower<Combine<Join, A, B>, Backend> {
  using M = Combine<Join, A, B>;
  using type = internal::Projected<M, lowered<typename internal::Projections<M>::template numbered<0>, Backend>>;
};

/// What stands between the token shift and the last map of RWKV-4's time mix.
template <class Backend>
requires std::same_as<Backend, Cuda>
struct Lower<internal::GatedWkv, Backend> {
  using type = internal::TimeMix;
};

}  // namespace coyote::inline v0

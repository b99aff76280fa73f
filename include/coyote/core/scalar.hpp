// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>

#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// A commutative ring: what Reference computes over (float, double, integers, exact rationals, prime fields).
template <class S>
concept Ring = std::regular<S> && requires(S a, S b) {
  { a + b } -> std::convertible_to<S>;
  { a - b } -> std::convertible_to<S>;
  { a* b } -> std::convertible_to<S>;
  { -a } -> std::convertible_to<S>;
  a += b;
  static_cast<S>(1);
};

/// True for scalars with division, order, exp, sqrt, sin and cos (found by argument-dependent look-up or in std).
/// Specialise it for a floating type of your own.
template <class S>
inline constexpr bool is_real = std::floating_point<S>;

/// What norms, softmax, activations and implicit filters ask of a scalar.
template <class S>
concept Real = Ring<S> && is_real<S>;

namespace detail {
template <class S>
struct ParameterOf {
  using type = S;
};
}  // namespace detail

/// The type of parameters, gradients of parameters, taps, statistics and recurrent states for activations of type S:
/// S itself, except that 16-bit activations keep them in float.
template <class S>
using parameter_t = typename detail::ParameterOf<S>::type;

}  // namespace coyote::inline v0

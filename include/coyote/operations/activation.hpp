// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/mixer.hpp"

namespace coyote::inline v0 {

/// 1 / (1 + exp(-x)): one special function, as far as counting goes. A scalar that counts brings its own.
template <class P>
COYOTE_HOST_DEVICE P logistic(P x) {
  using std::exp;
  const P one = static_cast<P>(1.0);
  return one / (one + exp(-x));
}

/// exp(x - shift), where the shift only keeps the exponent small: one special function, as far as counting goes. A scalar
/// that counts brings its own.
template <class P>
P shifted_exponential(P x, P shift) {
  using std::exp;
  return exp(x - shift);
}

/// The arithmetic that a pointwise function is written over: one number at a time. The Cpu backend has the same for
/// registers (cpu::VectorMath).
template <class P>
struct ScalarMath {
  using Value = P;
  COYOTE_HOST_DEVICE static P constant(double value) { return static_cast<P>(value); }
  COYOTE_HOST_DEVICE static P sigmoid(P x) { return logistic(x); }
};

/// Pointwise functions for Activation. Each is written once, over a Math:
///
///     template <class Math> static typename Math::Value value(typename Math::Value x);        // f(x)
///     template <class Math> static typename Math::Value derivative(typename Math::Value x);   // f'(x)
///     static constexpr Cost cost;                                                             // of one number
///
/// where Math::constant(double) is a constant, Math::sigmoid the logistic function, and comparisons choose by `? :`.
namespace functions {

/// x / (1 + exp(-x))
struct Silu {
  static constexpr Cost cost{.multiplications = 1, .functions = 1};
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value value(typename Math::Value x) {
    return x * Math::sigmoid(x);
  }
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value derivative(typename Math::Value x) {
    const auto s = Math::sigmoid(x), one = Math::constant(1);
    return s * (one + x * (one - s));
  }
};

/// The tanh form, x / 2 (1 + tanh(z)) = x sigmoid(2 z) with z = sqrt(2 / pi) (x + 0.044715 x^3).
struct Gelu {
  static constexpr Cost cost{.multiplications = 4, .additions = 1, .functions = 1};
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value value(typename Math::Value x) {
    return x * gate<Math>(x).sigmoid;
  }
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value derivative(typename Math::Value x) {
    const auto g = gate<Math>(x);
    const auto one = Math::constant(1);
    return g.sigmoid * (one + x * (one - g.sigmoid) * (Math::constant(linear) + Math::constant(3 * cubic) * g.square));
  }

 private:
  static constexpr double linear = 1.59576912160573071176, cubic = linear * 0.044715;  // linear = 2 sqrt(2 / pi)
  template <class Value>
  struct Gate {
    Value sigmoid, square;
  };
  /// Far out the gate is 0 or 1 in every format, and bounding its argument keeps the cube finite.
  template <class Math>
  COYOTE_HOST_DEVICE static Gate<typename Math::Value> gate(typename Math::Value x) {
    const auto low = Math::constant(-20), high = Math::constant(20);
    x = x < low ? low : x;
    x = x > high ? high : x;
    const auto square = x * x;
    return {Math::sigmoid(x * (Math::constant(linear) + Math::constant(cubic) * square)), square};
  }
};

/// 1 / (1 + exp(-x))
struct Sigmoid {
  static constexpr Cost cost{.functions = 1};
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value value(typename Math::Value x) {
    return Math::sigmoid(x);
  }
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value derivative(typename Math::Value x) {
    const auto s = Math::sigmoid(x);
    return s * (Math::constant(1) - s);
  }
};

/// max(x, 0); its derivative at 0 is 0.
struct Relu {
  static constexpr Cost cost{};
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value value(typename Math::Value x) {
    const auto zero = Math::constant(0);
    return x < zero ? zero : x;  // so that NaN stays NaN
  }
  template <class Math>
  COYOTE_HOST_DEVICE static typename Math::Value derivative(typename Math::Value x) {
    const auto zero = Math::constant(0);
    return x > zero ? Math::constant(1) : zero;
  }
};

}  // namespace functions
}  // namespace coyote::inline v0

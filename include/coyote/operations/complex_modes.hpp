// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/scalar.hpp"
#include "coyote/operations/modes.hpp"

namespace coyote::inline v0 {

/// The parameters of a diagonal state space with complex modes, or their gradients: A = -exp(log_decay) + i frequency, [modes,
/// channels] each; input and output, [2 modes, channels], with the real part of mode n in row 2n and its imaginary part in row
/// 2n + 1; log_step [1, channels], the logarithm of dt.
template <class P>
struct ComplexModes {
  Rows<P> log_decay, frequency, input, output, log_step;
};

namespace detail {

/// As much of complex numbers as the bilinear rule needs, for any real scalar; std::complex is meant for the built-in ones.
template <class P>
struct Complex {
  P real{}, imaginary{};
  COYOTE_HOST_DEVICE friend constexpr Complex operator+(Complex a, Complex b) {
    return {a.real + b.real, a.imaginary + b.imaginary};
  }
  COYOTE_HOST_DEVICE friend constexpr Complex operator*(Complex a, Complex b) {
    return {a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real};
  }
  COYOTE_HOST_DEVICE friend constexpr Complex operator*(P a, Complex b) { return {a * b.real, a * b.imaginary}; }
  COYOTE_HOST_DEVICE constexpr Complex reciprocal() const {
    const P norm = real * real + imaginary * imaginary;
    return {real / norm, -imaginary / norm};
  }
};

/// Mode n of channel c among rows of pairs.
template <class T>
COYOTE_HOST_DEVICE Complex<std::remove_const_t<T>> complex_at(Rows<T> rows, Index n, Index c) {
  return {rows(2 * n, c), rows(2 * n + 1, c)};
}
template <class P>
COYOTE_HOST_DEVICE void put_complex(Rows<P> rows, Index n, Index c, Complex<P> z) {
  rows(2 * n, c) = z.real;
  rows(2 * n + 1, c) = z.imaginary;
}
/// The loss changes by Re(by dz): a gradient by z.real of Re(by) and by z.imaginary of -Im(by).
template <class P>
COYOTE_HOST_DEVICE void add_complex(Rows<P> gradient, Index n, Index c, Complex<P> by) {
  gradient(2 * n, c) += by.real;
  gradient(2 * n + 1, c) += -by.imaginary;
}

/// One mode of one channel by the bilinear rule, with q = 1 / (1 - dt A / 2): ratio = 2q - 1 and weight = 2 output input dt q.
template <class P>
struct DiscreteMode {
  Complex<P> a;
  P dt;
  Complex<P> q;

  COYOTE_HOST_DEVICE DiscreteMode(const ComplexModes<const P>& modes, Index n, Index c) {
    using std::exp;
    const P half = static_cast<P>(0.5), one = static_cast<P>(1.0);
    a = {-exp(modes.log_decay(n, c)), modes.frequency(n, c)};
    dt = exp(modes.log_step(0, c));
    q = Complex<P>{one - half * dt * a.real, -(half * dt * a.imaginary)}.reciprocal();
  }
  COYOTE_HOST_DEVICE Complex<P> ratio() const {
    const P two = static_cast<P>(2.0);
    return {two * q.real - static_cast<P>(1.0), two * q.imaginary};
  }
  COYOTE_HOST_DEVICE Complex<P> weight(const ComplexModes<const P>& modes, Index n, Index c) const {
    return static_cast<P>(2.0) * dt * (complex_at(modes.output, n, c) * complex_at(modes.input, n, c) * q);
  }

  /// Adds to the gradients of a mode and gives that of log_step, which all modes of a channel share. The loss changes by
  /// Re(by_weight dweight + by_ratio dratio), and so on down to the parameters; dq/dA = dt q^2 / 2 and dq/ddt = A q^2 / 2.
  COYOTE_HOST_DEVICE P backward(const ComplexModes<const P>& modes, Index n, Index c, Complex<P> by_weight, Complex<P> by_ratio,
                                const ComplexModes<P>& gradients) const {
    const P half = static_cast<P>(0.5), two = static_cast<P>(2.0);
    const Complex<P> input = complex_at(modes.input, n, c), output = complex_at(modes.output, n, c);
    const Complex<P> e = two * dt * q, by_product = by_weight * e, by_e = by_weight * input * output;
    add_complex(gradients.output, n, c, by_product * input);
    add_complex(gradients.input, n, c, by_product * output);
    const Complex<P> q2 = q * q, by_q = two * dt * by_e + two * by_ratio;
    const Complex<P> by_a = by_q * (half * dt * q2);
    const Complex<P> by_dt = two * by_e * q + by_q * (half * a * q2);
    gradients.log_decay(n, c) += by_a.real * a.real;  // dA / dlog_decay = Re A
    gradients.frequency(n, c) += -by_a.imaginary;
    return by_dt.real * dt;
  }
};

}  // namespace detail

/// ratio and weight [2 modes, channels] of complex_exponential_taps, by the bilinear rule at the step dt.
template <class P, RowContext C>
void discretise_modes(C& context, const ComplexModes<const P>& modes, Rows<P> ratio, Rows<P> weight) {
  context.for_rows(modes.log_decay.rows, 64 * ratio.width, [&](Index n) {
    for (Index c = 0; c < ratio.width; ++c) {
      const detail::DiscreteMode<P> mode(modes, n, c);
      detail::put_complex(ratio, n, c, mode.ratio());
      detail::put_complex(weight, n, c, mode.weight(modes, n, c));
    }
  });
}

/// Adds to the gradients of the parameters, from value and slope of complex_exponential_taps_backward.
template <class P, RowContext C>
void discretise_modes_backward(C&, const ComplexModes<const P>& modes, Rows<const P> weight, Rows<const P> value,
                               Rows<const P> slope, const ComplexModes<P>& gradients) {
  for (Index n = 0; n < modes.log_decay.rows; ++n) {
    for (Index c = 0; c < weight.width; ++c) {
      const auto by_ratio = detail::complex_at(weight, n, c) * detail::complex_at(slope, n, c);
      gradients.log_step(0, c) +=
          detail::DiscreteMode<P>(modes, n, c).backward(modes, n, c, detail::complex_at(value, n, c), by_ratio, gradients);
    }
  }
}

/// One row of every sequence: x_n <- ratio_n x_n + u, y = sum_n Re(weight_n x_n), complex x. modes [sequences * 2 * modes,
/// channels]: mode n of sequence s in rows s * 2 * modes + 2n and + 2n + 1.
template <class S, RowContext C>
void complex_modes_step(C& context, Rows<const parameter_t<S>> ratio, Rows<const parameter_t<S>> weight,
                        Rows<parameter_t<S>> modes, Rows<const S> u, Rows<S> y) {
  using P = parameter_t<S>;
  context.for_rows(u.rows, 6 * ratio.rows * u.width, [&](Index i) {
    for (Index n = 0; n < ratio.rows; n += 2) {
      P *real = modes.row(i * ratio.rows + n), *imaginary = modes.row(i * ratio.rows + n + 1);
      const P *rr = ratio.row(n), *ri = ratio.row(n + 1), *wr = weight.row(n), *wi = weight.row(n + 1);
      for (Index c = 0; c < u.width; ++c) {
        const P next = rr[c] * real[c] - ri[c] * imaginary[c] + static_cast<P>(u(i, c));
        imaginary[c] = rr[c] * imaginary[c] + ri[c] * real[c];
        real[c] = next;
        const P part = wr[c] * real[c] - wi[c] * imaginary[c];
        y(i, c) = n == 0 ? static_cast<S>(part) : static_cast<S>(static_cast<P>(y(i, c)) + part);
      }
    }
  });
}

}  // namespace coyote::inline v0

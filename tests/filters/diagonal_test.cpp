// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/filters/diagonal.hpp"

#include <complex>

#include "coyote/mixers/long_conv.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/decoding.hpp"
#include "support/taps.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// h[t] = sum_s c_s a_s^t b_s
template <class Backend, class S>
void real_taps(Index modes, Index n, Index d) {
  TapsBench<DiagonalFilter, Backend, S> bench(d, n, {.modes = modes}, !std::same_as<S, long>);
  const Rows<S> a = bench.value("filter.decay"), b = bench.value("filter.input"), c = bench.value("filter.output");
  for (Index s = 0; s < modes; ++s) {
    for (Index k = 0; k < d; ++k) {
      if constexpr (std::same_as<S, long>) {
        a(s, k) = (s + k) % 5 - 2;
        b(s, k) = (2 * s + k) % 7 - 3;
        c(s, k) = (s + 3 * k) % 5 - 2;
      } else if (std::abs(static_cast<double>(a(s, k))) > 1) {
        a(s, k) = static_cast<S>(-0.9);
      }
    }
  }
  Matrix<S> expected(n, d);
  for (Index t = 0; t < n; ++t) {
    for (Index k = 0; k < d; ++k) {
      if constexpr (std::same_as<S, long>) {
        for (Index s = 0; s < modes; ++s) {
          long power = 1;
          for (Index i = 0; i < t; ++i) power *= a(s, k);
          expected(t, k) += c(s, k) * power * b(s, k);
        }
      } else {
        double sum = 0;
        for (Index s = 0; s < modes; ++s) {
          sum += static_cast<double>(c(s, k)) * std::pow(static_cast<double>(a(s, k)), static_cast<double>(t)) *
                 static_cast<double>(b(s, k));
        }
        expected(t, k) = static_cast<S>(sum);
      }
    }
  }
  const Matrix<S> taps = bench.taps(n);
  if constexpr (std::same_as<S, long>) {
    for (Index i = 0; i < taps.size(); ++i) CHECK(taps.data()[i] == expected.data()[i]);
  } else {
    CHECK(relative_error(taps, expected) <= Tolerance<S>::forward);
    check_controls(expected, Tolerance<S>::forward);
  }
}

/// h_t = 2 Re sum_n C_n B_n dt/(1 - dt A_n/2) ((1 + dt A_n/2)/(1 - dt A_n/2))^t
template <class Backend, class S>
void complex_taps(Index modes, Index n, Index d) {
  using Number = std::complex<double>;
  TapsBench<ComplexDiagonalFilter, Backend, S> bench(d, n, {.modes = modes});
  const Rows<S> decay = bench.value("filter.log_decay"), frequency = bench.value("filter.frequency"),
                input = bench.value("filter.input"), output = bench.value("filter.output"), step = bench.value("filter.log_step");
  Matrix<S> expected(n, d);
  for (Index k = 0; k < d; ++k) {
    const double dt = std::exp(static_cast<double>(step(0, k)));
    for (Index t = 0; t < n; ++t) {
      Number sum = 0;
      for (Index m = 0; m < decay.rows; ++m) {
        const Number a(-std::exp(static_cast<double>(decay(m, k))), static_cast<double>(frequency(m, k)));
        const Number b(static_cast<double>(input(2 * m, k)), static_cast<double>(input(2 * m + 1, k)));
        const Number c(static_cast<double>(output(2 * m, k)), static_cast<double>(output(2 * m + 1, k)));
        const Number q = 1.0 / (1.0 - dt * a / 2.0);
        sum += c * b * dt * q * std::pow((1.0 + dt * a / 2.0) * q, static_cast<double>(t));
      }
      expected(t, k) = static_cast<S>(2 * sum.real());
    }
  }
  CHECK(relative_error(bench.taps(n), expected) <= 10 * Tolerance<S>::forward);
  check_controls(expected, 10 * Tolerance<S>::forward);
}

/// A convolution with two integer modes: forward by the taps, step by the recurrence, both at compile time.
constexpr bool exact() {
  const Index n = 6;
  auto model = Model<LongConv<DiagonalFilter, Causal, NoBias>, Reference, long>::blank({2, n}, {.filter = {.modes = 2}});
  auto set = [](const Path&, auto& p) {
    for (Index s = 0; s < p.rows; ++s) {
      for (Index c = 0; c < p.columns; ++c) p.value(s, c) = static_cast<long>(2 * s + c) - 1;
    }
  };
  model.visit(set);
  return steps_exactly(model, n, 4);
}
static_assert(exact());

}  // namespace

TEST_CASE("real modes: taps are their formula") {
  for (const auto& [modes, n, d] : {std::tuple<Index, Index, Index>{1, 1, 1}, {2, 9, 3}, {4, 20, 16}, {3, 20, 37}}) {
    real_taps<Reference, long>(modes, n, d);
    real_taps<Reference, double>(modes, n, d);
    real_taps<Cpu, float>(modes, n, d);
    real_taps<Cpu, double>(modes, n, d);
  }
}

TEST_CASE("complex modes: taps are their formula") {
  for (const auto& [modes, n, d] : {std::tuple<Index, Index, Index>{1, 1, 1}, {2, 9, 3}, {0, 20, 16}, {3, 20, 37}}) {
    complex_taps<Reference, double>(modes, n, d);
    complex_taps<Cpu, float>(modes, n, d);
    complex_taps<Cpu, double>(modes, n, d);
  }
}

TEST_CASE("complex modes begin as published: half the length of them, decay 1/2, frequencies pi n, steps in range") {
  TapsBench<ComplexDiagonalFilter, Reference, double> bench(8, 12, {}, false);
  const auto frequency = bench.value("filter.frequency"), step = bench.value("filter.log_step");
  CHECK(frequency.rows == 6);
  double power = 0;
  for (Index c = 0; c < 8; ++c) {
    CHECK(std::exp(step(0, c)) >= 0.001);
    CHECK(std::exp(step(0, c)) <= 0.1);
    for (Index n = 0; n < 6; ++n) {
      CHECK(std::exp(bench.value("filter.log_decay")(n, c)) == doctest::Approx(0.5));
      CHECK(frequency(n, c) == doctest::Approx(std::acos(-1.0) * static_cast<double>(n)));
      CHECK(bench.value("filter.input")(2 * n, c) == 1);
      CHECK(bench.value("filter.input")(2 * n + 1, c) == 0);
      power += std::pow(bench.value("filter.output")(2 * n, c), 2) + std::pow(bench.value("filter.output")(2 * n + 1, c), 2);
    }
  }
  CHECK(power / 48 == doctest::Approx(1).epsilon(0.5));
}

TEST_CASE("long products are stable: taps and gradients of modes on and near the unit circle, 5000 rows") {
  const Index n = 5000, d = 3;
  TapsBench<DiagonalFilter, Cpu, float> bench(d, n, {.modes = 2}, false);
  const Rows<float> a = bench.value("filter.decay"), b = bench.value("filter.input"), c = bench.value("filter.output");
  const float ratios[2][3] = {{1, -1, 0.999F}, {0.5F, -0.9999F, 0}};
  for (Index s = 0; s < 2; ++s) {
    for (Index k = 0; k < d; ++k) {
      a(s, k) = ratios[s][k];
      b(s, k) = 1;
      c(s, k) = static_cast<float>(s + 1);
    }
  }
  const Matrix<float> w = random_matrix<float>(n, d, 3);
  Matrix<double> taps(n, d), da(2, d), dc(2, d);
  for (Index t = 0; t < n; ++t) {
    for (Index k = 0; k < d; ++k) {
      for (Index s = 0; s < 2; ++s) {
        const double r = static_cast<double>(a(s, k)), x = static_cast<double>(t), g = static_cast<double>(w(t, k));
        taps(t, k) += static_cast<double>(s + 1) * std::pow(r, x);
        dc(s, k) += g * std::pow(r, x);
        if (t > 0) da(s, k) += g * static_cast<double>(s + 1) * x * std::pow(r, x - 1);
      }
    }
  }
  CHECK(relative_error(bench.taps(n), taps) <= 1e-4);
  bench.gradients(w.view());
  Matrix<float> got_a(2, d), got_c(2, d);
  for (const auto& p : parameters_of<float>(bench.maker)) {
    for (Index s = 0; s < 2; ++s) {
      for (Index k = 0; k < d; ++k) {
        if (p.name == "filter.decay") got_a(s, k) = p.gradient(s, k);
        if (p.name == "filter.output") got_c(s, k) = p.gradient(s, k);
      }
    }
  }
  CHECK(relative_error(got_a, da) <= 1e-4);
  CHECK(relative_error(got_c, dc) <= 1e-4);
  check_controls(da, 1e-4);
}

TEST_CASE("long convolutions with diagonal filters do what a mixer owes") {
  conforms<LongConv<DiagonalFilter>, Reference, double>({.width = 3}, {.filter = {.modes = 2}});
  conforms<LongConv<DiagonalFilter>, Cpu, float>({.width = 17}, {.filter = {.modes = 1}});
  conforms<LongConv<ComplexDiagonalFilter>, Reference, double>({.width = 3});
  conforms<LongConv<ComplexDiagonalFilter>, Cpu, double>({.width = 2}, {.filter = {.modes = 2}});
  CHECK_THROWS_WITH_AS((TapsBench<DiagonalFilter, Cpu, float>(3, 8, {.modes = 0})), "filter: required at least one mode, came 0",
                       Error);
  CHECK_THROWS_AS((TapsBench<ComplexDiagonalFilter, Cpu, float>(3, 8, {.modes = -2})), Error);
  static_assert(is_supported<LongConv<DiagonalFilter>, Reference, long>);
  static_assert(!is_supported<LongConv<ComplexDiagonalFilter>, Reference, long>);
}

TEST_CASE_TEMPLATE("cost is what decoding counts", F, DiagonalFilter, ComplexDiagonalFilter) {
  constexpr Index n = 9, d = 4, modes = 3;
  using M = LongConv<F, Causal, NoBias>;
  const Cost expected = cost<M>(d, n, -1, {.filter = {.modes = modes}});
  const Cost counted = count_decoding<M>(d, n, {.filter = {.modes = modes}});
  CHECK(counted.multiplications == expected.multiplications);
  CHECK(counted.additions == expected.additions);
  CHECK(counted.state_scalars == expected.state_scalars);
}

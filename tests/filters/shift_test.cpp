// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/filters/shift.hpp"

#include "coyote/mixers/long_conv.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/decoding.hpp"
#include "support/taps.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// Small integers, different everywhere.
constexpr long number(Index i, Index c) { return static_cast<long>((3 * i + 5 * c + 2) % 7) - 3; }

template <class S>
constexpr void fill(Rows<S> rows, Index from = 0) {
  for (Index i = 0; i < rows.rows; ++i) {
    for (Index c = 0; c < rows.width; ++c) rows(i, c) = static_cast<S>(number(i + from, c));
  }
}

/// tap_t = sum_n B_n C_{n+t}
template <class Backend, class S>
void shift_taps(Index states, Index n) {
  const Index d = 3;
  TapsBench<ShiftFilter, Backend, S> bench(d, n, {.states = states});
  const Rows<S> b = bench.value("filter.input"), c = bench.value("filter.output");
  if constexpr (std::same_as<S, long>) {
    fill(b);
    fill(c, 4);
  }
  Matrix<S> expected(n, d);
  for (Index t = 0; t < n; ++t) {
    for (Index k = 0; k < d; ++k) {
      for (Index m = 0; m + t < states; ++m) expected(t, k) += b(m, k) * c(m + t, k);
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

/// A convolution with a shift filter in integers: forward by the taps, step by the ring of inputs, both at compile time.
constexpr bool exact(Index states, Index length) {
  auto model = Model<LongConv<ShiftFilter, Causal, NoBias>, Reference, long>::blank({2, length}, {.filter = {.states = states}});
  auto set = [](const Path&, auto& p) { fill(p.value, p.rows); };
  model.visit(set);
  return steps_exactly(model, length, 2 * ((states == 0 ? length : states) - 1));
}
static_assert(exact(3, 5) && exact(0, 4) && exact(1, 3) && exact(6, 4));

}  // namespace

TEST_CASE("shift taps are the correlation of input and output vectors") {
  for (const auto& [states, n] : {std::pair<Index, Index>{4, 4}, {4, 9}, {9, 4}, {1, 3}, {1, 1}, {33, 40}}) {
    shift_taps<Reference, long>(states, n);
    shift_taps<Reference, double>(states, n);
    shift_taps<Cpu, float>(states, n);
    shift_taps<Cpu, double>(states, n);
  }
}

TEST_CASE("at first the taps are the output vector: the input vector is e_1") {
  TapsBench<ShiftFilter, Reference, double> bench(3, 16, {}, false);
  const Rows<double> c = bench.value("filter.output");
  CHECK(c.rows == 16);
  const Matrix<double> taps = bench.taps(16);
  for (Index t = 0; t < 16; ++t) {
    for (Index k = 0; k < 3; ++k) {
      CHECK(taps(t, k) == c(t, k));
      CHECK(std::abs(c(t, k)) <= 0.25);
    }
  }
}

TEST_CASE("a few free taps") {
  TapsBench<FirFilter, Cpu, float> bench(3, 8, {.count = 4});
  const Matrix<float> taps = bench.taps(6);
  for (Index t = 0; t < 6; ++t) {
    for (Index c = 0; c < 3; ++c) CHECK(taps(t, c) == (t < 4 ? bench.value("filter.taps")(t, c) : 0.0F));
  }
  CHECK_THROWS_WITH_AS((TapsBench<FirFilter, Cpu, float>(3, 8, {.count = 0})), "filter: required at least one tap, came 0",
                       Error);
  CHECK_THROWS_AS((TapsBench<ShiftFilter, Cpu, float>(3, 8, {.states = -1})), Error);
}

TEST_CASE("long convolutions with shift filters do what a mixer owes, shorter and longer than the sequences") {
  conforms<LongConv<ShiftFilter>, Reference, double>({.width = 3}, {.filter = {.states = 3}});
  for (const Index states : {0, 1, 9}) conforms<LongConv<ShiftFilter>, Cpu, double>({.width = 3}, {.filter = {.states = states}});
  for (const Index count : {1, 3, 9}) conforms<LongConv<FirFilter>, Cpu, double>({.width = 3}, {.filter = {.count = count}});
}

TEST_CASE("cost is that of a convolution with m taps, and what decoding counts") {
  constexpr Index n = 9, d = 4, m = 3, products = m * n - m * (m - 1) / 2;
  using Fir = LongConv<FirFilter, Causal, NoBias>;
  constexpr Cost expected{
      .parameters = m * d, .multiplications = d * products, .additions = d * (products - n), .state_scalars = (m - 1) * d};
  static_assert(cost<Fir>(d, n, -1, {.filter = {.count = m}}) == expected);
  static_assert(state_is_bounded<Fir> && !state_is_bounded<LongConv<ShiftFilter>>);
  const Cost counted = count_decoding<Fir>(d, n, {.filter = {.count = m}});
  CHECK(counted.multiplications == expected.multiplications);
  CHECK(counted.additions == expected.additions);
  CHECK(counted.state_scalars == expected.state_scalars);
}

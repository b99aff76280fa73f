// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/filters/implicit.hpp"

#include "coyote/mixers/long_conv.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/counted.hpp"
#include "support/taps.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

const double pi = std::acos(-1.0);

/// z_t as published for three features.
std::vector<double> features(Index t, Index length) {
  const double place = length > 1 ? static_cast<double>(t) / static_cast<double>(length - 1) : 0.0;
  const double w = 2 * pi * static_cast<double>(t) / static_cast<double>(length);
  return {place, std::cos(1e-4 * w), -std::sin(1e-4 * w)};
}

/// k_t = W2 relu(W1 z_t + b1) + b2
template <class Backend, class S>
void coyote_form(Index length, Index n) {
  const Index d = 5;
  TapsBench<ImplicitFilter, Backend, S> bench(d, length);
  const auto w1 = bench.value("filter.hidden.0.weight"), b1 = bench.value("filter.hidden.0.bias");
  const auto w2 = bench.value("filter.output.weight"), b2 = bench.value("filter.output.bias");
  REQUIRE(w1.rows == 3);
  REQUIRE(w1.width == 16);
  Matrix<S> expected(n, d);
  for (Index t = 0; t < n; ++t) {
    const auto z = features(t, length);
    for (Index c = 0; c < d; ++c) {
      double sum = static_cast<double>(b2(0, c));
      for (Index k = 0; k < 16; ++k) {
        double x = static_cast<double>(b1(0, k));
        for (Index e = 0; e < 3; ++e) x += z[static_cast<std::size_t>(e)] * static_cast<double>(w1(e, k));
        sum += std::max(0.0, x) * static_cast<double>(w2(k, c));
      }
      expected(t, c) = static_cast<S>(sum);
    }
  }
  CHECK(relative_error(bench.taps(n), expected) <= Tolerance<S>::forward);
  check_controls(expected, Tolerance<S>::forward);
}

/// exp(-delta_c t/(L-1)) times three layers of sines
template <class Backend, class S>
void hyena_form(Index length, Index n, Index d = 5) {
  TapsBench<HyenaFilter, Backend, S> bench(d, length);
  const auto z = bench.value("filter.positions"), frequency = bench.value("filter.frequency");
  const auto out = bench.value("filter.output.weight");
  REQUIRE(z.rows == length);
  REQUIRE(frequency.width == 64);
  Matrix<S> expected(n, d);
  for (Index t = 0; t < n; ++t) {
    std::vector<double> x;
    for (Index e = 0; e < z.width; ++e) x.push_back(static_cast<double>(z(t, e)));
    for (const char* layer : {"0", "1", "2"}) {
      const auto w = bench.value("filter.hidden." + std::string(layer) + ".weight");
      const auto b = bench.value("filter.hidden." + std::string(layer) + ".bias");
      std::vector<double> next;
      for (Index k = 0; k < 64; ++k) {
        double sum = static_cast<double>(b(0, k));
        for (Index e = 0; e < w.rows; ++e) sum += x[static_cast<std::size_t>(e)] * static_cast<double>(w(e, k));
        next.push_back(std::sin(static_cast<double>(frequency(0, k)) * sum));
      }
      x = next;
    }
    for (Index c = 0; c < d; ++c) {
      double sum = 0;
      for (Index k = 0; k < 64; ++k) sum += x[static_cast<std::size_t>(k)] * static_cast<double>(out(k, c));
      const double low = std::abs(std::log(0.01)) / 1.5, high = std::abs(std::log(0.01)) / 0.3;
      const double delta = d > 1 ? low + (high - low) * static_cast<double>(c) / static_cast<double>(d - 1) : low;
      const double place = length > 1 ? static_cast<double>(t) / static_cast<double>(length - 1) : 0.0;
      expected(t, c) = static_cast<S>(std::exp(-delta * place) * sum);
    }
  }
  CHECK(relative_error(bench.taps(n), expected) <= 5 * Tolerance<S>::forward);
  check_controls(expected, 5 * Tolerance<S>::forward);
}

using Waves = ImplicitFilterWith<Sine, NoWindow, TrainedPositions, NoBias>;

}  // namespace

TEST_CASE_TEMPLATE("Coyote's taps are its formula", S, float, double) {
  for (const auto& [length, n] : {std::pair<Index, Index>{9, 9}, {9, 4}, {1, 1}, {64, 64}, {2, 1}}) {
    coyote_form<Reference, S>(length, n);
    coyote_form<Cpu, S>(length, n);
  }
}

TEST_CASE_TEMPLATE("Hyena's taps are its formula", S, float, double) {
  for (const auto& [length, n] : {std::pair<Index, Index>{9, 9}, {9, 4}, {1, 1}, {600, 600}, {2, 1}}) {
    hyena_form<Cpu, S>(length, n);
  }
  hyena_form<Reference, S>(9, 7);
  hyena_form<Cpu, S>(300, 20, 1);
}

TEST_CASE("at first, taps are about 0, Hyena's positions are the published features and its frequencies 1") {
  TapsBench<ImplicitFilter, Reference, double> small(4, 64, {}, false);
  for (const double tap : small.taps(64)) CHECK(std::abs(tap) < 0.01);
  TapsBench<HyenaFilter, Reference, double> hyena(4, 64, {}, false);
  for (Index t = 0; t < 64; ++t) {
    const auto z = features(t, 64);
    for (Index e = 0; e < 3; ++e) {
      CHECK(std::abs(hyena.value("filter.positions")(t, e) - z[static_cast<std::size_t>(e)]) <= 1e-15);
    }
  }
  for (Index k = 0; k < 64; ++k) CHECK(hyena.value("filter.frequency")(0, k) == 1);
}

TEST_CASE("more features are more frequencies, evenly spaced from 1e-4 to their number less 1") {
  TapsBench<Waves, Reference, double> bench(2, 10, {.features = 7}, false);
  const auto z = bench.value("filter.positions");
  for (Index t = 0; t < 10; ++t) {
    const double w = 2 * pi * static_cast<double>(t) / 10;
    for (Index b = 0; b < 3; ++b) {
      const double f = 1e-4 + (2 - 1e-4) * static_cast<double>(b) / 2;
      CHECK(std::abs(z(t, 1 + b) - std::cos(f * w)) <= 1e-12);
      CHECK(std::abs(z(t, 4 + b) + std::sin(f * w)) <= 1e-12);
    }
  }
}

TEST_CASE("a long convolution with an implicit filter does what a mixer owes") {
  conforms<LongConv<ImplicitFilter>, Cpu, double>({.width = 3}, {.filter = {.hidden = 5}});
}

TEST_CASE("a long convolution with Hyena's filter does what a mixer owes") {
  conforms<LongConv<HyenaFilter>, Reference, double>({.width = 3}, {.filter = {.hidden = 4}});
  conforms<LongConv<HyenaFilter>, Cpu, double>({.width = 3}, {.filter = {.hidden = 4, .layers = 2, .features = 5}});
}

TEST_CASE("cost is the textbook's, and what is counted") {
  // (e, h) = (3, 16) and (e, o, q inner) = (3, 8, 2), the rows of the theory's table; a window is 2 N d products more.
  constexpr Index n = 9, d = 4, e = 3, h = 16, o = 8, q = 2;
  static_assert(ImplicitFilter::cost(d, n, {}) == Cost{.parameters = e * h + h + h * d + d,
                                                       .multiplications = n * (e * h + h * d),
                                                       .additions = n * (e * h + h * d)});
  constexpr Waves::Options waves{.hidden = o, .layers = q + 1};
  static_assert(Waves::cost(d, n, waves) == Cost{.parameters = e * o + o + o + q * (o * o + o) + o * d + n * e,
                                                 .multiplications = n * (e * o + q * o * o + o * d) + n * o * (q + 1),
                                                 .additions = n * (e * o + q * o * o + (o - 1) * d),
                                                 .functions = n * o * (q + 1)});
  const auto counted = [&]<class F>(std::type_identity<F>, const typename F::Options& options) {
    TapsBench<F, Reference, Counted> bench(d, n, options);
    Counted::done = {};
    bench.taps(n);
    Counted::done.parameters = count_parameters(bench.maker);
    CHECK(Counted::done == F::cost(d, n, options));
  };
  counted(std::type_identity<ImplicitFilter>{}, {});
  counted(std::type_identity<Waves>{}, waves);
  counted(std::type_identity<HyenaFilter>{}, {.hidden = o, .layers = q + 1});
}

TEST_CASE("what cannot be is refused; over a ring there are no implicit taps") {
  CHECK_THROWS_WITH_AS((TapsBench<ImplicitFilter, Cpu, float>(4, 8, {.hidden = 0})),
                       "filter: required at least one hidden unit, came 0", Error);
  CHECK_THROWS_AS((TapsBench<ImplicitFilter, Cpu, float>(4, 8, {.layers = 0})), Error);
  CHECK_THROWS_AS((TapsBench<ImplicitFilter, Cpu, float>(4, 8, {.features = 4})), Error);
  static_assert(is_supported<LongConv<ImplicitFilter>, Reference, double>);
  static_assert(!is_supported<LongConv<ImplicitFilter>, Reference, long>);
}

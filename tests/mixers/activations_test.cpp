// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <limits>

#include "coyote/mixers/mlp.hpp"
#include "coyote/operations/cpu/activation.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

double silu(double x) { return x / (1 + std::exp(-x)); }
double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double relu(double x) { return x > 0 ? x : 0; }

template <class M, class Backend, class S>
void agrees(double (*f)(double), double slack = 1) {
  // Odd widths leave a part of a register over; a stride leaves columns that must stay as they are.
  for (const Index width : {1, 3, 16, 37}) {
    Layer<M, Backend, S> layer({width, 8}, {}, Path("f"));
    Context<Backend> context = ContextFor<Backend>::make(1);
    const Matrix<S> u = random_matrix<S>(8, width, 1, 3);
    Matrix<S> wide(8, width + 2), y(8, width);
    for (S& x : wide) x = S(7);
    typename Layer<M, Backend, S>::Saved saved;
    layer.forward(context, {.sequences = 1, .length = 8}, u, wide.view().columns(1, width), saved);
    std::vector<double> expected;
    for (const S x : u) expected.push_back(f(static_cast<double>(x)));
    for (Index i = 0; i < 8; ++i) {
      CHECK(wide(i, 0) == S(7));
      CHECK(wide(i, width + 1) == S(7));
      for (Index c = 0; c < width; ++c) y(i, c) = wide(i, c + 1);
    }
    const double allowed = Tolerance<S>::forward / 10 * slack;
    CHECK(relative_error(y, expected) <= allowed);
    for (S& x : y) x = x * S(1.0001);
    CHECK_FALSE(relative_error(y, expected) <= allowed);
    CHECK_FALSE(relative_error(Matrix<S>(8, width), expected) <= allowed);
  }
}

template <class Backend, class S>
void all_agree() {
  agrees<Silu, Backend, S>(silu);
  agrees<Gelu, Backend, S>(gelu, 10);
  agrees<Sigmoid, Backend, S>(sigmoid);
  agrees<Relu, Backend, S>(relu);
}

TEST_CASE("activations equal their formulas") {
  all_agree<Reference, double>();
  all_agree<Reference, float>();
  all_agree<Cpu, double>();
  all_agree<Cpu, float>();
}

/// Value and slope of one function at one place.
template <class M, class Backend, class S>
std::pair<double, double> at(double x) {
  Layer<M, Backend, S> layer({1, 1}, {}, Path("f"));
  Context<Backend> context = ContextFor<Backend>::make(1);
  Matrix<S> u(1, 1), y(1, 1), one(1, 1), du(1, 1);
  u(0, 0) = static_cast<S>(x);
  one(0, 0) = S(1);
  typename Layer<M, Backend, S>::Saved saved;
  const Batch batch{.sequences = 1, .length = 1};
  layer.forward(context, batch, u, y, saved);
  layer.backward(context, batch, one.view(), du, Write::overwrite, saved);
  return {static_cast<double>(y(0, 0)), static_cast<double>(du(0, 0))};
}

template <class Backend, class S>
void extremes() {
  for (const double x : {30.0, 1e4, 1e30}) {
    CHECK(std::abs(at<Silu, Backend, S>(x).first - x) <= 1e-7 * x);
    CHECK(std::abs(at<Silu, Backend, S>(x).second - 1) <= 1e-7);
    CHECK(std::abs(at<Gelu, Backend, S>(x).first - x) <= 1e-7 * x);
    CHECK(at<Gelu, Backend, S>(x).second == 1);
    CHECK(at<Relu, Backend, S>(x) == std::pair(static_cast<double>(static_cast<S>(x)), 1.0));
    CHECK(at<Sigmoid, Backend, S>(x).first == doctest::Approx(1));
    CHECK(std::abs(at<Silu, Backend, S>(-x).first) <= 1e-11);
    CHECK(std::abs(at<Silu, Backend, S>(-x).second) <= 1e-11);
    CHECK(std::abs(at<Gelu, Backend, S>(-x).first) <= 1e-11);
    CHECK(std::abs(at<Gelu, Backend, S>(-x).second) <= 1e-11);
    CHECK(std::abs(at<Sigmoid, Backend, S>(-x).first) <= 1e-12);
    CHECK(std::abs(at<Sigmoid, Backend, S>(-x).second) <= 1e-12);
    CHECK(at<Relu, Backend, S>(-x) == std::pair(0.0, 0.0));
  }
  CHECK(at<Relu, Backend, S>(0) == std::pair(0.0, 0.0));
  CHECK(at<Gelu, Backend, S>(0).second == doctest::Approx(0.5));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(at<Silu, Backend, S>(nan).first));
  CHECK(std::isnan(at<Gelu, Backend, S>(nan).first));
  CHECK(std::isnan(at<Sigmoid, Backend, S>(nan).first));
  CHECK(std::isnan(at<Relu, Backend, S>(nan).first));
}

TEST_CASE("far from zero nothing overflows, and NaN stays NaN") {
  extremes<Reference, double>();
  extremes<Reference, float>();
  extremes<Cpu, double>();
  extremes<Cpu, float>();
}

TEST_CASE("the tanh form of Gelu is close to u Phi(u), and is not it") {
  double worst = 0;
  for (double x = -6; x <= 6; x += 0.01) {
    worst = std::max(worst, std::abs(at<Gelu, Reference, double>(x).first - x * 0.5 * std::erfc(-x / std::sqrt(2.0))));
  }
  CHECK(worst <= 5e-4);
  CHECK(worst >= 1e-5);
}

TEST_CASE("activations and multilayer perceptrons keep every mixer's promises") {
  conforms<Gelu, Reference, double>();
  conforms<Gelu, Cpu, float>();
  conforms<Silu, Cpu, double>();
  conforms<Sigmoid, Cpu, double>();
  conforms<Mlp<2, Relu>, Cpu, double>();
  conforms<GatedMlp<2>, Cpu, double>();
}

TEST_CASE("the facts of multilayer perceptrons") {
  static_assert(is_causal<Mlp<>> && !is_input_dependent<Mlp<>> && state_is_bounded<Mlp<>> && degree<Mlp<>>.is_infinite());
  static_assert(Mlp<>::output_width(6) == 6 && GatedMlp<3>::output_width(6) == 6);
  CHECK(cost<Mlp<>>(8, 10) == Cost{.parameters = 2 * 8 * 32 + 32 + 8,
                                   .multiplications = 10 * (2 * 8 * 32 + 4 * 32),
                                   .additions = 10 * (2 * 8 * 32 + 32),
                                   .functions = 10 * 32});
  CHECK(cost<GatedMlp<2>>(8, 10).parameters == 3 * 8 * 16);
}

}  // namespace

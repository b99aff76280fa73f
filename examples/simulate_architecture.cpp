// SPDX-License-Identifier: Apache-2.0
// Coyote layers do what other convolutional architectures do: a model with random weights becomes a stack of Coyote layers that
// computes the same. Over a prime field the two are equal; with float and double weights they differ by rounding. RWKV-4's time
// mix has exponentials and a quotient, so its stack is an approximation, within a bound that it states.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <coyote/theory/prime_field.hpp>
#include <coyote/theory/rwkv.hpp>
#include <coyote/theory/simulate.hpp>
#include <cstdio>

namespace {

namespace cy = coyote;
namespace theory = coyote::theory;
using theory::Field;

constexpr cy::Index width = 6, length = 32;

template <class S>
S draw(cy::Draws& draws) {
  if constexpr (std::floating_point<S>) {
    return static_cast<S>(2 * draws.uniform() - 1);
  } else {
    return S(static_cast<long long>(draws.below(S::modulus)));
  }
}

/// The largest difference, relative to the largest entry of `wanted` for floating-point numbers, the count of differing entries
/// otherwise.
template <class S>
double error(const cy::Matrix<S>& made, const cy::Matrix<S>& wanted) {
  double worst = 0, size = 0;
  cy::Index differing = 0;
  for (cy::Index n = 0; n < wanted.size(); ++n) {
    const S a = made.data()[n], b = wanted.data()[n];
    differing += a == b ? 0 : 1;
    if constexpr (std::floating_point<S>) {
      const double difference = std::abs(static_cast<double>(a) - static_cast<double>(b));
      if (!(difference <= worst) && worst == worst) worst = difference;  // NaN stays
      size = std::fmax(size, std::abs(static_cast<double>(b)));
    }
  }
  if constexpr (std::floating_point<S>) return worst / size;
  return static_cast<double>(differing);
}

struct Outcome {
  theory::StackSize size;
  double error = 0;
};

/// A model with random weights and the stack made of it, on the same random input.
template <class M, class S>
Outcome compare() {
  auto model = cy::Model<M, cy::Reference, S>::blank({width, length});
  cy::Draws draws(cy::Stream(cy::Seed{1}, cy::Purpose::test));
  auto fill = [&](const cy::Path&, cy::Parameter<S>& p) {
    for (cy::Index r = 0; r < p.rows; ++r) {
      for (cy::Index c = 0; c < p.columns; ++c) p.value(r, c) = draw<S>(draws);
    }
  };
  model.visit(fill);
  cy::Matrix<S> u(length, width), y(length, width);
  for (S& x : u) x = draw<S>(draws);
  cy::Context<cy::Reference> context;
  model.forward(context, {.sequences = 1, .length = length}, u, y);
  const theory::Simulation<S> simulation = theory::simulate(model, length);
  return {simulation.stack.size(), error(simulation.run(u), y)};
}

/// False if the stack is not the model.
template <class M>
bool show(const char* name) {
  const auto [size, exact] = compare<M, Field>();
  const double single = compare<M, float>().error, twice = compare<M, double>().error;
  std::printf("%s\n  Coyote layers: %td (gates: %td), of width %td on %td rows, %td numbers\n", name, size.layers,
              size.gate_layers, size.width, size.length, size.stored);
  std::printf("  error %g over a field of %lld elements; relative error %.1e in float, %.1e in double\n", exact,
              static_cast<long long>(Field::modulus), single, twice);
  return exact == 0 && single <= 1e-4 && twice <= 1e-12;
}

/// An RWKV-4 time mix with its public initial values, matrices several times as large, and the stacks that approximate it. The
/// error is in units of sum_a |W_o[a, c]| max_j |v_j[a]|; false if it is above what a stack states.
bool show_rwkv() {
  cy::Model<cy::Rwkv, cy::Reference, double> model({width, length}, cy::Seed{1}, cy::rwkv_options(3));
  auto widen = [](const cy::Path& path, auto& p) {
    for (cy::Index r = 0; r < p.rows && path.view().ends_with("weight"); ++r) {
      for (cy::Index c = 0; c < p.columns; ++c) p.value(r, c) *= 3;
    }
  };
  model.visit(widen);
  cy::Draws draws(cy::Stream(cy::Seed{1}, cy::Purpose::test));
  cy::Matrix<double> u(length, width), y(length, width);
  for (double& x : u) x = draw<double>(draws);
  cy::Context<cy::Reference> context;
  model.forward(context, {.sequences = 1, .length = length}, u, y);

  const theory::RwkvWeights<double> weights = theory::rwkv_weights(model);
  cy::Matrix<double> size(1, width);  // of each output channel
  for (cy::Index a = 0; a < width; ++a) {
    double largest = 0;  // |v| in channel a
    for (cy::Index i = 0; i < length; ++i) {
      double v = 0;
      for (cy::Index k = 0; k < width; ++k) {
        const double m = weights.mix_v(0, k), before = i > 0 ? u(i - 1, k) : 0.0;
        v += (m * u(i, k) + (1 - m) * before) * weights.v(k, a);
      }
      largest = std::max(largest, std::abs(v));
    }
    for (cy::Index c = 0; c < width; ++c) size(0, c) += std::abs(weights.out(a, c)) * largest;
  }
  theory::RwkvApproximation wanted = theory::rwkv_range(weights, u);
  std::printf("Rwkv, |k| <= %.2f, |r| <= %.2f\n  squarings  steps  layers  width  stated error  (rounding)     error\n",
              wanted.keys, wanted.receptances);
  bool holds = true;
  for (const cy::Index squarings : {8, 12, 16, 20, 24}) {
    wanted.squarings = squarings;
    const theory::RwkvSimulation<double> made = theory::simulate(model, length, wanted);
    const cy::Matrix<double> z = made.run(u);
    double worst = 0;
    for (cy::Index i = 0; i < length; ++i) {
      for (cy::Index c = 0; c < width; ++c) {
        const double off = std::abs(z(i, c) - y(i, c)) / size(0, c);
        if (!(off <= worst) && worst == worst) worst = off;  // NaN stays
      }
    }
    const theory::StackSize stack = made.simulation.stack.size();
    std::printf("  %9td  %5td  %6td  %5td  %12.1e  (%.1e)  %.1e\n", squarings, made.steps, stack.layers, stack.width, made.error,
                made.rounding, worst);
    holds = holds && worst <= made.error + made.rounding;
  }
  return holds;
}

}  // namespace

int main() {
  std::printf("Models of width %td on %td rows, with random weights\n", width, length);
  bool same = show<cy::Coyote<cy::LongConv<cy::FreeFilter>>>("Coyote<LongConv<FreeFilter>>");
  same = show<cy::H3<cy::FirFilter, cy::DiagonalFilter>>("H3<FirFilter, DiagonalFilter>") && same;
  same = show<cy::H3<cy::FirFilter, cy::DiagonalFilter, 3>>("H3<FirFilter, DiagonalFilter, 3>") && same;
  same = show<cy::Hyena<2, cy::FreeFilter>>("Hyena<2, FreeFilter>") && same;
  same = show<cy::Hyena<4, cy::FreeFilter>>("Hyena<4, FreeFilter>") && same;
  same = show<cy::HyenaPublic<2, cy::FreeFilter>>("HyenaPublic<2, FreeFilter>") && same;
  same = show<cy::LinearAttention<3>>("LinearAttention<3>") && same;
  same = show<cy::Retention<3>>("Retention<3>") && same;
  same = show_rwkv() && same;
  if (!same) std::printf("A stack differs from its model\n");
  return same ? 0 : 1;
}

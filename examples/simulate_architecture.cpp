// SPDX-License-Identifier: Apache-2.0
// Coyote layers do what other convolutional architectures do: a model with random weights becomes a stack of Coyote layers that
// computes the same. Over a prime field the two are equal; with float and double weights they differ by rounding.

#include <cmath>
#include <concepts>
#include <coyote/theory/prime_field.hpp>
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

}  // namespace

int main() {
  std::printf("Models of width %td on %td rows, with random weights\n", width, length);
  bool same = show<cy::Coyote<cy::LongConv<cy::FreeFilter>>>("Coyote<LongConv<FreeFilter>>");
  same = show<cy::H3<cy::FirFilter, cy::DiagonalFilter>>("H3<FirFilter, DiagonalFilter>") && same;
  same = show<cy::H3<cy::FirFilter, cy::DiagonalFilter, 3>>("H3<FirFilter, DiagonalFilter, 3>") && same;
  same = show<cy::Hyena<2, cy::FreeFilter>>("Hyena<2, FreeFilter>") && same;
  same = show<cy::Hyena<4, cy::FreeFilter>>("Hyena<4, FreeFilter>") && same;
  if (!same) std::printf("A stack differs from its model\n");
  return same ? 0 : 1;
}

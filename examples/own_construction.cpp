// SPDX-License-Identifier: Apache-2.0
// How to check a construction of one's own: the running energy of every column, y[i] = u[0]^2 + .. + u[i]^2, in two Coyote
// layers.

#include <algorithm>
#include <cmath>
#include <coyote/coyote.hpp>
#include <cstdio>

#include "coyote/theory/bounds.hpp"
#include "coyote/theory/layers.hpp"
#include "coyote/theory/prime_field.hpp"

namespace cy = coyote;
namespace th = coyote::theory;

namespace {

// [stack]
template <class S>
constexpr th::Stack<S> running_energy(cy::Index length, cy::Index width) {
  th::Program<S> square, sum;
  for (cy::Index c = 0; c < width; ++c) {
    square.gate(c, th::Form<S>::column(c));              // (u_c) * (u_c)
    sum.conv(c, th::Impulses<S>::range(0, length - 1));  // all taps 1
  }
  th::Stack<S> stack(length, width);
  stack.then(square).then(sum);
  return stack;
}
// [stack]

// [sizes]
static_assert([] {
  const auto stack = running_energy<long>(3, 1);
  cy::Matrix<long> u(3, 1);
  u(0, 0) = 1, u(1, 0) = -2, u(2, 0) = 3;
  const cy::Matrix<long> y = stack.run(u);
  return stack.size().layers == 2 && stack.size().gate_layers == 1 && y(0, 0) == 1 && y(1, 0) == 5 && y(2, 0) == 14;
}());
// [sizes]

/// Against the definition, on random elements of the field.
// [oracle]
bool is_exact(const th::Stack<th::Field>& stack, cy::Draws& draws) {
  cy::Matrix<th::Field> u(stack.length(), stack.width());
  for (th::Field& x : u) x = static_cast<long long>(draws.below(th::Field::modulus));
  const cy::Matrix<th::Field> y = stack.run(u);
  for (cy::Index c = 0; c < u.width(); ++c) {
    th::Field energy;
    for (cy::Index i = 0; i < u.rows(); ++i) {
      energy += u(i, c) * u(i, c);
      if (!(y(i, c) == energy)) return false;
    }
  }
  return true;
}
// [oracle]

// [degree]
cy::Index degree_of(const th::Stack<th::Field>& stack, cy::Draws& draws) {
  cy::Matrix<th::Field> a(stack.length(), stack.width()), b(stack.length(), stack.width());
  for (th::Field& x : a) x = static_cast<long long>(draws.below(th::Field::modulus));
  for (th::Field& x : b) x = static_cast<long long>(draws.below(th::Field::modulus));
  return th::line_degree(stack, a, b, 6);  // up to 5
}
// [degree]

/// The same stack as ordinary layers in float: largest relative error against the stack in double.
// [layers]
double float_error(const th::Stack<double>& stack, cy::Draws& draws) {
  cy::Matrix<double> u(stack.length(), stack.width());
  for (double& value : u) value = static_cast<double>(draws.below(1 << 24)) / (1 << 23) - 1;  // exact in float too
  return th::layer_error<cy::Wrap::causal, cy::Cpu, float>(stack, u, [](double x) { return x; }).relative();
}
// [layers]

}  // namespace

int main() {
  constexpr cy::Index length = 12, width = 3;
  cy::Draws draws(cy::Stream(cy::Seed{1}, cy::Purpose::test));
  const auto stack = running_energy<th::Field>(length, width);
  auto broken = running_energy<th::Field>(length, width);
  broken.then(th::Program<th::Field>().lin(width - 1, th::Form<th::Field>::column(width - 1), th::Profile<th::Field>::on(5, 5)));
  const bool exact = is_exact(stack, draws), rejects = !is_exact(broken, draws);  // the check can fail
  const cy::Index degree = degree_of(stack, draws);
  const double error = float_error(running_energy<double>(length, width), draws);
  const bool holds = exact && rejects && degree == 2 && error <= 1e-5;
  std::printf("running energy: exact %s, a broken one rejected %s, degree %td, float error %.1e: %s\n", exact ? "yes" : "NO",
              rejects ? "yes" : "NO", degree, error, holds ? "holds" : "DOES NOT HOLD");
  return holds ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/cuda/storage.cuh"
#include "coyote/operations/cuda/filters.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/cuda/long_convolution.cuh"
#include "coyote/theory/layers.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;
using namespace coyote::theory;

/// Linear forms, taps at several lags, masks, positions and columns that stay, over small integers.
template <Wrap W>
Stack<long> stack_of(Index length) {
  Stack<long> stack(length, 3, W);
  stack.then(Program<long>().lin(0, {{1, 1}, {2, -2}}, Profile<long>::on(2, 4, 3), Profile<long>::on(1, 5)));  // 1, 2 stay
  stack.then(Program<long>().conv(1, {{0, 4, 1}}).gate(2, {{0, 1}}, 2, Impulses<long>::at(3), 1));
  stack.then(Program<long>().gate(0, {{2, 1}, {1, -1}}, 1, {{0, 1, 1}, {4, 4, -1}}));
  return stack;
}

template <Wrap W>
void check(Index length) {
  const Stack<long> stack = stack_of<W>(length);
  Matrix<long> u(length, 2);
  for (Index i = 0; i < u.size(); ++i) u.data()[i] = (7 * i + i / 5) % 5 - 2;
  const auto number = [](long x) { return static_cast<double>(x); };
  const LayerError on_float = layer_error<W, Cuda, float>(stack, u, number),
                   on_bf16 = layer_error<W, Cuda, bf16>(stack, u, number);
  CHECK(on_float.size > 10);
  CHECK(on_float.relative() <= 1e-6);
  CHECK(on_bf16.relative() <= 2e-2);
  MESSAGE("length ", length, ": relative error ", on_float.relative(), " in float, ", on_bf16.relative(), " in bf16");
  // One weight that is a little off is seen.
  int threes = 0;
  const LayerError spoilt =
      layer_error<W, Cuda, float>(stack, u, [&](long x) { return number(x) + (x == 3 && threes++ == 0 ? 1e-2 : 0); });
  CHECK(threes > 0);
  CHECK(spoilt.relative() > 1e-5);
}

TEST_CASE("a stack of the theory as ordinary layers on Cuda") {
  for (const Index length : {7, 65}) {
    check<Wrap::causal>(length);
    check<Wrap::cyclic>(length);
  }
}

}  // namespace

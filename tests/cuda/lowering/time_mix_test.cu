// SPDX-License-Identifier: Apache-2.0
#include "coyote/lowering/rules.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

/// RWKV-4's gated recurrence reads its three mixtures where they are, and their gradients are written there.
template <class S>
void same(Index width) {
  CAPTURE(width);
  const Packed packed({65, 1, 33});
  const Batch batch = packed.view();
  Bench<Rwkv, Cuda, S> plain({width, batch.length}, rwkv_options(1));
  Bench<lowered<Rwkv, Cuda>, Cuda, S> fused({width, batch.length}, rwkv_options(1));
  const auto u = random_matrix<S>(batch.rows(), width, 1), w = random_matrix<S>(batch.rows(), width, 2);
  const Results<S> expected = plain.run(batch, u, w.view()), r = fused.run(batch, u, w.view());
  const double tolerance = Tolerance<S>::forward;
  CHECK(relative_error(r.y, expected.y) <= tolerance);
  CHECK(relative_error(r.du, expected.du) <= tolerance);
  CHECK(relative_error(r.gradients, expected.gradients) <= tolerance);
  CHECK_FALSE(relative_error(expected.du, r.y) <= tolerance);
  auto shifted = r.gradients;
  std::rotate(shifted.begin(), shifted.begin() + 1, shifted.end());
  CHECK_FALSE(relative_error(shifted, expected.gradients) <= tolerance);
}

TEST_CASE("parts read in place give what copied ones give, small") {
  for (const Index width : {1, 6, 40}) {
    same<float>(width);
    same<bf16>(width);
  }
  same<bf16>(256);
}

TEST_CASE("the time mix by itself keeps every mixer's promises, small") {
  conforms<internal::TimeMix, Cuda, float>({.width = 12});
  conforms<internal::TimeMix, Cuda, bf16>({.width = 48});
}

}  // namespace

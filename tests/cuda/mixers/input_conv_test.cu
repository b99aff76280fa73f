// SPDX-License-Identifier: Apache-2.0
#include "coyote/mixers/input_conv.hpp"

#include "coyote/operations/cuda/input_conv.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("input-dependent convolutions on Cuda keep every mixer's promises, smallest") {
  conforms<InputConv<TokenLags<3>>, Cuda, float>({.width = 3, .lengths = {9, 1, 2}, .vocabulary = 3});
  conforms<InputConv<TokenLags<2>, IdentityGate, NoBias>, Cuda, bf16>({.width = 5, .lengths = {12, 1, 7}, .vocabulary = 3});
  conforms<InputConv<Autocorrelation<3>>, Cuda, float>({.width = 3, .lengths = {9, 1, 2}});
}

TEST_CASE("input-dependent convolutions on Cuda are the Reference's") {
  for (const Index width : {1, 3, 40, 130, 300}) {
    const double scale = 1 / std::sqrt(static_cast<double>(width));
    agrees_with_reference<InputConv<TokenLags<3>>, float, Cuda>(
        {.width = width, .lengths = {1, 7, 65, 200}, .scale = scale, .vocabulary = 12});
    agrees_with_reference<InputConv<TokenLags<3>>, bf16, Cuda>(
        {.width = width, .lengths = {1, 7, 65, 130}, .scale = scale, .vocabulary = 12});
    agrees_with_reference<InputConv<TokenLags<5>, IdentityGate>, float, Cuda>(
        {.width = width, .lengths = {65, 1, 7}, .scale = scale, .vocabulary = 4});
  }
  // More lags than a warp has lanes, and links by sorting.
  agrees_with_reference<InputConv<TokenLags<70>>, float, Cuda>({.width = 6, .lengths = {200, 1, 90}, .vocabulary = 30});
  agrees_with_reference<InputConv<TokenLags<2>>, float, Cuda>({.width = 6, .lengths = {1100, 1, 3}, .vocabulary = 30});
  // In bf16 rounding would choose other lags.
  agrees_with_reference<InputConv<Autocorrelation<3>>, float, Cuda>({.width = 17, .lengths = {65, 1, 7}});
  agrees_with_reference<InputConv<Autocorrelation<2>, IdentityGate, NoBias>, float, Cuda>({.width = 5, .lengths = {130, 2}});
}

TEST_CASE("large scores overflow nothing in an input-dependent convolution on Cuda") {
  const auto finite = [&]<class S>(std::type_identity<S>) {
    const Packed packed({30}, 3);
    Bench<InputConv<TokenLags<3>>, Cuda, S> bench({4, 30}, {});
    const auto u = random_matrix<S>(30, 4, 1, 1e4);
    const auto r = bench.run(packed.view(), u, u.view());
    for (const float x : r.y) CHECK(std::isfinite(x));
    for (const float x : r.du) CHECK(std::isfinite(x));
  };
  finite(std::type_identity<float>{});
  finite(std::type_identity<bf16>{});
}

}  // namespace

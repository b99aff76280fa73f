// SPDX-License-Identifier: Apache-2.0
#include "coyote/filters/decay.hpp"
#include "coyote/filters/diagonal.hpp"
#include "coyote/filters/implicit.hpp"
#include "coyote/filters/shared.hpp"
#include "coyote/filters/shift.hpp"
#include "coyote/filters/skip.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

/// A convolution with the filter, in bf16: all that a mixer promises, and the definition's numbers.
template <class F>
void check(Index width, const typename F::Options& filter = {}) {
  typename LongConv<F>::Options options;
  options.filter = filter;
  conforms<LongConv<F>, Cuda, bf16>({.width = width, .lengths = {5, 1, 2, 7, 3}}, options);
  agrees_with_reference<LongConv<F>, bf16, Cuda>({.width = width, .lengths = {1, 7, 65}}, options);
}

TEST_CASE("filters on Cuda in bf16: taps that are parameters") {
  check<FirFilter>(7);
  check<ShiftFilter>(6);
  check<SharedFilter<3, WithSkip<FreeFilter>>>(6);
}

TEST_CASE("filters on Cuda in bf16: exponentials and nets") {
  check<DecayFilter>(17);
  check<DiagonalFilter>(6);
  check<WithSkip<ComplexDiagonalFilter>>(6, {.filter = {.modes = 3}});
  check<HyenaFilter>(5);
}

}  // namespace

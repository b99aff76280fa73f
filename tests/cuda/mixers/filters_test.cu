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

/// A convolution with the filter, in float against the Reference and in all that a mixer promises.
template <class F>
void check(Index width, const typename F::Options& filter = {}, double slack = 1) {
  typename LongConv<F>::Options options;
  options.filter = filter;
  conforms<LongConv<F>, Cuda, float>({.width = width, .lengths = {5, 1, 2, 7, 3}}, options);
  agrees_with_reference<LongConv<F>, float, Cuda>({.width = width, .lengths = {33, 1, 70, 129}}, options, slack);
}

TEST_CASE("filters on Cuda: taps that are parameters") {
  check<FreeFilter>(6);
  check<FirFilter>(7);
  check<ShiftFilter>(6);
  check<WithSkip<FreeFilter>>(6);
  check<SharedFilter<3, FirFilter>>(6);
}

TEST_CASE("filters on Cuda: exponentials") {
  check<DecayFilter>(17);
  check<DiagonalFilter>(6);
  check<WithSkip<ComplexDiagonalFilter>>(6, {.filter = {.modes = 3}});
  check<SharedFilter<2, DiagonalFilter>>(6);
}

TEST_CASE("filters on Cuda: nets") {
  check<ImplicitFilter>(6);
  check<WithSkip<HyenaFilter>>(5, {}, 10);
}

}  // namespace

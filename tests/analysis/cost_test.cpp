// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/block.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/combinators/sum.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/mixers/dropout.hpp"
#include "coyote/mixers/identity.hpp"
#include "support/counting.hpp"

namespace {

using namespace coyote;
using test::counted;

const std::vector<Token> same(13, 4);                                   // the most pairs a pattern can have
const std::vector<Token> mixed = {1, 2, 1, 3, 2, 1, 1, 4, 2, 3, 0, 1};  // some

void equal(Cost computed, Cost expected) {
  expected.worst_case = false;
  CHECK(computed.parameters == expected.parameters);
  CHECK(computed.multiplications == expected.multiplications);
  CHECK(computed.additions == expected.additions);
  CHECK(computed.functions == expected.functions);
  CHECK(computed.state_scalars == expected.state_scalars);
  CHECK(computed.state_integers == expected.state_integers);
}

/// Counts agree with `cost` at several sizes, shorter than taps and windows too.
template <class M>
void agrees(Index width, const typename M::Options& options = {}) {
  for (const std::size_t length : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{13}}) {
    CAPTURE(length);
    const auto tokens = std::span<const Token>(same).first(length);
    equal(counted<M>(width, tokens, options), cost<M>(width, static_cast<Index>(length), -1, options));
  }
}

TEST_CASE("linear maps and convolutions cost what they compute") {
  agrees<Linear>(5);
  agrees<LinearWith<NoBias>>(1);
  agrees<LinearWith<PositionBias>>(3);
  agrees<Widen<3>>(2);
  agrees<Narrow<2, NoBias>>(4);
  agrees<ShortConv<1>>(3);
  agrees<ShortConv<3>>(3);
  agrees<ShortConv<4, NoBias>>(1);
  agrees<ShortConv<2, PositionBias>>(3);
  agrees<LongConv<>>(3);
  agrees<LongConv<FreeFilter, Causal, NoBias>>(2);
  agrees<LongConv<FreeFilter, Cyclic>>(3);
}

TEST_CASE("attention costs what it computes") {
  agrees<Attention<>>(5);
  agrees<Attention<Heads<3>>>(6);
  agrees<Attention<Heads<2>, Dense, Rotary<>>>(6);
  agrees<Attention<Heads<1>, Window<2>>>(3);
  agrees<Attention<Heads<2>, Window<5>>>(4);
  agrees<Attention<Heads<1>, RepeatedBigrams<>>>(3);
  agrees<Attention<Heads<1>, RepeatedBigrams<2>>>(3);
  agrees<Attention<Heads<3>, RepeatedTokens>>(3);
  agrees<Attention<Heads<1>, RandomEdges<2>>>(3);
}

TEST_CASE("given the pairs, multiplications and functions are exact, and nothing is a worst case") {
  using M = Attention<Heads<2>, RepeatedBigrams<>>;
  // Occurrences of 0, 1, 2, 3, 4: 1, 5, 3, 2, 1; pairs n(n-1)/2 each.
  const Index pairs = 10 + 3 + 1, n = static_cast<Index>(mixed.size());
  const Cost came = counted<M>(4, mixed), said = cost<M>(4, n, pairs);
  CHECK(came.multiplications == said.multiplications);
  CHECK(came.functions == said.functions);
  CHECK(came.state_integers == said.state_integers);
  CHECK(said.additions <= came.additions);  // fewer rows with a key save additions; their number is not given
  CHECK_FALSE(said.worst_case);
  CHECK(cost<M>(4, n).worst_case);
  CHECK(cost<M>(4, n).multiplications > said.multiplications);
  CHECK_FALSE(cost<Attention<>>(4, n).worst_case);
}

TEST_CASE("norms, identity and combinators cost what they compute") {
  agrees<LayerNorm>(5);
  agrees<LayerNorm>(37);  // sums that are cut in parts make no more additions
  agrees<RmsNorm>(4);
  agrees<Identity>(3);
  agrees<Dropout>(3);
  agrees<Coyote<LongConv<>>>(3);
  agrees<Sum<Linear, ShortConv<2>>>(3);
  agrees<Chain<Widen<2>, ShortConv<3>, Narrow<2>>>(3);
  agrees<Block<Coyote<ShortConv<3>>>>(3);
  agrees<Repeat<Residual<Linear>, 3>>(3);
  agrees<Repeat<Block<Attention<>>>>(3, {.count = 2});
}

TEST_CASE("the rows of the theory's table") {
  for (const Index n : {1, 2, 7, 32}) {
    for (const Index d : {1, 4, 6}) {
      const Index lin = n * d * d, t = n * (n + 1) / 2;
      CHECK(cost<Linear>(d, n) == Cost{.parameters = d * d + d, .multiplications = lin, .additions = lin});
      CHECK(cost<Coyote<LongConv<>>>(d, n) == Cost{.parameters = d * d + 2 * d + n * d,
                                                   .multiplications = lin + d * t + n * d,
                                                   .additions = lin + d * t,
                                                   .state_scalars = n * d});
      CHECK(cost<Attention<>>(d, n) == Cost{.parameters = 4 * d * d + 4 * d,
                                            .multiplications = 4 * lin + 2 * d * t,
                                            .additions = 4 * lin + 2 * d * t - (d + 1) * n,
                                            .functions = 2 * t,
                                            .state_scalars = 2 * n * d});
      const Index k = std::min<Index>(3, n), products = d * (k * n - k * (k - 1) / 2);
      CHECK(cost<ShortConv<3>>(d, n) ==
            Cost{.parameters = 3 * d + d, .multiplications = products, .additions = products, .state_scalars = 2 * d});
      CHECK(cost<Attention<Heads<1>, Window<3>>>(d, n).multiplications == 4 * lin + 2 * products);
      CHECK(cost<Attention<Heads<1>, Window<3>>>(d, n).state_scalars == 2 * k * d);
    }
  }
}

// ---- facts -----------------------------------------------------------------------------------------------------------

using Local = Block<Coyote<ShortConv<3>>>;
using Recall = Block<Attention<Heads<1>, RepeatedBigrams<4>>>;
static_assert(is_causal<Chain<Local, Recall>> && is_input_dependent<Chain<Local, Recall>>);
static_assert(degree<Chain<Coyote<LongConv<>>, Coyote<LongConv<>>>> == 4);
static_assert(degree<Coyote<ShortConv<3>>> == 2 && degree<Residual<Coyote<ShortConv<3>>>> == 2 && degree<Identity> == 1);
static_assert(degree<Repeat<Coyote<LongConv<>>, 3>> == 8 && degree<Repeat<Coyote<LongConv<>>>>.is_infinite());
static_assert(degree<Repeat<Linear>> == 1 && degree<Sum<Linear, Coyote<LongConv<>>>> == 2);
static_assert(degree<Local>.is_infinite() && degree<Attention<>>.is_infinite() && degree<LayerNorm>.is_infinite());
static_assert(!is_input_dependent<Local> && is_input_dependent<Attention<>> && is_input_dependent<Gate<Linear, Attention<>>>);
static_assert(!is_input_dependent<LongConv<>> && !is_input_dependent<Dropout>);
static_assert(is_causal<LongConv<>> && !is_causal<LongConv<FreeFilter, Cyclic>>);
static_assert(!is_causal<Chain<Linear, Repeat<Residual<LongConv<FreeFilter, Cyclic>>>>>);
static_assert(state_is_bounded<Local> && !state_is_bounded<LongConv<>> && !state_is_bounded<Chain<Local, Recall>>);
static_assert(state_is_bounded<Attention<Heads<1>, Window<8>>> && !state_is_bounded<Attention<>>);
static_assert(Mixer<Local> && Mixer<Chain<Local, Recall>> && !Mixer<int>);

}  // namespace

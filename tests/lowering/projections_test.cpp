// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <map>

#include "coyote/architectures/h3.hpp"
#include "coyote/architectures/hyena.hpp"
#include "coyote/architectures/linear_attention.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

// The rule is one for Cuda; its layers run anywhere.
template <class M>
using Fused = lowered<M, Cuda>;
template <Index I, class M = Linear>
using Number = internal::Projection<M, I>;
template <class M, class Tree>
using OneProduct = internal::Projected<M, Tree>;

using Conv = LongConv<FreeFilter, Causal, NoBias>;
using Inner = Gate<Linear, Chain<Linear, Conv>>;
static_assert(std::same_as<Hyena<2, FreeFilter>, Chain<Gate<Linear, Chain<Inner, Conv>>, Linear>>);
static_assert(
    std::same_as<
        Fused<Hyena<2, FreeFilter>>,
        Chain<OneProduct<Gate<Linear, Chain<Inner, Conv>>, Gate<Number<0>, Chain<Gate<Number<1>, Chain<Number<2>, Conv>>, Conv>>>,
              Linear>>);
static_assert(std::same_as<Fused<Sum<Widen<2, NoBias>, Widen<2, NoBias>>>,
                           OneProduct<Sum<Widen<2, NoBias>, Widen<2, NoBias>>,
                                      Sum<Number<0, Widen<2, NoBias>>, Number<1, Widen<2, NoBias>>>>>);
// What is behind the maps is lowered too.
using Nested = Gate<Chain<Linear, Residual<Gate<Linear, Linear>>>, Chain<Linear, Gate<Linear, ShortConv<3>>>>;
static_assert(
    std::same_as<Fused<Nested>, OneProduct<Nested, Gate<Chain<Number<0>, Residual<Fused<Gate<Linear, Linear>>>>,
                                                        Chain<Number<1>, internal::GatedConvolution<Linear, ShortConv<3>>>>>>);
// Maps that differ, a bias per position, and inputs that something else reads too stay as they are.
template <class M>
inline constexpr bool stays = std::same_as<Fused<M>, M>;
static_assert(stays<Gate<Linear, LinearWith<NoBias>>> && stays<Gate<Linear, Chain<Widen<2>, Narrow<2>>>>);
static_assert(stays<Gate<LinearWith<PositionBias>, LinearWith<PositionBias>>>);
static_assert(stays<Gate<Linear, Identity>> && stays<Gate<ShortConv<3>, Linear>> && stays<Linear>);
static_assert(std::same_as<Fused<Sum<Gate<Linear, Linear>, ShortConv<3>>>, Sum<Fused<Gate<Linear, Linear>>, ShortConv<3>>>);
static_assert(std::same_as<lowered<Inner, Cpu>, Inner> && std::same_as<lowered<Inner, Reference>, Inner>);
// Facts and options are those of the written type.
static_assert(Mixer<Fused<H3Public>> && std::same_as<Fused<H3Public>::Options, H3Public::Options>);
static_assert(degree<Fused<H3Public>> == degree<H3Public> && is_causal<Fused<H3Public>>);
static_assert(cost<Fused<H3Public>>(8, 9) == cost<H3Public>(8, 9));

/// A bench's parameters, or their gradients, by name and in order of the names' visits.
template <class B>
auto named(B& bench, bool gradients) {
  std::vector<std::string> names;
  std::vector<double> values;
  for (const auto& p : parameters_of<double>(bench.layer)) {
    names.push_back(p.name);
    const auto m = gradients ? p.gradient : p.value;
    for (Index i = 0; i < m.rows; ++i) values.insert(values.end(), m.row(i), m.row(i) + m.width);
  }
  return std::pair(names, values);
}

/// The fused layer and the unfused one: names, values, outputs, gradients, decoding.
template <class M>
void same(Index width, const std::vector<Index>& lengths, const typename M::Options& options = {}) {
  static_assert(!std::same_as<Fused<M>, M>);
  const Packed packed(lengths);
  const Batch batch = packed.view();
  const Dimensions dims{width, batch.length};
  Bench<M, Cpu, double> plain(dims, options);
  Bench<Fused<M>, Cpu, double> fused(dims, options);
  CHECK(named(plain, false) == named(fused, false));  // values are drawn by name, so equal
  const Matrix<double> u = random_matrix<double>(batch.rows(), width, 1);
  const Matrix<double> w = random_matrix<double>(batch.rows(), M::output_width(width), 2);
  const auto expected = plain.run(batch, u, w.view()), r = fused.run(batch, u, w.view());
  CHECK(relative_error(r.y, expected.y) <= 1e-13);
  CHECK(relative_error(r.du, expected.du) <= 1e-12);
  const std::vector<double> gradients = named(fused, true).second, truth = named(plain, true).second;
  REQUIRE(gradients.size() == truth.size());
  CHECK(relative_error(gradients, truth) <= 1e-12);
  std::vector<double> turned = gradients;  // negative control: gradients of neighbours exchanged
  std::rotate(turned.begin(), turned.begin() + 1, turned.end());
  CHECK_FALSE(relative_error(turned, truth) <= 1e-12);
  CHECK(relative_error(fused.run(batch, u, w.view(), 2, Mode::inference).y, expected.y) <= 1e-13);
}

TEST_CASE("projections of one input as one product are those that are one each") {
  for (const Index width : {2, 4, 18}) {
    same<Hyena<3, FreeFilter>>(width, {5, 1, 40});
    same<H3Public>(width, {5, 1, 40});
    same<LinearAttention<2>>(width, {9, 2});
  }
  same<HyenaPublic<2, FreeFilter>>(1, {5, 1});
  same<Nested>(6, {7, 3});
  same<Chain<Sum<Widen<2, NoBias>, Widen<2, NoBias>>, Narrow<2>>>(5, {7, 3});
  same<Contract<1, Chain<Narrow<2>, ShortConv<2>>, Chain<Narrow<2>>>>(6, {4});
}

TEST_CASE("they keep every mixer's promises") {
  conforms<Fused<H3Public>, Cpu, double>();
  conforms<Fused<HyenaPublic<2, FreeFilter>>, Cpu, double>({.width = 5});
  conforms<Fused<Gate<LinearWith<NoBias>, Chain<LinearWith<NoBias>, ShortConv<3>>>>, Cpu, float>({.width = 17});
}

TEST_CASE("a width that the maps' ratio does not divide is refused by the map's name") {
  using Halves = Gate<Narrow<2>, Narrow<2>>;
  CHECK_THROWS_WITH_AS((Layer<Fused<Halves>, Cpu, double>({5, 4}, {}, "layers.0")),
                       "layers.0.left: required a width that 2 divides, came 5", Error);
}

}  // namespace

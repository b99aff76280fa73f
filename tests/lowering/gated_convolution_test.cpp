// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/sum.hpp"
#include "coyote/filters/decay.hpp"
#include "coyote/filters/implicit.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

template <class M>
using Fused = lowered<M, Cpu>;

using Short = Coyote<ShortConv<3>>;
using Long = Coyote<LongConv<>>;
using WithInput = Sum<LongConv<ImplicitFilter, Causal, NoBias>, Identity>;

// Coyotes are fused, wherever they stand; options stay the same type, so whoever sets them does not see it.
static_assert(std::same_as<Fused<Short>, internal::GatedConvolution<Linear, ShortConv<3>>>);
static_assert(std::same_as<Fused<Long>, internal::GatedConvolution<Linear, LongConv<>>>);
static_assert(std::same_as<Fused<Chain<Block<Short>, Repeat<Residual<Long>>>>,
                           Chain<Block<Fused<Short>>, Repeat<Residual<internal::GatedConvolution<Linear, LongConv<>>>>>>);
static_assert(std::same_as<Fused<Gate<Short, ShortConv<2>>>, internal::GatedConvolution<Fused<Short>, ShortConv<2>>>);
static_assert(std::same_as<Fused<Sum<Short, Linear>>, Sum<Fused<Short>, Linear>>);
static_assert(std::same_as<Fused<WithInput>, internal::ConvolutionWithInput<ImplicitFilter, Causal, NoBias>>);
static_assert(std::same_as<Fused<Coyote<WithInput>>, internal::GatedConvolution<Linear, Fused<WithInput>>>);
static_assert(std::same_as<Fused<WithInput>::Options, WithInput::Options>);
static_assert(cost<Fused<Coyote<WithInput>>>(8, 9) == cost<Coyote<WithInput>>(8, 9));
static_assert(std::same_as<Fused<Gate<ShortConv<3>, Linear>>, Gate<ShortConv<3>, Linear>>);
static_assert(std::same_as<lowered<Short, Reference>, Short>);
static_assert(std::same_as<Fused<Chain<Block<Short>, Repeat<Long, 2>>>::Options, Chain<Block<Short>, Repeat<Long, 2>>::Options>);
static_assert(Mixer<Fused<Long>> && degree<Fused<Long>> == degree<Long> && is_causal<Fused<Long>>);
static_assert(cost<Fused<Long>>(8, 9) == cost<Long>(8, 9));

template <class M>
std::vector<std::string> names(Index width, Index length) {
  Layer<M, Cpu, double> layer({width, length}, {}, "test");
  std::vector<std::string> result;
  for (const auto& p : parameters_of<double>(layer)) result.push_back(p.name);
  return result;
}

/// The fused layer and the unfused one: names, initial values, outputs, gradients, decoding.
template <class M>
void same(Index width, const std::vector<Index>& lengths) {
  static_assert(!std::same_as<Fused<M>, M>);
  const Packed packed(lengths);
  const Batch batch = packed.view();
  const Dimensions dims{width, batch.length};
  CHECK(names<M>(width, batch.length) == names<Fused<M>>(width, batch.length));
  Bench<M, Cpu, double> plain(dims, {});
  Bench<Fused<M>, Cpu, double> fused(dims, {});
  const auto& a = plain.store.values();
  const auto& b = fused.store.values();
  REQUIRE(a.size() == b.size());
  CHECK(std::equal(a.begin(), a.end(), b.begin()));  // drawn by name, so equal
  const Matrix<double> u = random_matrix<double>(batch.rows(), width, 1), w = random_matrix<double>(batch.rows(), width, 2);
  const auto expected = plain.run(batch, u, w.view()), r = fused.run(batch, u, w.view());
  CHECK(relative_error(r.y, expected.y) <= 1e-13);
  CHECK(relative_error(r.du, expected.du) <= 1e-12);
  CHECK(relative_error(r.gradients, expected.gradients) <= 1e-12);
  CHECK(relative_error(fused.run(batch, u, w.view(), 2, Mode::inference).y, expected.y) <= 1e-13);
  Matrix<double> wrong = r.y;
  for (double& x : wrong) x *= 1 + 1e-11;
  CHECK_FALSE(relative_error(wrong, expected.y) <= 1e-13);
}

TEST_CASE("the fused gate is the unfused one") {
  for (const Index width : {1, 3, 17, 64}) {
    same<Short>(width, {5, 1, 2, 40});
    same<Long>(width, {5, 1, 130});
    same<Coyote<LongConv<FreeFilter, Causal, PositionBias>>>(width, {9, 2});
  }
  same<Block<Gate<Short, ShortConv<4, NoBias>>>>(6, {7, 3});
}

TEST_CASE("a convolution plus its input is one convolution, with whatever filter and in a gate") {
  for (const Index width : {1, 3, 17, 64}) {
    same<WithInput>(width, {5, 1, 130});
    same<Sum<LongConv<FreeFilter, Cyclic, PositionBias>, Identity>>(width, {9, 2});
    same<Coyote<WithInput>>(width, {5, 1, 2, 40});
  }
}

TEST_CASE("fused layers keep every mixer's promises") {
  conforms<Fused<WithInput>, Cpu, double>({.width = 5});
  conforms<Fused<Coyote<Sum<LongConv<DecayFilter>, Identity>>>, Cpu, double>({.width = 4});
  conforms<Fused<Short>, Cpu, double>();
  conforms<Fused<Long>, Cpu, float>({.width = 17});
  conforms<Fused<Coyote<LongConv<FreeFilter, Cyclic>>>, Cpu, double>({.width = 3});
}

TEST_CASE("a model runs the fused layer; its numbers are those of the seed") {
  const Model<Long, Cpu, double> model({.width = 5, .length = 9}, Seed{3});
  Layer<Long, Cpu, double> layer({5, 9}, {}, {});
  ParameterStore<double> store;
  store.bind(layer);
  initialise(layer, Seed{3});
  const Matrix<double> u = random_matrix<double>(9, 5, 1);
  Matrix<double> y(9, 5), expected(9, 5);
  Context<Cpu> context(1);
  Layer<Long, Cpu, double>::Saved saved;
  model.forward(context, {.sequences = 1, .length = 9}, u, y);
  layer.forward(context, {.sequences = 1, .length = 9}, u, expected, saved);
  CHECK(relative_error(y, expected) <= 1e-13);
  model.forward(context, {.sequences = 1, .length = 9}, u, y);
  const std::size_t before = context.peak_memory();
  for (int i = 0; i < 100; ++i) model.forward(context, {.sequences = 1, .length = 9}, u, y);
  CHECK(context.peak_memory() == before);  // nothing stays behind
  CHECK_THROWS_WITH_AS(model.forward(context, {.sequences = 0, .length = 9}, u, y),
                       "Model::forward: required a batch with at least one sequence, came 0", Error);
}

}  // namespace

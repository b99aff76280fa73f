// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/combinators/residual.hpp"
#include "coyote/combinators/sum.hpp"
#include "coyote/mixers/identity.hpp"
#include "coyote/models/model.hpp"
#include "support/prime_field.hpp"

namespace {

using namespace coyote;
using test::PrimeField;

using Positions = LinearWith<PositionBias>;
template <class Ends>
using Golden = Coyote<LongConv<FreeFilter, Ends, PositionBias>, Positions>;

/// Sets a parameter from a list of its rows.
template <class P>
constexpr void set(Rows<P> to, std::initializer_list<long> values) {
  Index i = 0;
  for (const long v : values) to(i / to.width, i % to.width) = static_cast<P>(v), ++i;
}

/// The theory's golden layer: y = (u W + b1) * (K conv u + b2), 3 rows of 2 channels.
template <class Ends, class S>
constexpr Matrix<S> golden() {
  auto layer = Model<Golden<Ends>, Reference, S>::blank({.width = 2, .length = 3});
  auto fill = [](const Path& path, auto& p) {
    const std::string_view name = path;
    if (name == "left.weight") set(p.value, {1, 2, 3, 5});
    if (name == "left.bias") set(p.value, {0, 1, 1, 0, 2, 2});
    if (name == "right.filter.taps") set(p.value, {1, 2, 3, 0, 0, 7});
    if (name == "right.bias") set(p.value, {0, 0, 1, 0, 0, 1});
  };
  layer.visit(fill);
  Matrix<S> u(3, 2), y(3, 2);
  set(u.view(), {1, 2, 3, 4, 5, 6});
  Context<Reference> context;
  layer.forward(context, {.sequences = 1, .length = 3}, u, y);
  return y;
}

template <class S>
constexpr bool equal(const Matrix<S>& y, std::initializer_list<long> expected) {
  Index i = 0;
  for (const long value : expected) {
    if (!(y.data()[i++] == static_cast<S>(value))) return false;
  }
  return i == y.size();
}

// In constant evaluation, over the integers and over two prime fields; 9 of 10 is not equal.
using F17 = PrimeField<17>;
using F998244353 = PrimeField<998244353>;
static_assert(equal(golden<Causal, long>(), {7, 52, 112, 208, 350, 1134}));
static_assert(equal(golden<Cyclic, long>(), {112, 416, 112, 1300, 350, 1134}));
static_assert(equal(golden<Causal, F998244353>(), {7, 52, 112, 208, 350, 1134}));
static_assert(equal(golden<Cyclic, F17>(), {112, 416, 112, 1300, 350, 1134}));
static_assert(!equal(golden<Causal, long>(), {7, 52, 112, 208, 350, 1135}));
static_assert(!equal(golden<Causal, F17>(), {7, 52, 112, 209, 350, 1134}));

/// Gradients over a ring, in constant evaluation: of y = u^2 elementwise, dy = 1.
constexpr long square_gradient(long u_value) {
  auto layer = Model<Gate<Identity, Identity>, Reference, long>::blank({.width = 1, .length = 1});
  layer.enable_gradients();
  Matrix<long> u(1, 1), y(1, 1), dy(1, 1), du(1, 1);
  u(0, 0) = u_value;
  dy(0, 0) = 1;
  Context<Reference> context;
  context.mode = Mode::training;
  Model<Gate<Identity, Identity>, Reference, long>::Saved saved;
  layer.forward(context, {.sequences = 1, .length = 1}, u, y, saved);
  layer.backward(context, {.sequences = 1, .length = 1}, std::as_const(dy).view(), du, Write::overwrite, saved);
  return du(0, 0);
}
static_assert(square_gradient(7) == 14);

/// Combinators over a ring, decoded step by step in constant evaluation: u -> (u + u) then u + conv, twice.
constexpr bool decodes_exactly() {
  using M = Chain<Sum<Identity, Identity>, Repeat<Residual<ShortConv<2, NoBias>>, 2>, LongConv<FreeFilter, Causal, NoBias>>;
  auto layer = Model<M, Reference, long>::blank({.width = 1, .length = 5});
  auto fill = [](const Path&, auto& p) {
    for (Index r = 0; r < p.rows; ++r) p.value(r, 0) = 2 * r + 1;
  };
  layer.visit(fill);
  Matrix<long> u(5, 1), y(5, 1);
  for (Index i = 0; i < 5; ++i) u(i, 0) = 1 + i * i;
  Context<Reference> context;
  layer.forward(context, {.sequences = 1, .length = 5}, u, y);
  auto state = layer.make_state({.sequences = 1, .capacity = 5});
  for (Index i = 0; i < 5; ++i) {
    Matrix<long> row(1, 1), out(1, 1);
    row(0, 0) = u(i, 0);
    layer.step(context, state, {.position = i}, row, out);
    if (out(0, 0) != y(i, 0)) return false;
  }
  return y(0, 0) == 8 && y(4, 0) != 0;  // 2 u, twice doubled (1 + tap 1): 8
}
static_assert(decodes_exactly());

TEST_CASE("the golden layer at run time, over every scalar") {
  CHECK(equal(golden<Causal, long>(), {7, 52, 112, 208, 350, 1134}));
  CHECK(equal(golden<Cyclic, double>(), {112, 416, 112, 1300, 350, 1134}));
  CHECK(equal(golden<Causal, float>(), {7, 52, 112, 208, 350, 1134}));
  CHECK(equal(golden<Causal, F17>(), {7, 52, 112, 208, 350, 1134}));
  CHECK_FALSE(equal(golden<Causal, double>(), {112, 416, 112, 1300, 350, 1134}));
}

}  // namespace

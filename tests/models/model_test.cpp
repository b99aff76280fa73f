// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/models/model.hpp"

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/sum.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

using Net = Chain<Block<Coyote<ShortConv<3>>>, Block<Attention<Heads<2>, RepeatedBigrams<2>>>>;

/// Loss sum(w * y) and everything derived from it, through the front door.
template <class Backend, class S>
struct Through {
  Matrix<S> y, du;
  std::vector<double> gradients;
  explicit Through(Model<Net, Backend, S> model) : y(14, 6), du(14, 6) {
    const Packed packed({9, 5}, 3);
    const Matrix<S> u = random_matrix<S>(14, 6, 1), w = random_matrix<S>(14, 6, 2);
    model.enable_gradients();
    Context<Backend> context = ContextFor<Backend>::make(2);
    context.mode = Mode::training;
    const auto frame = context.frame();
    typename Model<Net, Backend, S>::Saved saved;
    model.forward(context, packed.view(), u, y, saved);
    model.backward(context, packed.view(), w.view(), du, Write::overwrite, saved);
    for (const S g : model.parameters().gradients()) gradients.push_back(static_cast<double>(g));
  }
};

template <class Backend, class S>
Model<Net, Backend, S> make() {
  return Model<Net, Backend, S>({.width = 6, .length = 9}, Seed{4});
}

TEST_CASE("a model is the same on every backend and scalar, moved or not") {
  const Through<Reference, double> expected(make<Reference, double>());
  const Through<Cpu, double> fast(make<Cpu, double>());
  const Through<Cpu, float> narrow(make<Cpu, float>());
  CHECK(relative_error(fast.y, expected.y) <= 1e-12);
  CHECK(relative_error(fast.du, expected.du) <= 1e-11);
  CHECK(relative_error(fast.gradients, expected.gradients) <= 1e-11);
  CHECK(relative_error(narrow.y, expected.y) <= 1e-5);
  CHECK(relative_error(narrow.du, expected.du) <= 1e-4);
  CHECK(relative_error(narrow.gradients, expected.gradients) <= 1e-4);
  CHECK_FALSE(relative_error(Matrix<double>(14, 6), expected.y) <= 1e-5);
}

TEST_CASE("steps through the front door are its forward") {
  const auto model = make<Cpu, double>();
  const Packed packed({9}, 3);
  const Matrix<double> u = random_matrix<double>(9, 6, 1);
  Matrix<double> y(9, 6), row(1, 6), out(1, 6);
  Context<Cpu> context(1);
  model.forward(context, packed.view(), u, y);
  auto state = model.make_state({.sequences = 1, .capacity = 9});
  for (Index i = 0; i < 9; ++i) {
    for (Index c = 0; c < 6; ++c) row(0, c) = u(i, c);
    model.step(context, state, {i, std::span(packed.tokens).subspan(static_cast<std::size_t>(i), 1)}, row, out);
    for (Index c = 0; c < 6; ++c) CHECK(std::abs(out(0, c) - y(i, c)) <= 1e-12);
  }
}

TEST_CASE("initial values depend on the seed and on names alone, not on what stands beside them") {
  using One = Chain<Linear, ShortConv<2>>;
  using Other = Chain<Linear, Sum<Linear, Linear>>;
  Model<One, Cpu, float> a({.width = 6, .length = 9}, Seed{1}), b({.width = 6, .length = 9}, Seed{1}, {}, "net"),
      c({.width = 6, .length = 9}, Seed{2});
  Model<Other, Cpu, double> d({.width = 6, .length = 4}, Seed{1});
  const auto first = [](auto& model) {
    std::vector<double> result;
    std::string name;
    auto look = [&](const Path& path, auto& p) {
      if (!name.empty()) return;
      name = path.view();
      for (Index r = 0; r < p.rows; ++r) {
        for (Index k = 0; k < p.columns; ++k) result.push_back(static_cast<double>(static_cast<float>(p.value(r, k))));
      }
    };
    model.visit(look);
    return std::pair(name, result);
  };
  CHECK(first(a).first == "0.weight");
  CHECK(first(b).first == "net.0.weight");
  CHECK(first(a) == first(d));
  CHECK_FALSE(first(a).second == first(b).second);
  CHECK_FALSE(first(a).second == first(c).second);
}

TEST_CASE("batches that do not agree with themselves are refused") {
  const auto model = make<Cpu, double>();
  Context<Cpu> context(1);
  Matrix<double> u(9, 6), y(9, 6);
  const std::vector<Index> offsets = {0, 4, 4};
  const std::vector<Token> tokens(9, 1);
  CHECK_THROWS_AS(model.forward(context, {.sequences = 2, .length = 4, .offsets = offsets, .tokens = tokens}, u, y), Error);
  CHECK_THROWS_AS(model.forward(context, {.sequences = 3, .length = 3}, u, y), Error);  // no tokens
  CHECK_THROWS_AS(model.forward(context, {.sequences = 2, .length = 9, .tokens = tokens}, u, y), Error);
  CHECK_NOTHROW(model.forward(context, {.sequences = 3, .length = 3, .tokens = tokens}, u, y));
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/combinators/block.hpp"
#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/gate.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "coyote/operations/cpu/short_convolution.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

using Local = Gate<Linear, ShortConv<3>>;

TEST_CASE("blocks, chains and repetitions keep every mixer's promises") {
  conforms<Block<Local>, Reference, double>({.width = 3});
  conforms<Block<ShortConv<2>, RmsNorm>, Cpu, double>({.width = 5});
  conforms<Chain<Linear>, Cpu, double>({.width = 1});
  conforms<Chain<Widen<3>, ShortConv<2>, Narrow<3>>, Cpu, double>({.width = 3});
  conforms<Repeat<ShortConv<2>, 4>, Cpu, double>({.width = 3});
  conforms<Repeat<Chain<Linear, ShortConv<2>>>, Reference, double>({.width = 3}, {.count = 3});
  conforms<Repeat<Block<Local>>, Cpu, float>({.width = 17}, {.count = 2});
}

template <class M>
std::vector<std::string> names(const typename M::Options& options = {}) {
  Layer<M, Cpu, float> layer({4, 4}, options, "top");
  std::vector<std::string> result;
  for (const auto& p : parameters_of<float>(layer)) result.push_back(p.name);
  return result;
}

TEST_CASE("parts are named by their place") {
  CHECK(names<Block<ShortConv<2>>>() ==
        std::vector<std::string>{"top.norm.scale", "top.norm.shift", "top.mixer.taps", "top.mixer.bias"});
  CHECK(names<Chain<LinearWith<NoBias>, Repeat<ShortConv<2, NoBias>>>>({{{}, {.count = 2}}}) ==
        std::vector<std::string>{"top.0.weight", "top.1.0.taps", "top.1.1.taps"});
}

TEST_CASE("a chain, a repetition at run time and one at compile time are the same map") {
  using A = ShortConv<2>;
  Bench<Chain<A, A, A>, Cpu, double> chain({3, 6}, {});
  Bench<Repeat<A, 3>, Cpu, double> fixed({3, 6}, {});
  Bench<Repeat<A>, Cpu, double> counted({3, 6}, {.count = 3});
  const Packed packed({6, 2});
  const Matrix<double> u = random_matrix<double>(8, 3, 1), w = random_matrix<double>(8, 3, 2);
  const auto expected = chain.run(packed.view(), u, w.view());
  for (const Mode mode : {Mode::training, Mode::inference}) {
    const auto a = fixed.run(packed.view(), u, w.view(), 1, mode), b = counted.run(packed.view(), u, w.view(), 1, mode);
    CHECK(relative_error(a.y, expected.y) <= 0);
    CHECK(relative_error(b.y, expected.y) <= 0);
    if (mode == Mode::inference) continue;
    CHECK(relative_error(a.du, expected.du) <= 0);
    CHECK(relative_error(b.gradients, expected.gradients) <= 0);
  }
}

TEST_CASE("inference keeps nothing: memory does not grow with the number of copies") {
  const auto peak = [](Index count) {
    Layer<Repeat<Block<Local>>, Cpu, float> layer({8, 64}, {.count = count}, "r");
    ParameterStore<float> store;
    store.bind(layer);
    Context<Cpu> context(1);
    Matrix<float> u(64, 8), y(64, 8);
    typename Layer<Repeat<Block<Local>>, Cpu, float>::Saved saved;
    layer.forward(context, {.sequences = 1, .length = 64}, u, y, saved);
    return context.peak_memory();
  };
  CHECK(peak(3) == peak(12));
}

TEST_CASE("what does not fit is refused by name") {
  CHECK_THROWS_WITH_AS((Layer<Block<Widen<2>>, Cpu, float>({4, 4}, {}, "b")),
                       "b: required a mixer that keeps the width 4 inside a block, came 8", Error);
  CHECK_THROWS_WITH_AS((Layer<Repeat<Widen<2>, 2>, Cpu, float>({4, 4}, {}, "r")),
                       "r: required a mixer that keeps the width 4 to repeat, came 8", Error);
  CHECK_THROWS_WITH_AS((Layer<Repeat<Linear>, Cpu, float>({4, 4}, {.count = 0}, "r")),
                       "r: required at least one copy to repeat, came 0", Error);
  CHECK_THROWS_WITH_AS((Layer<Repeat<Linear, 2>, Cpu, float>({4, 4}, {.count = 3}, "r")),
                       "r: required the 2 copies of its type, came 3", Error);
  // An error inside names the place inside.
  CHECK_THROWS_WITH_AS((Layer<Chain<Linear, Block<Narrow<3>>>, Cpu, float>({4, 4}, {}, "c")),
                       "c.1.mixer: required a width that 3 divides, came 4", Error);
}

}  // namespace

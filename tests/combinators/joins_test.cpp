// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/combinators/gate.hpp"
#include "coyote/combinators/residual.hpp"
#include "coyote/combinators/sum.hpp"
#include "coyote/mixers/identity.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/long_conv.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "coyote/operations/cpu/long_convolution.hpp"
#include "coyote/operations/cpu/short_convolution.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("two branches and their join keep every mixer's promises") {
  conforms<Gate<Linear, ShortConv<3>>, Reference, double>({.width = 3});
  conforms<Gate<Linear, ShortConv<3>>, Cpu, double>({.width = 17, .lengths = {4, 1}});
  conforms<Gate<Linear, LongConv<>>, Cpu, float>({.width = 64});
  conforms<Gate<Identity, Identity>, Cpu, double>({.width = 1});
  conforms<Sum<Linear, LongConv<>>, Cpu, double>({.width = 3});
  conforms<Sum<Identity, Gate<ShortConv<2>, Linear>>, Reference, double>({.width = 1});
  conforms<Residual<Gate<Linear, LongConv<FreeFilter, Cyclic>>>, Cpu, double>({.width = 3});
}

/// u, then A(u) and B(u) by layers of their own with the parameters of a join of both.
TEST_CASE("a gate is the product of its branches, a sum their sum, a residual adds its input") {
  using A = Linear;
  using B = ShortConv<2>;
  const Packed packed({4, 3});
  const Batch batch = packed.view();
  const Matrix<double> u = random_matrix<double>(7, 3, 1), w = random_matrix<double>(7, 3, 2);
  Bench<Gate<A, B>, Cpu, double> gate({3, 4}, {});
  Bench<Sum<A, B>, Cpu, double> sum({3, 4}, {});
  Bench<Residual<B>, Cpu, double> residual({3, 4}, {});
  Layer<A, Cpu, double> a({3, 4}, {}, "a");
  Layer<B, Cpu, double> b({3, 4}, {}, "b");
  ParameterStore<double> a_store, b_store;
  a_store.bind(a);
  b_store.bind(b);
  const auto take = [](auto& bench, const char* prefix, auto& layer, const char* name) {
    for (auto& from : parameters_of<double>(bench.layer)) {
      for (auto& to : parameters_of<double>(layer)) {
        if (from.name != prefix + to.name.substr(std::string(name).size())) continue;
        for (Index r = 0; r < to.value.rows; ++r) {
          for (Index c = 0; c < to.value.width; ++c) to.value(r, c) = from.value(r, c);
        }
      }
    }
  };
  const auto run = [&](auto& layer) {
    Matrix<double> y(7, 3);
    Context<Cpu> context(1);
    typename std::remove_reference_t<decltype(layer)>::Saved saved;
    layer.forward(context, batch, u, y, saved);
    return y;
  };
  const auto same = [](const Matrix<double>& x, const Matrix<double>& y, auto&& join, const Matrix<double>& came) {
    for (Index i = 0; i < x.size(); ++i) CHECK(std::abs(join(x.data()[i], y.data()[i]) - came.data()[i]) <= 1e-14);
  };
  take(gate, "test.left", a, "a");
  take(gate, "test.right", b, "b");
  same(
      run(a), run(b), [](double x, double y) { return x * y; }, gate.run(batch, u, w.view()).y);
  take(sum, "test.left", a, "a");
  take(sum, "test.right", b, "b");
  same(
      run(a), run(b), [](double x, double y) { return x + y; }, sum.run(batch, u, w.view()).y);
  take(residual, "test.inner", b, "b");
  same(
      u, run(b), [](double x, double y) { return x + y; }, residual.run(batch, u, w.view()).y);
}

TEST_CASE("branches that do not fit are refused by name") {
  CHECK_THROWS_WITH_AS((Layer<Gate<Linear, Widen<2>>, Cpu, float>({4, 4}, {}, "g")),
                       "g: required two branches whose widths fit together, came 4 and 8", Error);
  CHECK_THROWS_WITH_AS((Layer<Residual<Widen<2>>, Cpu, float>({4, 4}, {}, "r")),
                       "r: required a mixer that keeps the width 4 inside a residual, came 8", Error);
}

}  // namespace

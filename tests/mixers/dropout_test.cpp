// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/dropout.hpp"
#include "coyote/operations/cpu/dropout.hpp"

#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("dropout of nothing keeps every mixer's promises") {
  conforms<Dropout, Cpu, double>({}, {.rate = 0});
  conforms<Dropout, Reference, double>({.width = 3}, {.rate = 0});
}

template <class Backend>
struct Run {
  Matrix<double> y, du;
  Run(double rate, std::uint64_t seed, std::uint64_t step, Index width, Index rows = 200, const char* name = "drop",
      Index threads = 1) {
    Layer<Dropout, Backend, double> layer({width, rows}, {.rate = rate}, name);
    Context<Backend> context = ContextFor<Backend>::make(threads);
    context.mode = Mode::training;
    context.seed = {seed};
    context.step = step;
    Matrix<double> ones(rows, width);
    for (double& x : ones) x = 1;
    y = du = Matrix<double>(rows, width);
    typename Layer<Dropout, Backend, double>::Saved saved;
    layer.forward(context, {.sequences = 1, .length = rows}, ones, y, saved);
    context.step = 99;  // backward uses the forward's draws whatever came between
    layer.backward(context, {.sequences = 1, .length = rows}, std::as_const(ones).view(), du, Write::overwrite, saved);
  }
  bool operator==(const Run& other) const { return std::equal(y.begin(), y.end(), other.y.begin(), other.y.end()); }
};

TEST_CASE("kept elements are scaled, their share is as asked, backward has the same mask") {
  for (const Index width : {1, 7, 50}) {
    const Run<Cpu> r(0.25, 1, 0, width, 10000 / width);
    double kept = 0;
    for (const double y : r.y) {
      REQUIRE((y == 0 || std::abs(y - 4.0 / 3) <= 1e-15));
      kept += y > 0 ? 1 : 0;
    }
    const auto n = static_cast<double>(r.y.size());
    CHECK(std::abs(kept / n - 0.75) <= 5 * std::sqrt(0.25 * 0.75 / n));
    CHECK(std::equal(r.y.begin(), r.y.end(), r.du.begin()));
  }
}

TEST_CASE("the eight numbers of a draw keep their share each, independently, of a rate rounded to 16 bits") {
  const DropoutRule rule(0.1, Stream(Seed{3}, Purpose::dropout));
  CHECK(rule.threshold() == 6554);
  CHECK(rule.scale() == 65536.0 / (65536 - 6554));
  constexpr std::uint64_t draws = 40000;
  double kept[8] = {}, both[8] = {};  // both: with the number before it, 0 with 7 of the draw before
  for (std::uint64_t n = 0; n < 8 * draws; ++n) {
    kept[n % 8] += rule.keeps(n / 800, n % 800) ? 1 : 0;
    if (n > 0) both[n % 8] += rule.keeps(n / 800, n % 800) && rule.keeps((n - 1) / 800, (n - 1) % 800) ? 1 : 0;
  }
  for (int place = 0; place < 8; ++place) {
    CHECK(std::abs(kept[place] / draws - 0.9) <= 5 * std::sqrt(0.1 * 0.9 / draws));
    CHECK(std::abs(both[place] / draws - 0.81) <= 5 * std::sqrt(0.81 * 0.19 / draws));
  }
  const Stream any(Seed{3}, Purpose::dropout);
  CHECK_FALSE(DropoutRule(1e-6, any).active());
  CHECK(DropoutRule(1e-5, any).threshold() == 1);
  CHECK(DropoutRule(0.999999, any).scale() == 65536);
}

TEST_CASE("draws are named by seed, step and layer, and are the same on every backend and for any number of threads") {
  const Run<Cpu> base(0.5, 1, 0, 7);
  CHECK(base == Run<Cpu>(0.5, 1, 0, 7));
  CHECK(base == Run<Cpu>(0.5, 1, 0, 7, 200, "drop", 3));
  const Run<Reference> reference(0.5, 1, 0, 7);
  CHECK(std::equal(base.y.begin(), base.y.end(), reference.y.begin()));
  CHECK_FALSE(base == Run<Cpu>(0.5, 2, 0, 7));
  CHECK_FALSE(base == Run<Cpu>(0.5, 1, 1, 7));
  CHECK_FALSE(base == Run<Cpu>(0.5, 1, 0, 7, 200, "other"));
}

TEST_CASE("inference and decoding drop nothing; rates outside [0, 1) are refused") {
  Layer<Dropout, Cpu, double> layer({3, 4}, {.rate = 0.9}, "drop");
  Context<Cpu> context(1);
  const Matrix<double> u = random_matrix<double>(4, 3, 1);
  Matrix<double> y(4, 3), stepped(4, 3);
  Layer<Dropout, Cpu, double>::Saved saved;
  layer.forward(context, {.sequences = 1, .length = 4}, u, y, saved);
  NoState state;
  layer.step(context, state, {}, u, stepped);
  CHECK(std::equal(u.begin(), u.end(), y.begin()));
  CHECK(std::equal(u.begin(), u.end(), stepped.begin()));
  for (const double rate : {-0.1, 1.0, static_cast<double>(NAN)}) {
    CHECK_THROWS_AS((Layer<Dropout, Cpu, double>({3, 4}, {.rate = rate}, "drop")), Error);
  }
}

}  // namespace

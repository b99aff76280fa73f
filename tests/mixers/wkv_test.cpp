// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/wkv.hpp"

#include <limits>

#include "coyote/mixers/part.hpp"
#include "coyote/operations/cpu/wkv.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

/// Keys in the left half of the channels, values in the right.
using Plain = Wkv<Part<0, 2>, Part<1, 2>>;

/// The definition, term by term, in long double.
template <class S>
std::vector<double> definition(const Batch& batch, Rows<const S> decay, Rows<const S> bonus, Rows<const S> u) {
  const Index width = u.width / 2;
  std::vector<double> y(static_cast<std::size_t>(u.rows * width));
  for (Index s = 0; s < batch.sequences; ++s) {
    for (Index i = batch.begin(s); i < batch.end(s); ++i) {
      for (Index c = 0; c < width; ++c) {
        const long double w = std::exp(static_cast<long double>(decay(0, c)));
        const auto k = [&](Index j) { return static_cast<long double>(u(j, c)); };
        const auto v = [&](Index j) { return static_cast<long double>(u(j, width + c)); };
        long double above = std::exp(static_cast<long double>(bonus(0, c)) + k(i)) * v(i);
        long double below = std::exp(static_cast<long double>(bonus(0, c)) + k(i));
        for (Index j = batch.begin(s); j < i; ++j) {
          const long double weight = std::exp(-static_cast<long double>(i - 1 - j) * w + k(j));
          above += weight * v(j);
          below += weight;
        }
        y[static_cast<std::size_t>(i * width + c)] = static_cast<double>(above / below);
      }
    }
  }
  return y;
}

template <class Backend, class S>
void agrees() {
  for (const Index width : {1, 5, 16, 35}) {
    // Longer than several checkpoints, and as long as one more or less.
    const Packed packed({50, 1, 16, 17, 33, 2, 3, 4, 5});
    const Batch batch = packed.view();
    Bench<Plain, Backend, S> bench({2 * width, 50}, {});
    const Matrix<S> u = random_matrix<S>(batch.rows(), 2 * width, 1, 2), weights = random_matrix<S>(batch.rows(), width, 2);
    const auto parameters = parameters_of<S>(bench.layer);
    REQUIRE(parameters.size() == 2);
    CHECK(parameters[0].name == "test.decay");
    CHECK(parameters[1].name == "test.bonus");
    const auto expected = definition<S>(batch, parameters[0].value, parameters[1].value, u);
    auto y = bench.run(batch, u, weights.view()).y;
    CHECK(relative_error(y, expected) <= Tolerance<S>::forward);
    for (S& x : y) x *= S(1) + 100 * static_cast<S>(Tolerance<S>::forward);
    CHECK_FALSE(relative_error(y, expected) <= Tolerance<S>::forward);
    CHECK_FALSE(relative_error(Matrix<S>(batch.rows(), width), expected) <= Tolerance<S>::forward);
  }
}

TEST_CASE("wkv equals its definition") {
  agrees<Reference, double>();
  agrees<Cpu, double>();
  agrees<Cpu, float>();
}

TEST_CASE("the backends agree on gradients over long sequences") {
  const Packed packed({100, 1, 31, 32, 33, 16});
  const Batch batch = packed.view();
  const Index width = 21;
  Bench<Plain, Reference, double> slow({2 * width, 100}, {});
  Bench<Plain, Cpu, double> fast({2 * width, 100}, {});
  Bench<Plain, Cpu, float> single({2 * width, 100}, {});
  const auto u = random_matrix<double>(batch.rows(), 2 * width, 1, 2), weights = random_matrix<double>(batch.rows(), width, 2);
  Matrix<float> u_single(batch.rows(), 2 * width), weights_single(batch.rows(), width);
  for (Index i = 0; i < u.size(); ++i) u_single.data()[i] = static_cast<float>(u.data()[i]);
  for (Index i = 0; i < weights.size(); ++i) weights_single.data()[i] = static_cast<float>(weights.data()[i]);
  const auto a = slow.run(batch, u, weights.view()), b = fast.run(batch, u, weights.view(), 2);
  const auto c = single.run(batch, u_single, weights_single.view(), 3);
  CHECK(relative_error(b.du, a.du) <= 1e-11);
  CHECK(relative_error(b.gradients, a.gradients) <= 1e-11);
  CHECK(relative_error(c.du, a.du) <= 1e-4);
  CHECK_FALSE(relative_error(c.du, a.du) <= 1e-12);
  CHECK_FALSE(relative_error(Matrix<double>(batch.rows(), 2 * width), a.du) <= 1e-4);
  // The floats' store is padded otherwise: compare the parameters, not the buffers.
  for (std::size_t p = 0; p < 2; ++p) {
    const auto wide = parameters_of<double>(slow.layer)[p].gradient;
    const auto narrow = parameters_of<float>(single.layer)[p].gradient;
    std::vector<double> x, y;
    for (Index i = 0; i < width; ++i) {
      x.push_back(static_cast<double>(narrow(0, i)));
      y.push_back(wide(0, i));
    }
    CHECK(relative_error(x, y) <= 1e-4);
  }
}

TEST_CASE("wkv keeps every mixer's promises") {
  conforms<Plain, Reference, double>();
  conforms<Plain, Cpu, double>({.width = 10, .lengths = {20, 1, 2, 17}});
  conforms<Plain, Cpu, float>({.width = 10, .lengths = {20, 1, 2, 17}});
}

template <class Backend, class S>
void extremes() {
  const Index rows = 40, width = 9;
  for (const double decay : {-1e4, -5.0, 3.0, 50.0, 1e4}) {
    for (const double bonus : {-1e4, 0.0, 1e4}) {
      Bench<Plain, Backend, S> bench({2 * width, rows}, {});
      for (auto& p : parameters_of<S>(bench.layer)) {
        for (Index c = 0; c < width; ++c) p.value(0, c) = static_cast<S>(p.name == "test.decay" ? decay : bonus);
      }
      Matrix<S> u = random_matrix<S>(rows, 2 * width, 3);
      const Stream draws(Seed{1}, Purpose::test, 4);
      for (Index i = 0; i < rows; ++i) {
        for (Index c = 0; c < width; ++c) {
          constexpr double keys[] = {-1e4, 0, 1e4, 9999};
          u(i, c) = static_cast<S>(c == 0   ? -1e4
                                   : c == 1 ? 1e4
                                            : keys[draws.below(static_cast<std::uint64_t>(i * width + c), 4)]);
          u(i, width + c) = static_cast<S>(1 + 0.5 * static_cast<double>(u(i, width + c) > 0));
        }
      }
      const auto r = bench.run({.sequences = 1, .length = rows}, u, random_matrix<S>(rows, width, 5).view());
      // A mean of values from 1 to 1.5.
      bool sane = true;
      for (const S y : r.y) sane = sane && y >= S(0.999) && y <= S(1.501);
      for (const S d : r.du) sane = sane && std::isfinite(static_cast<double>(d));
      for (const double d : r.gradients) sane = sane && std::isfinite(d);
      CHECK(sane);
      Context<Backend> context = ContextFor<Backend>::make(1);
      auto state = bench.layer.make_state({.sequences = 1, .capacity = rows});
      Matrix<S> y(rows, width);
      for (Index i = 0; i < rows; ++i) {
        bench.layer.step(context, state, {.position = i}, u.view().slice(i, 1), y.view().slice(i, 1));
      }
      CHECK(relative_error(y, r.y) <= 1e-5);
    }
  }
}

TEST_CASE("extreme keys, decays and bonuses give no NaN") {
  extremes<Reference, double>();
  extremes<Cpu, double>();
  extremes<Cpu, float>();
}

TEST_CASE("a NaN key is not hidden") {
  Bench<Plain, Cpu, float> bench({2, 4}, {});
  Matrix<float> u(4, 2), weights(4, 1);
  for (float& x : u) x = 1;
  u(1, 0) = std::numeric_limits<float>::quiet_NaN();
  const auto r = bench.run({.sequences = 1, .length = 4}, u, weights.view());
  CHECK(r.y(0, 0) == 1);
  CHECK(std::isnan(r.y(1, 0)));
}

TEST_CASE("facts, cost and errors") {
  static_assert(is_causal<Plain> && !is_input_dependent<Plain> && state_is_bounded<Plain> && degree<Plain>.is_infinite());
  CHECK(cost<Plain>(8, 10) ==
        Cost{.parameters = 8, .multiplications = 240, .additions = 240, .functions = 200, .state_scalars = 12});
  CHECK_THROWS_AS((Layer<Wkv<Part<0, 2>, Part<0, 4>>, Reference, double>({8, 4}, {}, Path("wkv"))), Error);
  Bench<Plain, Cpu, float> bench({2, 4}, {});
  auto state = bench.layer.make_state({.sequences = 2, .capacity = 4});
  Context<Cpu> context(1);
  Matrix<float> u(3, 2), y(3, 1);
  CHECK_THROWS_AS(bench.layer.step(context, state, {}, u, y), Error);
}

}  // namespace

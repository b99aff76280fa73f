// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/architectures/rwkv.hpp"

#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/activation.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "coyote/operations/cpu/wkv.hpp"
#include "support/conformance.hpp"
#include "support/counting.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

template <class S>
std::vector<double> values_of(const std::vector<NamedParameter<S>>& all, std::string_view name) {
  for (const auto& p : all) {
    if (p.name != name) continue;
    std::vector<double> values;
    for (Index r = 0; r < p.value.rows; ++r) {
      for (Index c = 0; c < p.value.width; ++c) values.push_back(static_cast<double>(p.value(r, c)));
    }
    return values;
  }
  FAIL("no parameter of that name");
  return {};
}

/// The time mix as its equations, with plain loops in double.
template <class S>
std::vector<double> equations(const Batch& batch, const std::vector<NamedParameter<S>>& p, Rows<const S> u) {
  const auto d = static_cast<std::size_t>(u.width);
  const auto m_k = values_of(p, "test.0.mix.0"), m_v = values_of(p, "test.0.mix.1"), m_r = values_of(p, "test.0.mix.2");
  const auto w_r = values_of(p, "test.1.left.1.weight"), w_k = values_of(p, "test.1.right.left.1.weight"),
             w_v = values_of(p, "test.1.right.right.1.weight"), w_o = values_of(p, "test.2.weight");
  const auto decay = values_of(p, "test.1.right.decay"), bonus = values_of(p, "test.1.right.bonus");
  std::vector<double> y;
  for (Index s = 0; s < batch.sequences; ++s) {
    std::vector<std::vector<double>> ks, vs;
    for (Index i = batch.begin(s); i < batch.end(s); ++i) {
      const auto mixed = [&](const std::vector<double>& m, const std::vector<double>& weight) {
        std::vector<double> out(d);
        for (std::size_t c = 0; c < d; ++c) {
          for (std::size_t a = 0; a < d; ++a) {
            const double now = static_cast<double>(u(i, static_cast<Index>(a)));
            const double before = i == batch.begin(s) ? 0 : static_cast<double>(u(i - 1, static_cast<Index>(a)));
            out[c] += (m[a] * now + (1 - m[a]) * before) * weight[a * d + c];
          }
        }
        return out;
      };
      const auto r = mixed(m_r, w_r), k = mixed(m_k, w_k), v = mixed(m_v, w_v);
      std::vector<double> gated(d);
      for (std::size_t c = 0; c < d; ++c) {
        double above = std::exp(bonus[c] + k[c]) * v[c], below = std::exp(bonus[c] + k[c]);
        for (std::size_t j = 0; j < ks.size(); ++j) {
          const double weight = std::exp(-static_cast<double>(ks.size() - 1 - j) * std::exp(decay[c]) + ks[j][c]);
          above += weight * vs[j][c];
          below += weight;
        }
        gated[c] = above / below / (1 + std::exp(-r[c]));
      }
      for (std::size_t c = 0; c < d; ++c) {
        y.push_back(0);
        for (std::size_t a = 0; a < d; ++a) y.back() += gated[a] * w_o[a * d + c];
      }
      ks.push_back(k);
      vs.push_back(v);
    }
  }
  return y;
}

template <class Backend, class S>
void agrees() {
  const Packed packed({20, 1, 7, 17});
  const Batch batch = packed.view();
  const Index width = 10;
  Bench<Rwkv, Backend, S> bench({width, 20}, rwkv_options(1));
  const Matrix<S> u = random_matrix<S>(batch.rows(), width, 1);
  const auto expected = equations<S>(batch, parameters_of<S>(bench.layer), u);
  auto y = bench.run(batch, u, u.view()).y;
  CHECK(relative_error(y, expected) <= Tolerance<S>::forward);
  for (S& x : y) x *= S(1) + 100 * static_cast<S>(Tolerance<S>::forward);
  CHECK_FALSE(relative_error(y, expected) <= Tolerance<S>::forward);
  CHECK_FALSE(relative_error(Matrix<S>(batch.rows(), width), expected) <= Tolerance<S>::forward);
}

TEST_CASE("RWKV-4's time mix equals its equations") {
  agrees<Reference, double>();
  agrees<Cpu, double>();
  agrees<Cpu, float>();
}

TEST_CASE("the time mix keeps every mixer's promises") {
  conforms<Rwkv, Cpu, double>({.width = 4}, rwkv_options(0));
  conforms<Rwkv, Cpu, float>({.width = 4}, rwkv_options(1));
}

TEST_CASE("costs are the published counts, and those of the plain loops") {
  static_assert(is_causal<Rwkv> && !is_input_dependent<Rwkv> && state_is_bounded<Rwkv> && degree<Rwkv>.is_infinite());
  const Index d = 4;
  for (const Index n : {1, 5, 9}) {
    const Cost c = cost<Rwkv>(d, n);
    CHECK(c == Cost{.parameters = 4 * d * d + 5 * d,
                    .multiplications = 4 * n * d * d + 13 * n * d,
                    .additions = 4 * n * d * (d - 1) + 9 * n * d,
                    .functions = 6 * n * d,
                    .state_scalars = 4 * d});
    Layer<Rwkv, Reference, Counting> layer({d, n}, {}, Path("count"));
    ParameterStore<Counting> store;
    store.bind(layer);
    Context<Reference> context;
    Matrix<Counting> u(n, d), y(n, d);
    Layer<Rwkv, Reference, Counting>::Saved saved;
    tally = {};
    layer.forward(context, {.sequences = 1, .length = n}, u, y, saved);
    CHECK(tally.multiplications == c.multiplications);
    // Beyond the counts: 1 - m for three mixtures and w = exp(decay), once each, whatever the length.
    CHECK(tally.additions == c.additions + 3 * d);
    CHECK(tally.functions == c.functions + d);
  }
}

TEST_CASE("initial values follow the published formulas") {
  const Index d = 8;
  for (const Index layer : {0, 1, 11}) {
    Model<Rwkv, Cpu, double> model({d, 16}, Seed{1}, rwkv_options(layer), Path("test"));
    const auto all = parameters_of<double>(model);
    const double rho = static_cast<double>(layer) / 11, s = 1 - static_cast<double>(layer) / 12;
    const auto decay = values_of(all, "test.1.right.decay"), bonus = values_of(all, "test.1.right.bonus");
    const auto m_k = values_of(all, "test.0.mix.0"), m_v = values_of(all, "test.0.mix.1"), m_r = values_of(all, "test.0.mix.2");
    for (std::size_t c = 0; c < static_cast<std::size_t>(d); ++c) {
      const double x = static_cast<double>(c) / static_cast<double>(d);
      CHECK(decay[c] == doctest::Approx(-5 + 8 * std::pow(static_cast<double>(c) / 7, 0.7 + 1.3 * rho)));
      CHECK(bonus[c] == doctest::Approx(std::log(0.3) + 0.5 * (static_cast<double>((c + 1) % 3) - 1)));
      CHECK(m_k[c] == doctest::Approx(std::pow(x, s)));
      CHECK(m_v[c] == doctest::Approx(std::pow(x, s) + 0.3 * rho));
      CHECK(m_r[c] == doctest::Approx(std::pow(x, s / 2)));
    }
    for (const char* name :
         {"test.1.left.1.weight", "test.1.right.left.1.weight", "test.1.right.right.1.weight", "test.2.weight"}) {
      double largest = 0, sum = 0;
      for (const double x : values_of(all, name)) {
        largest = std::max(largest, std::abs(x));
        sum += x;
      }
      CHECK(largest <= 1 / std::sqrt(8.0));
      CHECK(largest >= 0.8 / std::sqrt(8.0));
      CHECK(std::abs(sum / 64) <= 0.1);
    }
  }
  CHECK_THROWS_AS(rwkv_options(12), Error);
  CHECK_THROWS_AS(rwkv_options(-1), Error);
  CHECK_THROWS_AS(rwkv_options(0, 0), Error);
  Model<Rwkv, Cpu, float> narrow({1, 4}, Seed{1}, rwkv_options(0, 1));
  auto finite = [](const Path&, auto& p) { CHECK(std::isfinite(p.value(0, 0))); };
  narrow.visit(finite);
}

}  // namespace

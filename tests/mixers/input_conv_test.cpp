// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/mixers/input_conv.hpp"

#include "coyote/operations/cpu/input_conv.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"
#include "support/counting.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

/// The rule of TokenLags, read from its definition: no index, no list.
std::vector<Index> token_lags(std::span<const Token> tokens, Index i, Index count) {
  std::vector<Index> lags;
  for (Index p = i; p >= 0 && static_cast<Index>(lags.size()) < count; --p) {
    for (Index q = p - 1; q >= 0; --q) {
      if (tokens[static_cast<std::size_t>(q)] != tokens[static_cast<std::size_t>(p)]) continue;
      if (std::find(lags.begin(), lags.end(), p - 1 - q) == lags.end()) lags.push_back(p - 1 - q);
      break;
    }
  }
  return lags;
}

/// y by its equation in double, for lags given by a function of the row inside the sequence.
template <class S, class LagsOf>
void equation(const std::vector<NamedParameter<S>>& p, Rows<const S> u, bool softmax, LagsOf&& lags_of, std::vector<double>& y) {
  const Index n = u.rows, d = u.width;
  Matrix<double> qkv(n, 3 * d);
  for (Index i = 0; i < n; ++i) {
    for (Index part = 0; part < 3; ++part) {
      for (Index c = 0; c < d; ++c) {
        double sum = static_cast<double>(p[static_cast<std::size_t>(3 + part)].value(0, c));
        for (Index a = 0; a < d; ++a) {
          sum += static_cast<double>(u(i, a)) * static_cast<double>(p[static_cast<std::size_t>(part)].value(a, c));
        }
        qkv(i, part * d + c) = sum;
      }
    }
  }
  for (Index i = 0; i < n; ++i) {
    const std::vector<Index> lags = lags_of(qkv, i);
    std::vector<double> weights;
    double total = 0;
    for (const Index t : lags) {
      double score = 0;
      for (Index c = 0; c < d; ++c) score += qkv(i, c) * qkv(i - t, d + c);
      weights.push_back(softmax ? std::exp(score) : score);
      total += weights.back();
    }
    for (Index c = 0; c < d; ++c) {
      double sum = 0;
      for (std::size_t m = 0; m < lags.size(); ++m) sum += weights[m] / (softmax ? total : 1) * qkv(i - lags[m], 2 * d + c);
      y.push_back(sum);
    }
  }
}

template <class Lags, class Gating, class Backend, class S>
void agrees(Index width) {
  using M = InputConv<Lags, Gating>;
  const Packed packed({23, 1, 2, 9, 16}, 6);
  const Batch batch = packed.view();
  Bench<M, Backend, S> bench({width, 23}, {});
  const Matrix<S> u = random_matrix<S>(batch.rows(), width, 1);
  const auto p = parameters_of<S>(bench.layer);
  REQUIRE(p.size() == 6);
  CHECK(p[0].name == "test.query.weight");
  CHECK(p[5].name == "test.value.bias");
  std::vector<double> expected;
  for (Index s = 0; s < batch.sequences; ++s) {
    const auto lags_of = [&](const Matrix<double>& qkv, Index i) {
      if constexpr (Lags::is_causal) {
        return token_lags(batch.tokens_of(s), i, Lags::count);
      } else {
        std::vector<std::pair<double, Index>> r;
        for (Index t = 1; t < batch.size(s); ++t) {
          double sum = 0;
          for (Index j = t; j < batch.size(s); ++j) {
            for (Index c = 0; c < width; ++c) sum += qkv(j, c) * qkv(j - t, width + c);
          }
          r.push_back({-sum, t});
        }
        std::sort(r.begin(), r.end());
        std::vector<Index> lags;
        for (std::size_t m = 0; m < r.size() && m < static_cast<std::size_t>(Lags::count); ++m) {
          if (r[m].second <= i) lags.push_back(r[m].second);
        }
        return lags;
      }
    };
    equation<S>(p, u.view().slice(batch.begin(s), batch.size(s)), Gating::is_softmax, lags_of, expected);
  }
  auto y = bench.run(batch, u, u.view()).y;
  CHECK(relative_error(y, expected) <= Tolerance<S>::forward);
  for (S& x : y) x *= S(1) + 100 * static_cast<S>(Tolerance<S>::forward);
  CHECK_FALSE(relative_error(y, expected) <= Tolerance<S>::forward);
  CHECK_FALSE(relative_error(Matrix<S>(batch.rows(), width), expected) <= Tolerance<S>::forward);
}

TEST_CASE("outputs equal the equation") {
  agrees<TokenLags<3>, SoftmaxGate, Reference, double>(5);
  agrees<TokenLags<3>, SoftmaxGate, Cpu, float>(5);
  agrees<TokenLags<1>, IdentityGate, Cpu, double>(21);
  agrees<Autocorrelation<3>, SoftmaxGate, Cpu, double>(5);
  agrees<Autocorrelation<2>, IdentityGate, Reference, double>(5);
}

TEST_CASE("token lags follow their definition on every string of eight letters from three") {
  for (Index code = 0; code < 6561; ++code) {
    std::vector<Token> tokens;
    for (Index rest = code, i = 0; i < 8; ++i, rest /= 3) tokens.push_back(static_cast<Token>(rest % 3));
    std::vector<std::int32_t> index(static_cast<std::size_t>(TokenLags<2>::index_size(8)), -1);
    for (Index i = 0; i < 8; ++i) {
      std::int32_t lags[2] = {-5, -5};
      TokenLags<2>::append(index, std::span<const Token>(tokens).first(static_cast<std::size_t>(i + 1)), i, lags);
      const auto expected = token_lags(tokens, i, 2);
      for (std::size_t m = 0; m < 2; ++m) REQUIRE(lags[m] == (m < expected.size() ? expected[m] : -1));
    }
  }
}

/// Multi-query recall, exactly: channels [token one-hot, token before one-hot], q and v read the one, k the other.
constexpr bool recalls() {
  const Index vocabulary = 8, n = 10, width = 2 * vocabulary;
  const Token tokens[n] = {1, 5, 2, 6, 3, 7, 2, 1, 0, 3};
  using M = InputConv<TokenLags<3>, IdentityGate, NoBias>;
  Layer<M, Reference, long> layer({width, n}, {}, Path("recall"));
  ParameterStore<long> store;
  store.bind(layer);
  auto set = [&](const Path& path, Parameter<long>& p) {
    const bool key = path.view() == "recall.key.weight";
    for (Index c = 0; c < vocabulary; ++c) p.value(key ? vocabulary + c : c, c) = 1;
  };
  layer.visit(set);
  Matrix<long> u(n, width), y(n, width);
  for (Index i = 0; i < n; ++i) {
    u(i, tokens[i]) = 1;
    if (i > 0) u(i, vocabulary + tokens[i - 1]) = 1;
  }
  Context<Reference> context;
  Layer<M, Reference, long>::Saved saved;
  layer.forward(context, {.sequences = 1, .length = n, .tokens = tokens}, u, y, saved);
  const Token answers[n] = {-1, -1, -1, -1, -1, -1, 6, 5, -1, 7};
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < width; ++c) {
      if (y(i, c) != (c == answers[i] ? 1 : 0)) return false;
    }
  }
  return true;
}
static_assert(recalls());

TEST_CASE("of equal autocorrelations the smaller lag; one row has none") {
  const Matrix<long> q = [] {
    Matrix<long> m(5, 1);
    for (long& x : m) x = 1;
    return m;
  }();
  Matrix<long> k(5, 1);
  k(0, 0) = 1;  // R[t] = 1 for every lag
  std::vector<long> scratch(static_cast<std::size_t>(Autocorrelation<2>::scratch_size(5, 1)));
  Matrix<std::int32_t> lags(5, 2);
  Autocorrelation<2>::find<long>({}, q, k, scratch, lags);
  const std::int32_t expected[5][2] = {{-1, -1}, {1, -1}, {1, 2}, {1, 2}, {1, 2}};
  for (Index i = 0; i < 5; ++i) {
    for (Index m = 0; m < 2; ++m) CHECK(lags(i, m) == expected[i][m]);
  }
  Autocorrelation<2>::find<long>({}, q.view().slice(0, 1), k.view().slice(0, 1), scratch, lags.view().slice(2, 1));
  CHECK(lags(2, 0) == -1);
}

TEST_CASE("input-dependent convolutions keep every mixer's promises") {
  conforms<InputConv<TokenLags<3>>, Reference, double>({.width = 3, .lengths = {9, 1, 2}, .vocabulary = 3});
  conforms<InputConv<TokenLags<3>>, Cpu, double>({.width = 3, .lengths = {9, 1, 2}, .vocabulary = 3});
  conforms<InputConv<TokenLags<2>, IdentityGate, NoBias>, Cpu, float>({.width = 5, .lengths = {12, 1, 7}, .vocabulary = 3});
  conforms<InputConv<Autocorrelation<3>>, Cpu, double>({.width = 3, .lengths = {9, 1, 2}});
}

TEST_CASE("gradients with many columns, one sequence, several threads") {
  using M = InputConv<TokenLags<4>>;
  const Packed packed({60}, 7);
  Bench<M, Reference, double> slow({150, 60}, {});
  Bench<M, Cpu, double> fast({150, 60}, {});
  const auto u = random_matrix<double>(60, 150, 1, 0.2), weights = random_matrix<double>(60, 150, 2);
  const auto a = slow.run(packed.view(), u, weights.view()), b = fast.run(packed.view(), u, weights.view(), 3);
  CHECK(relative_error(b.du, a.du) <= 1e-11);
  CHECK(relative_error(b.gradients, a.gradients) <= 1e-11);
  CHECK_FALSE(relative_error(Matrix<double>(60, 150), a.du) <= 1e-11);
}

template <class M>
void counts(const Packed& packed, Index pairs) {
  const Index n = packed.view().length, d = 3;
  const Cost c = cost<M>(d, n, pairs);
  Layer<M, Reference, Counting> layer({d, n}, {}, Path("count"));
  ParameterStore<Counting> store;
  store.bind(layer);
  Context<Reference> context;
  Matrix<Counting> u(n, d), y(n, d);
  typename Layer<M, Reference, Counting>::Saved saved;
  tally = {};
  layer.forward(context, packed.view(), u, y, saved);
  CHECK(tally.multiplications == c.multiplications);
  CHECK(tally.additions == c.additions);
  CHECK(tally.functions == c.functions);
  CHECK(count_parameters(layer) == c.parameters);
}

TEST_CASE("facts, and costs as counted") {
  using Softmax = InputConv<TokenLags<2>>;
  using Identity = InputConv<TokenLags<2>, IdentityGate>;
  using Whole = InputConv<Autocorrelation<2>, IdentityGate, NoBias>;
  static_assert(is_causal<Softmax> && is_input_dependent<Softmax> && !state_is_bounded<Softmax>);
  static_assert(!is_causal<Whole> && degree<Identity> == 3 && degree<Softmax>.is_infinite() && degree<Whole>.is_infinite());
  CHECK(cost<Softmax>(4, 6).worst_case);
  CHECK_FALSE(cost<Softmax>(4, 6, 5).worst_case);
  // With one token, every row but the first has the one lag 0; the worst case is counted by hand.
  const Packed same({6}, 1);
  counts<Softmax>(same, 5);
  counts<Identity>(same, 5);
  counts<InputConv<TokenLags<2>, SoftmaxGate, NoBias>>(same, 5);
  // All scores are 0 here, so the lags are 1 and 2: the worst case itself.
  counts<Whole>(same, -1);
  counts<InputConv<Autocorrelation<3>>>(same, -1);
  CHECK(TokenLags<2>::max_pairs(1) == 0);
  CHECK(TokenLags<2>::max_pairs(4) == 1 + 2 + 2);
  CHECK(Autocorrelation<2>::max_pairs(4) == 1 + 2 + 2);
}

TEST_CASE("what is missing or too much is refused") {
  using M = InputConv<TokenLags<2>>;
  Bench<M, Cpu, float> bench({4, 6}, {});
  Context<Cpu> context(1);
  Matrix<float> u(6, 4), y(6, 4);
  Layer<M, Cpu, float>::Saved saved;
  CHECK_THROWS_AS(bench.layer.forward(context, {.sequences = 1, .length = 6}, u, y, saved), Error);
  auto state = bench.layer.make_state({.sequences = 1, .capacity = 2});
  const std::vector<Token> token{1};
  const auto row = u.view().slice(0, 1);
  CHECK_THROWS_AS(bench.layer.step(context, state, {.position = 0}, row, y.view().slice(0, 1)), Error);
  CHECK_THROWS_AS(bench.layer.step(context, state, {2, token}, row, y.view().slice(0, 1)), Error);
}

TEST_CASE("large scores overflow nothing") {
  Bench<InputConv<TokenLags<3>>, Cpu, float> bench({4, 30}, {});
  const Packed packed({30}, 3);
  const auto u = random_matrix<float>(30, 4, 1, 1e4);
  const auto r = bench.run(packed.view(), u, u.view());
  for (const float x : r.y) CHECK(std::isfinite(x));
  for (const float x : r.du) CHECK(std::isfinite(x));
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/operations/cpu/cross_entropy.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

using namespace coyote;

template <class S>
struct Problem {
  Problem(Index rows, Index vocabulary, Index depth, double size = 1)
      : hidden(rows, depth + 2), embedding(vocabulary, depth + 1), depth_(depth) {
    const Stream stream(Seed{3}, Purpose::test, 1);
    std::uint64_t n = 0;
    for (S& x : hidden) x = static_cast<S>(size * stream.normal(n++));
    for (S& x : embedding) x = static_cast<S>(stream.normal(n++));
    for (Index i = 0; i < rows; ++i)
      labels.push_back(static_cast<Token>(stream.below(n++, static_cast<std::uint64_t>(vocabulary))));
  }
  Rows<const S> h() const { return hidden.view().columns(0, depth_); }
  Rows<const S> e() const { return embedding.view().columns(0, depth_); }
  Matrix<S> hidden, embedding;
  std::vector<Token> labels;

 private:
  Index depth_;
};

struct Expected {
  double loss = 0;
  std::vector<double> losses, dhidden, dembedding;
  std::vector<Token> predicted;
};

template <class S>
Expected plain(const Problem<S>& p) {
  const Rows<const S> h = p.h(), e = p.e();
  const Index n = h.rows, vocabulary = e.rows, depth = h.width;
  Expected x;
  x.dhidden.resize(static_cast<std::size_t>(n * depth));
  x.dembedding.resize(static_cast<std::size_t>(vocabulary * depth));
  for (Index i = 0; i < n; ++i) {
    std::vector<double> logits;
    double most = -std::numeric_limits<double>::infinity(), total = 0;
    Token best = 0;
    for (Index v = 0; v < vocabulary; ++v) {
      double sum = 0;
      for (Index c = 0; c < depth; ++c) sum += static_cast<double>(h(i, c)) * static_cast<double>(e(v, c));
      if (sum > most) {
        most = sum;
        best = static_cast<Token>(v);
      }
      logits.push_back(sum);
    }
    for (const double l : logits) total += std::exp(l - most);
    const auto label = static_cast<std::size_t>(p.labels[static_cast<std::size_t>(i)]);
    x.losses.push_back(std::log(total) + most - logits[label]);
    x.loss += x.losses.back() / static_cast<double>(n);
    x.predicted.push_back(best);
    for (Index v = 0; v < vocabulary; ++v) {
      const auto at = static_cast<std::size_t>(v);
      const double slope = (std::exp(logits[at] - most) / total - (at == label ? 1 : 0)) / static_cast<double>(n);
      for (Index c = 0; c < depth; ++c) {
        x.dhidden[static_cast<std::size_t>(i * depth + c)] += slope * static_cast<double>(e(v, c));
        x.dembedding[static_cast<std::size_t>(v * depth + c)] += slope * static_cast<double>(h(i, c));
      }
    }
  }
  return x;
}

template <class S>
double error(const std::vector<double>& reference, Rows<const S> got, double before = 0) {
  double worst = 0, size = 1e-300;
  for (Index i = 0; i < got.rows; ++i) {
    for (Index c = 0; c < got.width; ++c) {
      const double r = reference[static_cast<std::size_t>(i * got.width + c)];
      const double e = std::abs(r + before - static_cast<double>(got(i, c)));
      if (worst == worst && !(e <= worst)) worst = e;
      size = std::max(size, std::abs(r));
    }
  }
  return worst / size;
}

template <class S>
constexpr double tolerance = sizeof(S) == 4 ? 2e-5 : 4e-14;

template <class S>
void check(Index rows, Index vocabulary, Index depth, double size = 1) {
  CAPTURE(rows);
  CAPTURE(vocabulary);
  CAPTURE(depth);
  const Problem<S> p(rows, vocabulary, depth, size);
  const Expected expected = plain(p);
  Context<Cpu> ctx(2);
  ctx.poison(true);
  Matrix<S> dhidden(rows, depth), dembedding(vocabulary, depth);
  std::fill(dhidden.begin(), dhidden.end(), S(9));
  std::fill(dembedding.begin(), dembedding.end(), S(0.5));
  std::vector<Token> predicted(static_cast<std::size_t>(rows), -1);
  std::vector<double> losses(static_cast<std::size_t>(rows));
  const double loss = cross_entropy<S>(ctx, p.h(), p.e(), p.labels, predicted, losses, dhidden, dembedding);
  const double allowed = tolerance<S> * std::max(1.0, size);
  CHECK(std::abs(loss - expected.loss) <= allowed * std::max(1.0, expected.loss));
  CHECK(predicted == expected.predicted);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    CHECK(std::abs(losses[i] - expected.losses[i]) <= allowed * std::max(1.0, expected.losses[i]));
  }
  if (vocabulary > 1) {
    const double sum_allowed = sizeof(S) == 4 ? 1e-3 : 1e-12;  // 0.5 + a small gradient loses digits
    CHECK(error<S>(expected.dhidden, dhidden) <= allowed);
    CHECK(error<S>(expected.dembedding, dembedding, 0.5) <= sum_allowed);
    const Matrix<S> zero(rows, depth), still(vocabulary, depth);
    CHECK_FALSE(error<S>(expected.dhidden, zero) <= allowed);
    CHECK_FALSE(error<S>(expected.dembedding, still) <= sum_allowed);
    double largest = 0;
    for (const double g : expected.dhidden) largest = std::max(largest, std::abs(g));
    dhidden(rows - 1, 0) += static_cast<S>(0.01 * largest);
    CHECK_FALSE(error<S>(expected.dhidden, dhidden) <= allowed);
  }
  // Without gradients: the same loss, bit for bit.
  CHECK(cross_entropy<S>(ctx, p.h(), p.e(), p.labels, {}, {}, Rows<S>{}, Rows<S>{}) == loss);
}

TEST_CASE_TEMPLATE("cross entropy and its gradients equal plain loops", S, float, double) {
  check<S>(1, 1, 3);
  check<S>(1, 7, 1);
  check<S>(33, 100, 17);
  check<S>(300, 97, 8);  // more than one chunk
  check<S>(64, 500, 64);
  check<S>(5, 30, 4, 50);  // large scores
}

TEST_CASE_TEMPLATE("equal scores predict the smallest entry", S, float, double) {
  Problem<S> p(3, 50, 4);
  for (Index c = 0; c < 5; ++c) {
    for (const Index v : {7, 20, 49}) p.embedding(v, c) = S(3) * p.hidden(1, c);
  }
  std::vector<Token> predicted(3);
  Context<Cpu> ctx(1);
  cross_entropy<S>(ctx, p.h(), p.e(), p.labels, predicted, {}, Rows<S>{}, Rows<S>{});
  CHECK(predicted[1] == 7);
}

TEST_CASE("a label outside the vocabulary is named before any work") {
  Problem<float> p(5, 10, 4);
  p.labels[3] = 10;
  Context<Cpu> ctx(1);
  Matrix<float> dhidden(5, 4), dembedding(10, 4);
  const auto run = [&] { return cross_entropy<float>(ctx, p.h(), p.e(), p.labels, {}, {}, dhidden, dembedding); };
  try {
    run();
    CHECK(false);
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("label 10 in labelled row 3") != std::string::npos);
  }
  for (const float x : dembedding) CHECK(x == 0);
  p.labels[3] = -1;
  CHECK_THROWS_AS(run(), Error);
  p.labels.pop_back();
  CHECK_THROWS_AS(run(), Error);
}

TEST_CASE_TEMPLATE("NaN scores give a NaN loss in their row only", S, float, double) {
  Problem<S> p(40, 60, 4);
  p.hidden(35, 1) = std::numeric_limits<S>::quiet_NaN();
  std::vector<double> losses(40);
  Context<Cpu> ctx(1);
  CHECK(std::isnan(cross_entropy<S>(ctx, p.h(), p.e(), p.labels, {}, losses, Rows<S>{}, Rows<S>{})));
  for (std::size_t i = 0; i < 40; ++i) CHECK(std::isnan(losses[i]) == (i == 35));
}

TEST_CASE("cross entropy does not depend on the number of threads") {
  const Problem<float> p(600, 333, 20);
  std::vector<std::vector<float>> results;
  for (const Index threads : {1, 3}) {
    Context<Cpu> ctx(threads);
    Matrix<float> dhidden(600, 20), dembedding(333, 20);
    const double loss = cross_entropy<float>(ctx, p.h(), p.e(), p.labels, {}, {}, dhidden, dembedding);
    std::vector<float>& all = results.emplace_back();
    all.push_back(static_cast<float>(loss));
    for (const Matrix<float>* m : {&dhidden, &dembedding}) all.insert(all.end(), m->begin(), m->end());
  }
  CHECK(results[0] == results[1]);
  results[1][1] += 1e-4f;
  CHECK(results[0] != results[1]);
}

TEST_CASE_TEMPLATE("logits equal plain loops", S, float, double) {
  for (const Index rows : {1, 7, 200}) {
    const Problem<S> p(rows, 700, 33);
    Matrix<S> logits(rows, 700);
    Context<Cpu> ctx(2);
    head_logits<S>(ctx, p.h(), p.e(), logits);
    std::vector<double> expected;
    for (Index i = 0; i < rows; ++i) {
      for (Index v = 0; v < 700; ++v) {
        double sum = 0;
        for (Index c = 0; c < 33; ++c) sum += static_cast<double>(p.h()(i, c)) * static_cast<double>(p.e()(v, c));
        expected.push_back(sum);
      }
    }
    CHECK(error<S>(expected, logits) <= tolerance<S>);
    logits(rows - 1, 699) += S(0.5);
    CHECK_FALSE(error<S>(expected, logits) <= tolerance<S>);
  }
}

}  // namespace

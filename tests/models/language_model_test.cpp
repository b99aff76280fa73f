// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/models/language_model.hpp"

#include <limits>

#include "coyote/architectures/coyote.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "coyote/operations/reference/operations.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

using Mix = Block<Coyote<ShortConv<2>>>;
template <class Backend, class S = double>
using Tiny = LanguageModel<Mix, Backend, S, Learned>;

constexpr Index vocabulary = 7, width = 4, longest = 6;

/// Two packed sequences with three labels.
struct Data {
  std::vector<Index> offsets = {0, 6, 9};
  std::vector<Token> tokens = {1, 4, 1, 6, 0, 3, 5, 5, 2};
  std::vector<Index> rows = {2, 5, 8};
  std::vector<Token> labels = {6, 0, 5};
  Batch view() const {
    return {.sequences = 2, .length = 6, .offsets = offsets, .tokens = tokens, .label_rows = rows, .labels = labels};
  }
};

template <class Model>
Model make() {
  Model model({.vocabulary = vocabulary, .width = width, .length = longest}, Seed{2});
  for (auto& x : model.parameters().values()) x *= 10;  // logits that differ
  return model;
}

/// The parameter of that name.
template <class Model>
Rows<double> parameter(Model& model, std::string_view name) {
  for (auto& p : parameters_of<double>(model)) {
    if (p.name == name) return p.value;
  }
  FAIL("no such parameter: ", std::string(name));
  return {};
}

/// Logits of every row, by plain loops over the parameters by name.
template <class Model>
Matrix<double> logits(Model& model, const Batch& batch) {
  const auto e = parameter(model, "embedding"), p = parameter(model, "positions");
  const auto scale = parameter(model, "layers.norm.scale"), shift = parameter(model, "layers.norm.shift");
  const auto w = parameter(model, "layers.mixer.left.weight"), b = parameter(model, "layers.mixer.left.bias");
  const auto taps = parameter(model, "layers.mixer.right.taps"), c = parameter(model, "layers.mixer.right.bias");
  const auto last_scale = parameter(model, "norm.scale"), last_shift = parameter(model, "norm.shift");
  const auto normed = [](const Matrix<double>& x, Rows<double> s, Rows<double> t) {
    Matrix<double> y(x.rows(), width);
    for (Index i = 0; i < x.rows(); ++i) {
      double mean = 0, variance = 0;
      for (Index k = 0; k < width; ++k) mean += x(i, k) / width;
      for (Index k = 0; k < width; ++k) variance += (x(i, k) - mean) * (x(i, k) - mean) / width;
      for (Index k = 0; k < width; ++k) y(i, k) = (x(i, k) - mean) / std::sqrt(variance + 1e-5) * s(0, k) + t(0, k);
    }
    return y;
  };
  Matrix<double> result(batch.rows(), vocabulary);
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index n = batch.size(s), first = batch.begin(s);
    Matrix<double> x(n, width);
    for (Index i = 0; i < n; ++i) {
      for (Index k = 0; k < width; ++k) x(i, k) = e(batch.tokens[static_cast<std::size_t>(first + i)], k) + p(i, k);
    }
    const Matrix<double> u = normed(x, scale, shift);
    for (Index i = 0; i < n; ++i) {
      for (Index k = 0; k < width; ++k) {
        double left = b(0, k), right = c(0, k) + taps(0, k) * u(i, k);
        for (Index a = 0; a < width; ++a) left += u(i, a) * w(a, k);
        if (i > 0) right += taps(1, k) * u(i - 1, k);
        x(i, k) += left * right;
      }
    }
    const Matrix<double> hidden = normed(x, last_scale, last_shift);
    for (Index i = 0; i < n; ++i) {
      for (Index v = 0; v < vocabulary; ++v) {
        for (Index k = 0; k < width; ++k) result(first + i, v) += hidden(i, k) * e(v, k);
      }
    }
  }
  return result;
}

template <class Backend>
void equals_plain_loops() {
  auto model = make<Tiny<Backend>>();
  const Data data;
  const Batch batch = data.view();
  const Matrix<double> expected = logits(model, batch);
  Context<Backend> context = ContextFor<Backend>::make(2);
  Matrix<double> y(batch.rows(), vocabulary);
  model.logits(context, batch, y);
  CHECK(relative_error(y, expected) <= 1e-12);
  // Mean negative log likelihood, predictions and rows' own losses.
  double mean = 0;
  std::vector<Token> predicted(3), best(3);
  std::vector<double> losses(3), own(3);
  for (std::size_t n = 0; n < 3; ++n) {
    const Index row = data.rows[n];
    double sum = 0;
    for (Index v = 0; v < vocabulary; ++v) {
      sum += std::exp(expected(row, v));
      if (expected(row, v) > expected(row, best[n])) best[n] = static_cast<Token>(v);
    }
    own[n] = std::log(sum) - expected(row, data.labels[n]);
    mean += own[n] / 3;
  }
  const double loss = model.loss(context, batch, predicted, losses);
  CHECK(std::abs(loss - mean) <= 1e-12 * mean);
  CHECK_FALSE(std::abs(loss * (1 + 1e-10) - mean) <= 1e-12 * mean);
  CHECK(relative_error(losses, own) <= 1e-12);
  CHECK(predicted == best);

  // Gradients of every parameter by finite differences.
  model.enable_gradients();
  typename Tiny<Backend>::Saved saved;
  CHECK(std::abs(model.loss_and_gradients(context, batch, saved) - mean) <= 1e-12 * mean);
  auto& values = model.parameters().values();
  std::vector<double> gradients, numeric;
  for (const Segment& segment : model.parameters().segments()) {
    for (Index i = segment.begin; i < segment.begin + segment.size; ++i) {
      const double value = values[i], h = 1e-5;
      values[i] = value + h;
      const double above = model.loss(context, batch);
      values[i] = value - h;
      numeric.push_back((above - model.loss(context, batch)) / (2 * h));
      values[i] = value;
      gradients.push_back(model.parameters().gradients()[i]);
    }
  }
  CHECK(relative_error(gradients, numeric) <= 1e-6);
  CHECK_FALSE(relative_error(std::vector<double>(numeric.size()), numeric) <= 1e-6);
  // They are added to.
  model.loss_and_gradients(context, batch, saved);
  for (std::size_t i = 0, at = 0; i < static_cast<std::size_t>(model.parameters().segments().size()); ++i) {
    const Segment& segment = model.parameters().segments()[static_cast<Index>(i)];
    for (Index j = segment.begin; j < segment.begin + segment.size; ++j, ++at) {
      REQUIRE(std::abs(model.parameters().gradients()[j] - 2 * gradients[at]) <= 1e-12);
    }
  }

  // Decoding gives the logits of the whole sequence, row by row or in chunks.
  auto state = model.make_state({.sequences = 1, .capacity = longest}), chunked = state;
  CHECK(state.size() == StateSize{.scalars = width});
  Matrix<double> row(1, vocabulary);
  for (Index i = 0; i < 6; ++i) {
    model.step(context, state, std::span(data.tokens).subspan(static_cast<std::size_t>(i), 1), row);
    for (Index v = 0; v < vocabulary; ++v) CHECK(std::abs(row(0, v) - expected(i, v)) <= 1e-12);
  }
  model.read(context, chunked, std::span(data.tokens).first(4));
  model.read(context, chunked, std::span(data.tokens).subspan(4, 2), row);
  for (Index v = 0; v < vocabulary; ++v) CHECK(std::abs(row(0, v) - expected(5, v)) <= 1e-12);
}

TEST_CASE("a language model equals its equation, its gradients finite differences, its steps the whole") {
  equals_plain_loops<Reference>();
  equals_plain_loops<Cpu>();
}

TEST_CASE("two sequences side by side decode like each alone, with attention and its token index") {
  using M = LanguageModel<Chain<Mix, Block<Attention<Heads<2>, RepeatedBigrams<2>>>>, Cpu, float>;
  M model({.vocabulary = 5, .width = 8, .length = 20}, Seed{1});
  for (auto& x : model.parameters().values()) x *= 10;
  const Packed tokens({20, 20});
  Context<Cpu> context(1);
  const Batch batch{.sequences = 2, .length = 20, .tokens = tokens.tokens};
  Matrix<float> all(40, 5), row(2, 5);
  model.logits(context, batch, all);
  auto state = model.make_state({.sequences = 2, .capacity = 20});
  for (std::size_t i = 0; i < 20; ++i) {
    const Token both[] = {tokens.tokens[i], tokens.tokens[20 + i]};
    model.step(context, state, both, row);
    for (Index s = 0; s < 2; ++s) {
      for (Index v = 0; v < 5; ++v) REQUIRE(std::abs(row(s, v) - all(s * 20 + static_cast<Index>(i), v)) <= 1e-4);
    }
  }
  const Token both[] = {1, 1};
  CHECK_THROWS_WITH_AS(model.step(context, state, both, row),
                       "LanguageModel::step: required at most the 20 tokens that the state was made for, came one more", Error);
}

TEST_CASE("a moved model keeps its parameters") {
  auto model = make<Tiny<Cpu>>();
  Context<Cpu> context(1);
  const Data data;
  const double before = model.loss(context, data.view());
  Tiny<Cpu> moved(std::move(model));
  CHECK(moved.loss(context, data.view()) == before);
}

TEST_CASE("NaN in a weight makes the loss NaN") {
  for (const char* name : {"embedding", "layers.mixer.left.weight", "norm.scale"}) {
    auto model = make<Tiny<Cpu>>();
    parameter(model, name)(0, 1) = std::numeric_limits<double>::quiet_NaN();
    Context<Cpu> context(1);
    CHECK(std::isnan(model.loss(context, Data().view())));
  }
}

TEST_CASE("wrong sizes and tokens are refused by name, before anything happens") {
  auto model = make<Tiny<Cpu>>();
  Context<Cpu> context(1);
  const auto refuses = [&](auto change, const char* message) {
    Data data;
    Batch batch = data.view();
    change(data, batch);
    CHECK_THROWS_WITH_AS(model.loss(context, batch), message, Error);
  };
  refuses([](Data& d, Batch&) { d.tokens[3] = 7; }, "LanguageModel, token 3: required a token in 0 .. 6, came 7");
  refuses([](Data& d, Batch&) { d.tokens[8] = -1; }, "LanguageModel, token 8: required a token in 0 .. 6, came -1");
  refuses([](Data& d, Batch&) { d.labels[1] = 9; }, "LanguageModel, label 1: required a token in 0 .. 6, came 9");
  refuses([](Data&, Batch& b) { b.tokens = {}; }, "LanguageModel: required a batch with tokens, came none");
  refuses([](Data&, Batch& b) { b.labels = {}, b.label_rows = {}; }, "LanguageModel: required a batch with labels, came none");
  const std::vector<Token> eight(8, 1);
  refuses(
      [&](Data&, Batch& b) {
        b = {.sequences = 1, .length = 8, .tokens = eight, .label_rows = b.label_rows.first(2), .labels = b.labels.first(2)};
      },
      "LanguageModel: required sequences of at most 6 rows, came 8");
  using Options = Tiny<Cpu>::Options;
  CHECK_THROWS_WITH_AS(Tiny<Cpu>(Options{.vocabulary = 0, .width = 4, .length = 4}, Seed{1}),
                       "LanguageModel: required a vocabulary of at least 1, came 0", Error);
  CHECK_THROWS_WITH_AS(Tiny<Cpu>(Options{.vocabulary = 3, .width = 0, .length = 4}, Seed{1}),
                       "LanguageModel: required a width of at least 1, came 0", Error);
  CHECK_THROWS_WITH_AS(Tiny<Cpu>(Options{.vocabulary = 3, .width = 4, .length = 0}, Seed{1}),
                       "LanguageModel: required a length of at least 1, came 0", Error);
  CHECK_THROWS_AS(Tiny<Cpu>(Options{.vocabulary = 3, .width = 4, .length = 4, .dropout = 1}, Seed{1}), Error);
  CHECK_THROWS_AS((LanguageModel<Widen<2>, Cpu, float>({.vocabulary = 3, .width = 4, .length = 4}, Seed{1})), Error);
  Tiny<Cpu>::Saved saved;
  CHECK_THROWS_WITH_AS(model.loss_and_gradients(context, Data().view(), saved),
                       "LanguageModel: required enable_gradients() before loss_and_gradients(), came a model without gradients",
                       Error);
  Matrix<double> small(3, 3);
  const Data data;
  CHECK_THROWS_AS(model.logits(context, data.view(), small), Error);
  CHECK_THROWS_AS(model.make_state({.sequences = 0, .capacity = 3}), Error);
  CHECK_THROWS_AS(model.make_state({.sequences = 1, .capacity = 0}), Error);
  CHECK_THROWS_WITH_AS(model.make_state({.sequences = 1, .capacity = 7}),
                       "LanguageModel::make_state: required sequences of at most 6 rows, came 7", Error);

  // A chunk that does not fit, or has a wrong token, leaves the state as it was.
  auto state = model.make_state({.sequences = 1, .capacity = 3});
  const Token wrong[] = {1, 99}, four[] = {1, 2, 3, 4};
  CHECK_THROWS_AS(model.read(context, state, wrong), Error);
  CHECK_THROWS_WITH_AS(model.read(context, state, four),
                       "LanguageModel::read: required at most 3 more tokens in this state, came 4", Error);
  CHECK(state.position == 0);
  Matrix<double> row(1, vocabulary);
  CHECK_THROWS_AS(model.step(context, state, std::span(four).first(2), row), Error);
  CHECK_THROWS_AS(model.step(context, state, std::span(four).first(1), small), Error);
  CHECK(state.position == 0);
}

}  // namespace

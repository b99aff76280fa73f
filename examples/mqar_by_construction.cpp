// SPDX-License-Identifier: Apache-2.0
// Attention that solves associative recall with weights written down rather than trained: exactly, over the integers, without
// softmax; and with softmax, as sharp as an error bound asks for.

#include <cmath>
#include <coyote/coyote.hpp>
#include <cstdio>

namespace cy = coyote;

namespace {

/// Sets every element of the parameter `name` to value(row, column).
template <class Model, class Value>
constexpr void set(Model& model, std::string_view name, Value&& value) {
  bool found = false;
  auto visitor = [&](const cy::Path& path, auto& p) {
    if (path.view() != name) return;
    found = true;
    for (cy::Index i = 0; i < p.rows; ++i) {
      for (cy::Index c = 0; c < p.columns; ++c) p.value(i, c) = value(i, c);
    }
  };
  model.visit(visitor);
  if (!found) throw cy::Error("set", "a parameter of the model", std::string(name));
}

// [exact]
/// y_i = sum over j < i of <q_i, k_j> v_j, with q, k and v linear in u: an outer product of key and value, a sum over all
/// earlier rows (a convolution with tap 0 at lag 0 and 1 at all others), and a product with the query.
template <cy::Index C>
using Lookup = cy::Contract<C, cy::Narrow<3, cy::NoBias>,                                                  // q
                            cy::Chain<cy::Outer<C, cy::Narrow<3, cy::NoBias>, cy::Narrow<3, cy::NoBias>>,  // k, v
                                      cy::LongConv<cy::FreeFilter, cy::Causal, cy::NoBias>>>;
static_assert(cy::degree<Lookup<4>> == 3 && cy::is_causal<Lookup<4>> && !cy::is_input_dependent<Lookup<4>>);

/// For u = (k, v, q), C channels each: every weight is 0 or 1.
template <cy::Index C>
constexpr auto lookup(cy::Index length) {
  auto model = cy::Model<Lookup<C>, cy::Reference, long>::blank({.width = 3 * C, .length = length});
  set(model, "right.0.left.weight", [](cy::Index i, cy::Index c) { return i == c ? 1L : 0L; });
  set(model, "right.0.right.weight", [](cy::Index i, cy::Index c) { return i == C + c ? 1L : 0L; });
  set(model, "left.weight", [](cy::Index i, cy::Index c) { return i == 2 * C + c ? 1L : 0L; });
  set(model, "right.1.filter.taps", [](cy::Index lag, cy::Index) { return lag == 0 ? 0L : 1L; });
  return model;
}
// [exact]

/// Two rows in constant evaluation: key 0 with value 1, then a query for key 0.
static_assert([] {
  auto model = lookup<2>(2);
  cy::Context<cy::Reference> context;
  cy::Matrix<long> u(2, 6), y(2, 2);
  u(0, 0) = u(0, 2 + 1) = u(1, 4 + 0) = 1;
  model.forward(context, {.sequences = 1, .length = 2}, u, y);
  return y(0, 0) == 0 && y(0, 1) == 0 && y(1, 0) == 0 && y(1, 1) == 1;
}());

/// Compares with the definition on `count` instances; instance(s, i, which) is the key (0), value (1) or query (2) of row i, or
/// C for none. Instances that show a key twice have no single answer and are left out. Returns how many were compared, or -1.
template <cy::Index C, class Instance>
cy::Index compare(cy::Index length, cy::Index count, Instance&& instance) {
  const auto model = lookup<C>(length);
  cy::Context<cy::Reference> context;
  std::vector<cy::Token> parts[3];
  cy::Index compared = 0;
  for (cy::Index s = 0; s < count; ++s) {
    cy::Matrix<long> u(length, 3 * C), y(length, C);
    bool unique = true, shown[C] = {};
    for (int which = 0; which < 3; ++which) {
      parts[which].clear();
      for (cy::Index i = 0; i < length; ++i) {
        const cy::Index token = instance(s, i, which);
        if (token < C) u(i, which * C + token) = 1;
        if (which == 0 && token < C) unique = unique && !std::exchange(shown[token], true);
        parts[which].push_back(token < C ? static_cast<cy::Token>(token) : -2 - which);  // no key equals a missing query
      }
    }
    if (!unique) continue;
    model.forward(context, {.sequences = 1, .length = length}, u, y);
    const std::vector<cy::Token> answers = cy::mqar_aligned(parts[0], parts[1], parts[2]);
    for (cy::Index i = 0; i < length; ++i) {
      for (cy::Index c = 0; c < C; ++c) {
        if (y(i, c) != (answers[static_cast<std::size_t>(i)] == c ? 1 : 0)) return -1;
      }
    }
    ++compared;
  }
  return compared;
}

// [softmax]
/// Two layers on raw tokens. Rows come in as (e(token), e(token)); the convolution delays the second copy by one row, so that a
/// row is (current, previous). Attention then asks with the current token for the row whose previous token is the same, and
/// reads that row's current token: what followed.
using Recall = cy::Chain<cy::ShortConv<2, cy::NoBias>, cy::Attention<>>;

/// The sharpness with which one match among `rows` keys gets at least 1 - miss of the softmax, when different unit embeddings
/// have products of at most mu (0 or more).
double sharpness(double rows, double miss, double mu) { return std::log((rows - 1) * (1 - miss) / miss) / (1 - mu); }

cy::Model<Recall, cy::Cpu, double> recall(cy::Index code, cy::Index length, double beta) {
  auto model = cy::Model<Recall, cy::Cpu, double>::blank({.width = 2 * code, .length = length});
  const double scale = beta * std::sqrt(static_cast<double>(2 * code));  // attention divides by the root of its head's width
  set(model, "0.taps", [=](cy::Index lag, cy::Index c) { return lag == (c < code ? 0 : 1) ? 1.0 : 0.0; });
  set(model, "1.query.weight", [=](cy::Index i, cy::Index c) { return i < code && i == c ? scale : 0.0; });
  set(model, "1.key.weight", [=](cy::Index i, cy::Index c) { return i == c + code ? 1.0 : 0.0; });
  set(model, "1.value.weight", [=](cy::Index i, cy::Index c) { return i < code && i == c ? 1.0 : 0.0; });
  set(model, "1.out.weight", [](cy::Index i, cy::Index c) { return i == c ? 1.0 : 0.0; });
  return model;
}
// [softmax]

struct Outcome {
  cy::Index queries = 0, right = 0;
  double farthest = 0, miss_error = 0;  ///< largest distance to the value's embedding; |measured miss - predicted miss|
};

/// Runs the construction on sequences of a task. With one-hot embeddings the output at the answer is the match's share itself.
Outcome run(const cy::Mqar& task, const cy::Matrix<double>& embedding, double beta, cy::Index sequences) {
  const cy::Index code = embedding.width(), length = task.longest();
  const auto model = recall(code, length, beta);
  cy::Context<cy::Cpu> context;
  cy::LabelledBatch data;
  cy::fill(task, cy::Split::test, 0, sequences, data);
  const cy::Batch batch = data.view();
  cy::Matrix<double> u(batch.rows(), 2 * code), y(batch.rows(), 2 * code);
  for (cy::Index i = 0; i < u.rows(); ++i) {
    for (cy::Index c = 0; c < 2 * code; ++c) u(i, c) = embedding(batch.tokens[static_cast<std::size_t>(i)], c % code);
  }
  model.forward(context, batch, u, y);
  Outcome outcome{.queries = static_cast<cy::Index>(batch.labels.size())};
  for (std::size_t n = 0; n < batch.labels.size(); ++n) {
    const cy::Index row = batch.label_rows[n], label = batch.labels[n];
    cy::Index best = 0;
    double highest = -1e300, distance = 0;
    for (cy::Index token = 0; token < embedding.rows(); ++token) {
      double product = 0;
      for (cy::Index c = 0; c < code; ++c) product += y(row, c) * embedding(token, c);
      if (product > highest) highest = product, best = token;
    }
    for (cy::Index c = 0; c < code; ++c) distance += std::pow(y(row, c) - embedding(label, c), 2);
    const double others = static_cast<double>(row % length);  // keys of the rows 0 .. row, without the match
    const double predicted = others / (others + std::exp(beta));
    if (code == embedding.rows()) outcome.miss_error = std::max(outcome.miss_error, std::abs(1 - y(row, label) - predicted));
    outcome.farthest = std::max(outcome.farthest, std::sqrt(distance));
    outcome.right += best == label ? 1 : 0;
  }
  return outcome;
}

}  // namespace

int main() {
  std::printf("1. Without softmax, over the integers, against the definition of multi-query associative recall:\n");
  // Every instance of 3 rows with keys and queries of {0, 1, none} and values of {0, 1}: 18 choices for a row.
  const cy::Index all = compare<2>(3, 18 * 18 * 18, [](cy::Index s, cy::Index i, int which) {
    const cy::Index row = (i == 0 ? s : i == 1 ? s / 18 : s / 324) % 18;
    return which == 0 ? row % 3 : which == 1 ? row / 3 % 2 : row / 6;
  });
  std::printf("   every instance of 3 rows, 2 keys, 2 values with unique keys: %td, %s\n", all, all > 0 ? "all exact" : "WRONG");
  // Random ones: row i shows key 5 i mod 24 (none from 24 up), with a random value and a random query.
  const cy::Index random = compare<24>(32, 200, [](cy::Index s, cy::Index i, int which) {
    const cy::Stream draws(cy::Seed{7}, cy::Purpose::task, static_cast<std::uint64_t>(which), static_cast<std::uint64_t>(s));
    if (which == 0) return (5 * i + s) % 32;
    return static_cast<cy::Index>(draws.below(static_cast<std::uint64_t>(i), which == 1 ? 24 : 25));
  });
  std::printf("   %td random instances of 32 rows, 24 keys, 24 values: %s\n\n", random, random > 0 ? "all exact" : "WRONG");

  std::printf("2. With softmax, on raw tokens, a miss of at most 1 %% asked for; nothing is trained:\n");
  constexpr double miss = 0.01;
  cy::Matrix<double> one_hot(64, 64), bits(8192, 13);
  for (cy::Index t = 0; t < 64; ++t) one_hot(t, t) = 1;
  for (cy::Index t = 0; t < 8192; ++t) {
    for (cy::Index c = 0; c < 13; ++c) bits(t, c) = ((t >> c & 1) != 0 ? 1 : -1) / std::sqrt(13.0);
  }
  const double beta_one_hot = sharpness(64, miss, 0), beta_bits = sharpness(64, miss, 1 - 2 / 13.0);
  const Outcome a = run(cy::Mqar({.vocabulary = 64, .pairs = 8, .power = 1}), one_hot, beta_one_hot, 100);
  const Outcome b = run(cy::Mqar({.vocabulary = 8192, .pairs = 8, .power = 1}), bits, beta_bits, 100);
  // Two unit vectors are at most 2 apart, so a miss m moves the output by at most 2 m.
  const bool a_holds = a.right == a.queries && a.farthest <= 2 * miss && a.miss_error <= 1e-12;
  const bool b_holds = b.right == b.queries && b.farthest <= 2 * miss;
  std::printf("   64 one-hot tokens, width 128, beta %.1f: %td of %td answers right, miss as predicted to %.0e: %s\n",
              beta_one_hot, a.right, a.queries, a.miss_error, a_holds ? "holds" : "WRONG");
  std::printf("   8192 tokens as 13 signs, width 26, beta %.1f: %td of %td answers right, off by %.4f of at most %.2f: %s\n",
              beta_bits, b.right, b.queries, b.farthest, 2 * miss, b_holds ? "holds" : "WRONG");
  return all > 0 && random > 0 && a_holds && b_holds ? 0 : 1;
}

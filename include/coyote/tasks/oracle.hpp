// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "coyote/core/batch.hpp"
#include "coyote/core/error.hpp"
#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// Which earlier occurrence answers a query where several match.
enum class Occurrence { first, latest };

/// No answer: the token did not occur before.
inline constexpr Token no_answer = -1;

/// Associative recall on raw tokens, by its definition and in O(N^2): answer[i] = tokens[j + 1] for the first or latest j < i
/// with tokens[j] = tokens[i], or no_answer. Here j + 1 = i is allowed.
inline std::vector<Token> recall_answers(std::span<const Token> tokens, Occurrence which) {
  std::vector<Token> answers(tokens.size(), no_answer);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      if (tokens[j] != tokens[i]) continue;
      answers[i] = tokens[j + 1];
      if (which == Occurrence::first) break;
    }
  return answers;
}
inline std::vector<Token> most_recent_answers(std::span<const Token> tokens) {
  return recall_answers(tokens, Occurrence::latest);
}
inline std::vector<Token> first_answers(std::span<const Token> tokens) { return recall_answers(tokens, Occurrence::first); }

/// Aligned MQAR: row i carries (k_i, v_i, q_i); answer[i] = v_j for the first or latest j < i with k_j = q_i, or no_answer.
/// Throws unless there are as many keys as values and queries.
inline std::vector<Token> mqar_aligned(std::span<const Token> keys, std::span<const Token> values, std::span<const Token> queries,
                                       Occurrence which = Occurrence::latest) {
  if (keys.size() != values.size() || keys.size() != queries.size())
    throw Error("mqar_aligned", "one key, value and query per row",
                words(keys.size(), " keys, ", values.size(), " values, ", queries.size(), " queries"));
  std::vector<Token> answers(keys.size(), no_answer);
  for (std::size_t i = 0; i < keys.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      if (keys[j] != queries[i]) continue;
      answers[i] = values[j];
      if (which == Occurrence::first) break;
    }
  return answers;
}

/// Interleaved MQAR: k_0, v_0, q_0, k_1, v_1, q_1, ... One answer per triple. Throws unless the length is a multiple of 3.
inline std::vector<Token> mqar_interleaved(std::span<const Token> tokens, Occurrence which = Occurrence::latest) {
  if (tokens.size() % 3 != 0) throw Error("mqar_interleaved", "a multiple of 3 tokens", words(tokens.size()));
  std::vector<Token> parts[3];
  for (std::size_t i = 0; i < tokens.size(); ++i) parts[i % 3].push_back(tokens[i]);
  return mqar_aligned(parts[0], parts[1], parts[2], which);
}

/// Number of labels of the batch that are not the raw-token answer at their row.
inline Index disagreements(const Batch& batch, Occurrence which) {
  batch.check("disagreements");
  Index wrong = 0, sequence = 0;
  std::vector<Token> answers;
  for (std::size_t n = 0; n < batch.label_rows.size(); ++n) {
    const Index row = batch.label_rows[n];
    while (row >= batch.end(sequence)) {
      ++sequence;
      answers.clear();
    }
    if (answers.empty()) answers = recall_answers(batch.tokens_of(sequence), which);
    if (answers[static_cast<std::size_t>(row - batch.begin(sequence))] != batch.labels[n]) ++wrong;
  }
  return wrong;
}

}  // namespace coyote::inline v0

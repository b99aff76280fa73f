// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "coyote/tasks/oracle.hpp"
#include "coyote/theory/mqar.hpp"

namespace coyote::test {

/// An instance of aligned recall: key, value and query of every row. A key or a query below 0 is none.
struct RecallInstance {
  std::vector<Token> keys, values, queries;
  operator theory::Aligned() const { return {keys, values, queries}; }
};

/// Its answers by the definition, the latest row with the key, and 0 where there is none. Keys and queries that are none never
/// match, each other neither.
inline std::vector<Token> expected(RecallInstance x) {
  for (Token& k : x.keys) {
    if (k < 0) k = -2;
  }
  for (Token& q : x.queries) {
    if (q < 0) q = -3;
  }
  std::vector<Token> answers = mqar_aligned(x.keys, x.values, x.queries);
  for (Token& a : answers) a = std::max(a, Token{0});
  return answers;
}

}  // namespace coyote::test

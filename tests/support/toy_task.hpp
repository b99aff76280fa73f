// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/tasks/sequences.hpp"

namespace coyote::test {

/// Random tokens; every row but the first is labelled with the token before it.
struct PreviousToken {
  Index symbols = 5, rows = 8;

  Index vocabulary() const { return symbols; }
  Index longest() const { return rows; }
  Index most_labels() const { return rows - 1; }
  void generate(Split split, std::uint64_t index, TokenSequence& out) const {
    const Stream draws(Seed{42}, Purpose::task, static_cast<std::uint64_t>(split), index);
    out.clear();
    for (Index i = 0; i < rows; ++i) {
      if (i > 0) {
        out.label_rows.push_back(i);
        out.labels.push_back(out.tokens.back());
      }
      out.tokens.push_back(static_cast<Token>(draws.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(symbols))));
    }
  }
};

}  // namespace coyote::test

// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/batch.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace cy = coyote;

namespace {
std::string complaint(const cy::Batch& batch) {
  try {
    batch.check("model");
    return "";
  } catch (const cy::Error& error) {
    return error.what();
  }
}
}  // namespace

TEST_CASE("sequences of equal and of different lengths") {
  const cy::Batch equal{.sequences = 3, .length = 5};
  CHECK(equal.rows() == 15);
  CHECK(equal.begin(2) == 10);
  CHECK(equal.size(1) == 5);
  CHECK(complaint(equal) == "");

  const std::vector<cy::Index> offsets{0, 1, 6, 8};
  const std::vector<cy::Token> tokens{0, 1, 2, 3, 4, 5, 6, 7};
  const cy::Batch packed{.sequences = 3, .length = 5, .offsets = offsets, .tokens = tokens};
  CHECK(packed.rows() == 8);
  CHECK(packed.begin(1) == 1);
  CHECK(packed.end(1) == 6);
  CHECK(packed.size(2) == 2);
  CHECK(packed.tokens_of(2)[1] == 7);
  CHECK(complaint(packed) == "");
}

TEST_CASE("parts of a batch that disagree are errors") {
  const std::vector<cy::Token> four(4);
  const std::vector<cy::Index> rows{1, 3}, repeated{1, 1}, outside{1, 4}, negative{-1};
  const std::vector<cy::Token> labels{7, 8}, one{7};
  using Offsets = std::vector<cy::Index>;
  const Offsets good{0, 1, 4}, late{1, 2, 4}, hole{0, 0, 4}, falling{0, 4, 2}, few{0, 4};

  CHECK(complaint({.sequences = 0, .length = 2}) == "model: required a batch with at least one sequence, came 0");
  CHECK(complaint({.sequences = 2, .length = 0}) == "model: required a batch with length at least 1, came 0");
  CHECK(complaint({.sequences = 2, .length = 3, .tokens = four}) == "model: required a batch with one token per row, came 4");
  CHECK(complaint({.sequences = 2, .length = 3, .offsets = good}) == "");
  CHECK(complaint({.sequences = 2, .length = 3, .offsets = few}) == "model: required a batch with sequences + 1 offsets, came 2");
  CHECK(complaint({.sequences = 2, .length = 2, .offsets = late}) ==
        "model: required a batch with offsets that begin with 0, came 1");
  CHECK(complaint({.sequences = 2, .length = 4, .offsets = hole}) ==
        "model: required a batch with offsets that ascend (no empty sequence), came 0 rows in sequence 0");
  CHECK(complaint({.sequences = 2, .length = 4, .offsets = falling}) ==
        "model: required a batch with offsets that ascend (no empty sequence), came -2 rows in sequence 1");
  CHECK(complaint({.sequences = 2, .length = 4, .offsets = good}) ==
        "model: required a batch with length equal to the longest sequence, came 4 for a longest of 3");
  CHECK(complaint({.sequences = 2, .length = 2, .label_rows = rows, .labels = labels}) == "");
  CHECK(complaint({.sequences = 2, .length = 2, .label_rows = rows, .labels = one}) ==
        "model: required a batch with one label per labelled row, came 1");
  for (const auto* wrong : {&repeated, &outside}) {
    CHECK(complaint({.sequences = 2, .length = 2, .label_rows = *wrong, .labels = labels}).find("ascending labelled rows") !=
          std::string::npos);
  }
  CHECK(complaint({.sequences = 2, .length = 2, .label_rows = negative, .labels = one}).find("came row -1") != std::string::npos);
}

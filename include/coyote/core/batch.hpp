// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coyote/core/error.hpp"
#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// The arrays of a batch in the memory of a device, for the kernels there; made by the backend's `resident`.
struct DeviceBatch {
  const std::int32_t* offsets = nullptr;    ///< [sequences + 1]; absent when all sequences have `length` rows
  const std::int32_t* positions = nullptr;  ///< [rows] of each row inside its sequence; absent like offsets
  const Token* tokens = nullptr;            ///< [rows]
  const Index* label_rows = nullptr;        ///< [labels]
  const Token* labels = nullptr;            ///< [labels]
};

/// What a layer knows of its input besides the numbers: where each sequence begins, the tokens behind the rows, and
/// the rows that carry a label. A view; the caller keeps the arrays alive until backward is done.
///
/// Either `offsets` is empty and the batch is `sequences` sequences of `length` rows each, or the sequences are packed:
/// sequence s is rows offsets[s] .. offsets[s + 1] - 1, and `length` is the longest of them.
struct Batch {
  Index sequences = 1;
  Index length = 0;
  std::span<const Index> offsets = {};
  std::span<const Token> tokens = {};      ///< one per row; may be empty where no mixer asks for tokens
  std::span<const Index> label_rows = {};  ///< rows with a label, ascending
  std::span<const Token> labels = {};      ///< the label of each of label_rows
  const DeviceBatch* device = nullptr;     ///< the same arrays on the device, where layers run on one

  constexpr Index begin(Index s) const { return offsets.empty() ? s * length : offsets[static_cast<std::size_t>(s)]; }
  constexpr Index end(Index s) const { return begin(s + 1); }
  constexpr Index size(Index s) const { return end(s) - begin(s); }
  constexpr Index rows() const { return begin(sequences); }
  /// The tokens of sequence s.
  constexpr std::span<const Token> tokens_of(Index s) const {
    return tokens.subspan(static_cast<std::size_t>(begin(s)), static_cast<std::size_t>(size(s)));
  }

  // The arrays where the operations of the backend read them.
  constexpr std::span<const Token> resident_tokens() const { return device == nullptr ? tokens : span(device->tokens, tokens); }
  constexpr std::span<const Index> resident_label_rows() const {
    return device == nullptr ? label_rows : span(device->label_rows, label_rows);
  }
  constexpr std::span<const Token> resident_labels() const { return device == nullptr ? labels : span(device->labels, labels); }

  /// Throws unless the parts agree with each other.
  constexpr void check(std::string_view where) const {
    const auto fail = [&](const char* required, std::string came) {
      throw Error(std::string(where), std::string("a batch with ") + required, std::move(came));
    };
    if (sequences < 1) fail("at least one sequence", words(sequences));
    if (!offsets.empty()) {
      if (static_cast<Index>(offsets.size()) != sequences + 1) fail("sequences + 1 offsets", words(offsets.size()));
      if (offsets[0] != 0) fail("offsets that begin with 0", words(offsets[0]));
      Index longest = 0;
      for (Index s = 0; s < sequences; ++s) {
        if (size(s) < 1) fail("offsets that ascend (no empty sequence)", words(size(s), " rows in sequence ", s));
        longest = longest < size(s) ? size(s) : longest;
      }
      if (longest != length) fail("length equal to the longest sequence", words(length, " for a longest of ", longest));
    } else if (length < 1) {
      fail("length at least 1", words(length));
    }
    if (!tokens.empty() && static_cast<Index>(tokens.size()) != rows()) fail("one token per row", words(tokens.size()));
    if (labels.size() != label_rows.size()) fail("one label per labelled row", words(labels.size()));
    Index previous = -1;
    for (const Index row : label_rows) {
      if (row <= previous || row >= rows()) fail("ascending labelled rows below its row count", words("row ", row));
      previous = row;
    }
  }

 private:
  template <class T>
  static constexpr std::span<const T> span(const T* data, std::span<const T> like) {
    return {data, like.size()};
  }
};

/// A decoding step in the memory of a device: kernels read it there, so that one captured step serves every position.
struct DeviceStep {
  const std::int32_t* position = nullptr;
  const Token* tokens = nullptr;  ///< one per sequence; may be absent
};

/// One decoding step: every sequence of the batch receives its row number `position`.
struct Step {
  Index position = 0;
  std::span<const Token> tokens = {};  ///< one per sequence; may be empty where no mixer asks for tokens
  const DeviceStep* device = nullptr;  ///< the same on the device, where layers run on one

  constexpr std::span<const Token> resident_tokens() const {
    return device == nullptr ? tokens : std::span<const Token>(device->tokens, tokens.size());
  }
};

}  // namespace coyote::inline v0

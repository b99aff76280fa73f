// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coyote/core/error.hpp"
#include "coyote/core/random.hpp"

namespace coyote::inline v0 {

/// Which elements dropout keeps: element (row, column) is kept when 16 random bits are at least rate * 2^16. The rate is rounded
/// to a multiple of 2^-16 for it, and scale() belongs to the rounded one, so that expectations are exact. The comparison is one
/// of integers, so every backend keeps the same ones; what is kept is multiplied by scale(). One Philox draw serves eight
/// neighbouring columns: number column % 8, of 16 bits, of draw row * 2^32 + column / 8.
class DropoutRule {
 public:
  /// Keeps everything.
  constexpr DropoutRule() = default;
  /// @param rate  the probability of dropping an element, in [0, 1)
  constexpr DropoutRule(double rate, Stream stream) : stream_(stream) {
    if (!(rate >= 0 && rate < 1)) throw Error("dropout", "a rate in [0, 1)", words(rate));
    threshold_ = static_cast<std::uint32_t>(rate * 0x1p16 + 0.5);
    if (threshold_ > 0xFFFF) threshold_ = 0xFFFF;
    scale_ = 0x1p16 / (0x1p16 - threshold_);
  }

  /// False when everything is kept: kernels then skip the draws.
  constexpr bool active() const { return threshold_ != 0; }
  /// What is dropped, of 2^16.
  constexpr std::uint32_t threshold() const { return threshold_; }
  constexpr double scale() const { return scale_; }
  constexpr const Stream& stream() const { return stream_; }

  constexpr bool keeps(std::uint64_t row, std::uint64_t column) const {
    const auto place = static_cast<std::uint32_t>(column % 8);
    return (stream_.words(row << 32 | column / 8)[place / 2] >> place % 2 * 16 & 0xFFFF) >= threshold_;
  }

 private:
  Stream stream_{Seed{}, Purpose::dropout};
  std::uint32_t threshold_ = 0;
  double scale_ = 1;
};

/// Dropout of attention's probabilities, after the softmax. Rows and keys are numbered over the whole batch.
struct AttentionDropout {
  double rate = 0;
  Stream stream{Seed{}, Purpose::dropout};

  constexpr DropoutRule rule() const { return {rate, stream}; }
  /// The row of the rule for query row i and head h of `heads`; its column is the key's row.
  static constexpr std::uint64_t rule_row(Index i, Index head, Index heads) {
    return static_cast<std::uint64_t>(i * heads + head);
  }
};

}  // namespace coyote::inline v0

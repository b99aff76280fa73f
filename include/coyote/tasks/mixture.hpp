// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "coyote/core/error.hpp"
#include "coyote/tasks/sequences.hpp"

namespace coyote::inline v0 {

/// Sequences of several settings of one task: each sequence takes setting i with probability weight_i / sum of weights, drawn
/// from (seed, split, index). Sequence `index` is then sequence `index` of that setting with the same seed. Batches of
/// settings of different lengths come out packed.
///
/// Errors: no setting; a weight that is not positive and finite; whatever the task's own options throw.
template <class T>
class Mixture {
 public:
  struct Setting {
    typename T::Options options;
    double weight = 1;
  };

  Mixture(std::span<const Setting> settings, Seed seed) : seed_(seed) {
    if (settings.empty()) throw Error("Mixture.settings", "at least one setting", "none");
    double largest = 0;
    for (const Setting& setting : settings) {
      if (!(setting.weight > 0) || !std::isfinite(setting.weight))
        throw Error(words("Mixture.settings[", &setting - settings.data(), "].weight"), "a positive, finite weight",
                    words(setting.weight));
      largest = std::max(largest, setting.weight);
    }
    std::uint64_t total = 0;
    for (const Setting& setting : settings) {
      parts_.emplace_back(setting.options, seed);
      total += std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::llround(setting.weight / largest * 0x1p40)));
      ends_.push_back(total);
      vocabulary_ = std::max(vocabulary_, parts_.back().vocabulary());
      longest_ = std::max(longest_, parts_.back().longest());
      most_labels_ = std::max(most_labels_, parts_.back().most_labels());
    }
  }
  Mixture(std::initializer_list<Setting> settings, Seed seed)
      : Mixture(std::span<const Setting>(settings.begin(), settings.size()), seed) {}

  Index vocabulary() const { return vocabulary_; }
  Index longest() const { return longest_; }
  Index most_labels() const { return most_labels_; }

  /// Number of the setting that sequence `index` takes.
  std::size_t setting_of(Split split, std::uint64_t index) const {
    detail::TaskDraws draws(seed_, detail::TaskPart::mixture, split, index);
    const auto end = std::upper_bound(ends_.begin(), ends_.end(), draws.below(ends_.back()));
    return static_cast<std::size_t>(end - ends_.begin());
  }
  void generate(Split split, std::uint64_t index, TokenSequence& out) const {
    parts_[setting_of(split, index)].generate(split, index, out);
  }
  void prepare(TokenSequence& out) const {
    for (const T& part : parts_) part.prepare(out);
  }

 private:
  Seed seed_;
  std::vector<T> parts_;
  std::vector<std::uint64_t> ends_;  ///< cumulated integer weights
  Index vocabulary_ = 0, longest_ = 0, most_labels_ = 0;
};

}  // namespace coyote::inline v0

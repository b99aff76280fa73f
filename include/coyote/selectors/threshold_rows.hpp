// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "coyote/selectors/selector.hpp"

namespace coyote::inline v0 {

/// The rows whose score f = sigmoid(u w) reaches the option `threshold`: the causal form of TopRows, which decodes row by row.
/// Rule::target is the number of rows that the penalty aims at in training; calibrate_threshold then finds the threshold that
/// keeps so many rows on average.
template <class Rule = SquareRootRows>
struct ThresholdRows : SigmoidSelector<Rule> {
  static constexpr bool is_causal = true;
};

template <class Rule, class Backend, class S>
class Picker<ThresholdRows<Rule>, Backend, S> : public SigmoidPicker<Rule, Backend, S> {
  using Base = SigmoidPicker<Rule, Backend, S>;

 public:
  Picker(Dimensions dims, const typename ThresholdRows<Rule>::Options& options, Path path)
      : Base(dims, options, path), threshold_(options.threshold) {}

  void pick(Context<Backend>& context, const Batch&, Rows<const S> f, Rows<unsigned char> picked) const {
    pick_above<S>(context, threshold_, f, picked);
  }
  double threshold() const { return threshold_; }
  /// For a threshold calibrated after training.
  void set_threshold(double threshold) { threshold_ = threshold; }

 private:
  double threshold_;
};

/// The threshold that keeps `rows_per_sequence` rows of a sequence on average, from the scores of held-out sequences, one per
/// row of `scores`: halfway between the last score that is kept and the first that is not. Where these are equal, all rows
/// of that score are kept. Errors: no scores; NaN; a number of rows outside 0 .. length.
template <class S>
double calibrate_threshold(Rows<const S> scores, double rows_per_sequence) {
  if (scores.empty()) throw Error("calibrate_threshold", "at least one score", "none");
  if (!(rows_per_sequence >= 0 && rows_per_sequence <= static_cast<double>(scores.width))) {
    throw Error("calibrate_threshold", words("a number of rows from 0 to ", scores.width), words(rows_per_sequence));
  }
  std::vector<double> sorted;
  for (Index s = 0; s < scores.rows; ++s) {
    for (Index i = 0; i < scores.width; ++i) {
      sorted.push_back(static_cast<double>(scores(s, i)));
      if (sorted.back() != sorted.back()) throw Error("calibrate_threshold", "scores that are numbers", words("NaN in row ", s));
    }
  }
  std::sort(sorted.begin(), sorted.end(), [](double a, double b) { return a > b; });
  const auto kept = static_cast<std::size_t>(std::llround(rows_per_sequence * static_cast<double>(scores.rows)));
  if (kept == 0) return std::nextafter(sorted.front(), std::numeric_limits<double>::infinity());
  if (kept >= sorted.size()) return sorted.back();
  return sorted[kept - 1] == sorted[kept] ? sorted[kept] : (sorted[kept - 1] + sorted[kept]) / 2;
}

}  // namespace coyote::inline v0

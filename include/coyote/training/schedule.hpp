// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "coyote/core/error.hpp"

namespace coyote::inline v0 {

/// Learning-rate factor over a run: linear warm-up, then a half cosine from 1 to `floor` that ends at `steps`.
struct CosineSchedule {
  std::uint64_t steps = 1;  ///< of the whole run, warm-up included
  std::uint64_t warmup = 0;
  double floor = 0;
  std::uint64_t hold = 1;  ///< the factor changes only every `hold` steps: 1, or an epoch's number of steps

  void check() const {
    if (steps < 1) throw Error("CosineSchedule", "at least one step", words(steps));
    if (warmup >= steps)
      throw Error("CosineSchedule", words("fewer warm-up steps than the ", steps, " of the run"), words(warmup));
    if (hold < 1) throw Error("CosineSchedule", "a hold of at least one step", words(hold));
    if (!(floor >= 0 && floor <= 1)) throw Error("CosineSchedule", "a floor in 0 .. 1", words(floor));
  }
  /// The factor of step 0, 1, ...
  double factor(std::uint64_t step) const {
    if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
    const std::uint64_t since = (step - warmup) / hold * hold;
    const double progress = std::min(1.0, static_cast<double>(since) / static_cast<double>(steps - warmup));
    return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
};

}  // namespace coyote::inline v0

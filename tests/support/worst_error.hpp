// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <vector>

#include "coyote/core/rows.hpp"

namespace coyote::test {

/// Largest difference relative to the largest reference (row after row), NaN if any is.
template <class S>
double worst_error(const std::vector<double>& reference, Rows<const S> got) {
  double worst = 0, size = 1e-300;
  for (Index i = 0; i < got.rows; ++i) {
    for (Index c = 0; c < got.width; ++c) {
      const double r = reference[static_cast<std::size_t>(i * got.width + c)];
      const double e = std::abs(r - static_cast<double>(got(i, c)));
      if (worst == worst && !(e <= worst)) worst = e;
      size = std::max(size, std::abs(r));
    }
  }
  return worst / size;
}

}  // namespace coyote::test

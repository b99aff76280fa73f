// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/mixer.hpp"

#include <doctest/doctest.h>

namespace cy = coyote;

// Degrees add under products and multiply under composition; the infinite one absorbs, and nothing overflows.
static_assert(cy::Degree(2) + cy::Degree(3) == cy::Degree(5));
static_assert(cy::Degree(2) * cy::Degree(3) == cy::Degree(6));
static_assert(max(cy::Degree(2), cy::Degree(3)) == cy::Degree(3));
static_assert((cy::infinite_degree + cy::infinite_degree).is_infinite());
static_assert((cy::infinite_degree * cy::infinite_degree).is_infinite());
static_assert((cy::infinite_degree + cy::Degree(1)).is_infinite());
static_assert((cy::Degree(1 << 20) * cy::Degree(1 << 20)).is_infinite());
static_assert(!(cy::Degree((1 << 29) - 1) + cy::Degree(1 << 29)).is_infinite());
static_assert(cy::infinite_degree * cy::Degree(0) == cy::Degree(0));

TEST_CASE("costs add field by field") {
  const cy::Cost a{1, 2, 3, 4, 5, 6, false}, b{10, 20, 30, 40, 50, 60, true};
  CHECK(a + b == cy::Cost{11, 22, 33, 44, 55, 66, true});
  CHECK(3 * a == cy::Cost{3, 6, 9, 12, 15, 18, false});
}

// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/path.hpp"

#include <doctest/doctest.h>

namespace cy = coyote;

static_assert((cy::Path("layers") / 12 / "gate" / "left").view() == "layers.12.gate.left");
static_assert((cy::Path() / "first").view() == "first");
static_assert((cy::Path() / cy::Index{0}).view() == "0");
static_assert(cy::Path().view().empty());
// FNV-1a, 64 bits, published test vectors.
static_assert(cy::Path().hash() == 0xcbf29ce484222325u);
static_assert(cy::Path("a").hash() == 0xaf63dc4c8601ec8cu);
static_assert(cy::Path("foobar").hash() == 0x85944171f73967e8u);
static_assert((cy::Path("a") / "b").hash() != (cy::Path("b") / "a").hash());

TEST_CASE("a path has a capacity, and says so") {
  const std::string longest(static_cast<std::size_t>(cy::Path::capacity), 'x');
  CHECK(cy::Path(std::string_view(longest)).view() == longest);
  CHECK_THROWS_WITH_AS(cy::Path(std::string_view(longest + "y")),
                       doctest::Contains("required a layer's path of at most 256 characters"), cy::Error);
  CHECK_THROWS_WITH_AS(cy::Path(std::string_view(longest)) / "weight", doctest::Contains("at most 256"), cy::Error);
}

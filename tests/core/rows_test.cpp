// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/rows.hpp"

#include <doctest/doctest.h>

namespace cy = coyote;

namespace {

constexpr bool views_address_their_matrix() {
  cy::Matrix<int> m(4, 3);
  for (cy::Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<int>(i);
  const cy::Rows<int> part = m.view().slice(1, 2).columns(1, 2);  // rows 1, 2 and columns 1, 2
  const cy::Rows<const int> read = part;
  if (part.rows != 2 || part.width != 2 || part.stride != 3) return false;
  if (read(0, 0) != 4 || read(1, 1) != 8 || read.row(1)[0] != 7) return false;
  part(1, 0) = 70;
  return m(2, 1) == 70 && !part.empty() && m.view().slice(0, 0).empty() && m.view().columns(0, 0).empty();
}
static_assert(views_address_their_matrix());

constexpr bool matrices_are_values() {
  cy::Matrix<long> a(2, 2);
  a(1, 1) = 3;
  cy::Matrix<long> b = a;
  b(1, 1) = 4;
  return a(1, 1) == 3 && b(1, 1) == 4 && a(0, 0) == 0 && cy::Matrix<long>().size() == 0;
}
static_assert(matrices_are_values());

}  // namespace

TEST_CASE("require_shape names the place, the shape asked for and the one that came") {
  cy::Matrix<float> m(4, 3);
  CHECK_NOTHROW(cy::require_shape("here", "x", m.view(), 4, 3));
  CHECK_THROWS_WITH_AS(cy::require_shape("layers.0", "x", m.view(), 4, 2), "layers.0: required x of shape [4, 2], came [4, 3]",
                       cy::Error);
  CHECK_THROWS_AS(cy::require_shape("here", "x", m.view(), 5, 3), cy::Error);
  CHECK_THROWS_WITH_AS(cy::require_shape("here", "x", cy::Rows<float>(nullptr, 4, 3), 4, 3), doctest::Contains("came no data"),
                       cy::Error);
  CHECK_NOTHROW(cy::require_shape("here", "x", cy::Rows<float>(nullptr, 0, 3), 0, 3));
  CHECK(views_address_their_matrix());
  CHECK(matrices_are_values());
}

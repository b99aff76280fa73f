// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/dropout.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// y (=|+=) x * (kept ? rule.scale() : 0), elementwise; the rule's row and column are those of the matrix.
template <class S>
void drop(Context<Reference>&, const DropoutRule& rule, Rows<const S> x, Rows<S> y, Write write) {
  for (Index i = 0; i < x.rows; ++i) {
    for (Index c = 0; c < x.width; ++c) {
      const bool keep = rule.keeps(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(c));
      write_to(y(i, c), keep ? x(i, c) * static_cast<S>(rule.scale()) : S{}, write);
    }
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/context.hpp"
#include "coyote/operations/cpu/math.hpp"
#include "coyote/operations/dropout.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// y (=|+=) x * (kept ? rule.scale() : 0), elementwise: the draws of 128 neighbouring columns side by side.
template <class S>
void drop(Context<Cpu>& context, const DropoutRule& rule, Rows<const S> x, Rows<S> y, Write write) {
  constexpr int lanes = 16, columns = 8 * lanes;
  const auto scale = static_cast<S>(rule.scale());
  const std::uint64_t step = rule.stream().step();
  context.for_rows(x.rows, 8 * x.width, [&](Index i) {
    std::uint32_t low[lanes], middle[lanes], draws[4][lanes];
    S multipliers[columns];
    for (Index first = 0; first < x.width; first += columns) {
      for (int l = 0; l < lanes; ++l) {
        low[l] = static_cast<std::uint32_t>(first / 8 + l);
        middle[l] = static_cast<std::uint32_t>(i);
      }
      cpu::philox_lanes<lanes>(low, middle, static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32),
                               rule.stream().key(), draws);
      for (int l = 0; l < lanes; ++l) {
        for (int n = 0; n < 8; ++n) {
          multipliers[8 * l + n] = (draws[n / 2][l] >> n % 2 * 16 & 0xFFFF) >= rule.threshold() ? scale : S{};
        }
      }
      const Index count = std::min<Index>(columns, x.width - first);
      for (Index c = 0; c < count; ++c) write_to(y(i, first + c), x(i, first + c) * multipliers[c], write);
    }
  });
}

}  // namespace coyote::inline v0

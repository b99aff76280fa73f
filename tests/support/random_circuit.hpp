// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>

#include "coyote/theory/circuit.hpp"

namespace coyote::test {

/// A circuit of random gates, most of them products and sums, some constants; gates and outputs may read any wire so far, so
/// that some gates are read by nothing.
template <class S>
theory::Circuit<S> random_circuit(Index inputs, Index gates, Index outputs, std::mt19937& random) {
  theory::Circuit<S> c(inputs);
  const auto any = [&] { return c.wire(static_cast<Index>(random()) % c.nodes().size()); };
  for (Index g = 0; g < gates; ++g) {
    const auto kind = random() % 12;
    if (kind == 0) {
      c.constant(S(static_cast<long>(random() % 11) - 5));
    } else {
      const auto a = any(), b = any();
      kind < 6 ? a* b : kind < 10 ? a + b : a - b;
    }
  }
  for (Index k = 0; k < outputs; ++k) c.output(any());
  return c;
}

}  // namespace coyote::test

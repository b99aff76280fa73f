// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/batch.hpp"
#include "coyote/core/scalar.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// Positions: how a model knows where a row stands. Attention takes NoPositions or Rotary, a language model NoPositions or
// Learned.

/// Rows are told apart by the mixers alone.
struct NoPositions {};

/// One trained vector per position, added to the embedding; it bounds the length.
struct Learned {};

/// Channels 2c and 2c + 1 of every query and key head are rotated by the angle position * Base^(-2c / head_dim); an odd last
/// channel stays. Real scalars. Source: Su et al., "RoFormer" (arXiv 2104.09864), eq. 34.
template <Index Base = 10000>
struct Rotary {};

/// Rotates the heads of every row of x in place, row i of a sequence by its position first + i; backwards: by the opposite
/// angle, which is the gradient of the rotation.
template <class S, RowContext C>
void rotate(C& context, const Batch& batch, Index heads, Index base, Index first, bool backwards, Rows<S> x) {
  const Index head_dim = x.width / heads, pairs = head_dim / 2;
  if (pairs == 0) return;
  const auto frame = context.frame();
  auto table = context.template make<double>(batch.length, 2 * pairs);  // in double: angles reach the length
  const Rows<double> angles = table;
  context.for_rows(batch.length, 64 * pairs, [&](Index i) {
    for (Index c = 0; c < pairs; ++c) {
      const double angle = static_cast<double>(first + i) *
                           std::pow(static_cast<double>(base), -2.0 * static_cast<double>(c) / static_cast<double>(head_dim));
      angles(i, 2 * c) = std::cos(angle);
      angles(i, 2 * c + 1) = backwards ? -std::sin(angle) : std::sin(angle);
    }
  });
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index begin = batch.begin(s);
    context.for_rows(batch.size(s), 4 * x.width, [&](Index i) {
      for (Index h = 0; h < heads; ++h) {
        S* head = x.row(begin + i) + h * head_dim;
        for (Index c = 0; c < pairs; ++c) {
          const auto cosine = static_cast<parameter_t<S>>(angles(i, 2 * c)),
                     sine = static_cast<parameter_t<S>>(angles(i, 2 * c + 1));
          const auto a = static_cast<parameter_t<S>>(head[2 * c]), b = static_cast<parameter_t<S>>(head[2 * c + 1]);
          head[2 * c] = static_cast<S>(a * cosine - b * sine);
          head[2 * c + 1] = static_cast<S>(a * sine + b * cosine);
        }
      }
    });
  }
}

/// Rotates a decoding step's row of every sequence.
template <class S, RowContext C>
void rotate_step(C& context, const Step& at, Index heads, Index base, Rows<S> x) {
  rotate<S>(context, Batch{.sequences = x.rows, .length = 1}, heads, base, at.position, false, x);
}

}  // namespace coyote::inline v0

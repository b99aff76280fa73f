// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "coyote/models/model.hpp"
#include "support/counted.hpp"

namespace coyote::test {

/// A model of integers on two channels gives the same rows whole and step by step, from a state of `scalars` numbers; with
/// `tap`, they are also the convolution with its taps.
template <class Model>
constexpr bool steps_exactly(const Model& model, Index n, Index scalars, long (*tap)(Index t, Index channel) = nullptr) {
  Matrix<long> u(n, 2), y(n, 2), step(1, 2);
  for (Index i = 0; i < n; ++i) {
    for (Index c = 0; c < 2; ++c) u(i, c) = static_cast<long>(i * i + c) % 5 - 2;
  }
  Context<Reference> context;
  model.forward(context, Batch{.sequences = 1, .length = n}, u, y);
  auto state = model.make_state({.sequences = 1, .capacity = n});
  bool equal = state.size().scalars == scalars;
  for (Index i = 0; i < n; ++i) {
    model.step(context, state, {.position = i}, std::as_const(u).view().slice(i, 1), step);
    for (Index c = 0; c < 2; ++c) {
      equal = equal && step(0, c) == y(i, c);
      if (tap == nullptr) continue;
      long expected = 0;
      for (Index t = 0; t <= i; ++t) expected += tap(t, c) * u(i - t, c);
      equal = equal && y(i, c) == expected;
    }
  }
  return equal;
}

/// What decoding n rows of M counts: multiplications and additions, and the scalars of its state.
template <class M>
Cost count_decoding(Index width, Index n, const typename M::Options& options = {}) {
  const Model<M, Reference, Counted> model({width, n}, Seed{1}, options);
  auto state = model.make_state({.sequences = 1, .capacity = n});
  Context<Reference> context;
  Matrix<Counted> u(1, width), y(1, model.output_width());
  Counted::done = {};
  for (Index i = 0; i < n; ++i) model.step(context, state, {.position = i}, u, y);
  return {.multiplications = Counted::done.multiplications,
          .additions = Counted::done.additions,
          .state_scalars = state.size().scalars};
}

}  // namespace coyote::test

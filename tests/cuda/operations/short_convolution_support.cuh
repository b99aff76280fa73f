// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/short_convolution.cuh"

#include <doctest/doctest.h>
#include "cuda/support/matrices.cuh"

/// Short convolutions and all their gradients against a plain loop in double.
namespace {

using namespace coyote_test;
using cy::bf16;
using cy::Write;
using Context = cy::Context<cy::Cuda>;

struct Problem {
  std::vector<Index> sizes;
  Index width;
  Layout layout;
  int bias;  // 0: none, 1: one row, 2: a row for each position
  bool gated, packed = false;
};

/// Rounded to the scalar of activations, as x and dy are: the tolerance is that of exact inputs.
template <class S, Index K>
void check(Context& context, const Problem& problem, Index taps_count, std::uint64_t seed) {
  const DeviceSequences sequences(problem.sizes, problem.packed);
  const cy::Batch& batch = sequences.batch();
  const auto& [sizes, width, layout, bias_kind, gated, packed] = problem;
  const Index rows = batch.rows(), bias_rows = bias_kind == 2 ? batch.length + 1 : bias_kind;
  Random random(seed);
  OnDevice<S> x(rows, width, layout, random), dy(rows, width, layout, random), gate(gated ? rows : 0, width, layout, random);
  OnDevice<float> taps(taps_count, width, {}, random), bias(bias_rows, width, {}, random);
  OnDevice<float> dtaps(taps_count, width, {}, random), dbias(bias_rows, width, {}, random);
  Doubles y(rows, width), dx(rows, width), dgate(gated ? rows : 0, width), dw(taps_count, width), db(bias_rows, width);
  for (Index c = 0; c < width; ++c) {
    for (Index k = 0; k < taps_count; ++k) dw(k, c) = dtaps(k, c);
    for (Index i = 0; i < bias_rows; ++i) db(i, c) = dbias(i, c);
  }
  for (Index s = 0; s < batch.sequences; ++s) {
    for (Index i = 0; i < batch.size(s); ++i) {
      const Index row = batch.begin(s) + i;
      for (Index c = 0; c < width; ++c) {
        double sum = bias_rows > 0 ? bias(bias_rows == 1 ? 0 : i, c) : 0;
        const double d = dy(row, c) * (gated ? gate(row, c) : 1);
        for (Index k = 0; k < taps_count && k <= i; ++k) {
          sum += taps(k, c) * x(row - k, c);
          dx(row - k, c) += taps(k, c) * d;
          dw(k, c) += x(row - k, c) * d;
        }
        y(row, c) = sum * (gated ? gate(row, c) : 1);
        if (gated) dgate(row, c) = sum * dy(row, c);
        if (bias_rows > 0) db(bias_rows == 1 ? 0 : i, c) += d;
      }
    }
  }
  const double tolerance = sizeof(S) == 4 ? 1e-5 : 5e-3;
  CAPTURE(rows);
  CAPTURE(batch.length);
  CAPTURE(batch.offsets.size());
  CAPTURE(width);
  CAPTURE(taps_count);
  CAPTURE(bias_kind);
  CAPTURE(gated);
  OnDevice<S> made(rows, width, layout);
  short_convolution<S, K>(context, batch, x.read(), taps.read(), bias.read(), gate.read(), made.view());
  CHECK(error(made.now(), y) <= tolerance);
  for (const Write write : {Write::overwrite, Write::add, Write::none}) {
    CAPTURE(static_cast<int>(write));
    OnDevice<S> to(rows, width, layout, [&](Index, Index) { return write == Write::overwrite ? not_a_number : 0.5; });
    OnDevice<S> gate_to(gated ? rows : 0, width, layout);
    Doubles wanted(rows, width);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < width; ++c)
        wanted(i, c) = (write == Write::none ? 0 : dx(i, c)) + (write == Write::overwrite ? 0 : 0.5);
    }
    OnDevice<float> dw_to(taps_count, width, {}, [&](Index i, Index c) { return dtaps(i, c); });
    OnDevice<float> db_to(bias_rows, width, {}, [&](Index i, Index c) { return dbias(i, c); });
    const bool parameters = write != Write::add, bias_only = write == Write::none && bias_rows == 1;
    short_convolution_backward<S, K>(context, batch, x.read(), taps.read(), bias.read(), gate.read(), dy.read(), to.view(), write,
                                     gate_to.view(), parameters && !bias_only ? dw_to.view() : Rows<float>(),
                                     parameters ? db_to.view() : Rows<float>());
    CHECK(error(to.now(), wanted) <= tolerance);
    if (gated) CHECK(error(gate_to.now(), dgate) <= tolerance);
    if (parameters && !bias_only) CHECK(error(dw_to.now(), dw) <= 1e-5);
    if (parameters && bias_rows > 0) CHECK(error(db_to.now(), db) <= 1e-5);
    OnDevice<float> again(taps_count, width, {}, [&](Index i, Index c) { return dtaps(i, c); });
    short_convolution_backward<S, K>(context, batch, x.read(), taps.read(), bias.read(), gate.read(), dy.read(), {}, Write::none,
                                     gate_to.view(), again.view(), {});
    if (parameters && !bias_only) CHECK(again.now() == dw_to.now());
  }
}

// Sequences shorter than the taps and than a run, runs that several sequences share, primes, powers of two and their neighbours.
const std::vector<std::vector<Index>> batches = {{1},
                                                 {2},
                                                 {3},
                                                 {1, 1, 1, 1, 1},
                                                 {2, 2, 2},
                                                 {7},
                                                 {8, 8},
                                                 {9, 9, 9},
                                                 {16},
                                                 {31, 31},
                                                 {33},
                                                 {5, 1, 2, 17, 3},
                                                 {127, 64},
                                                 {300, 1, 1, 513},
                                                 {64, 64, 64, 64},
                                                 {1000}};

template <class S, Index K>
void check_all(Index taps_count) {
  Context context;
  context.poison(true);
  std::uint64_t seed = 0;
  for (const auto& sizes : batches) {
    for (const auto& [width, layout] : {std::pair<Index, Layout>{1, {}}, {8, {}}, {64, {0, 64}}, {37, {1, 2}}, {264, {0, 8}}}) {
      ++seed;
      check<S, K>(context, {sizes, width, layout, static_cast<int>(seed % 3), seed % 2 == 0}, taps_count, seed);
      check<S, K>(context, {sizes, width, layout, static_cast<int>((seed + 1) % 3), seed % 2 == 1, true}, taps_count,
                  seed + 1000);
    }
  }
  const std::vector<Index> many(600, 24);
  check<S, K>(context, {many, 128, {}, 1, true}, taps_count, 1);
  check<S, K>(context, {many, 128, {}, 1, false, true}, taps_count, 2);
  check<S, K>(context, {{20000}, 72, {}, 1, false}, taps_count, 3);
}

template <class S, Index K>
void check_small(Index taps_count) {
  Context context;
  context.poison(true);
  for (const auto& [width, layout] : {std::pair<Index, Layout>{1, {}}, {40, {1, 2}}, {64, {}}}) {
    check<S, K>(context, {{7, 1, 65}, width, layout, 1, true}, taps_count, 1);
    check<S, K>(context, {{7, 1, 65}, width, layout, 2, true, true}, taps_count, 2);
    check<S, K>(context, {{33, 33}, width, layout, 0, false}, taps_count, 3);
  }
}

}  // namespace

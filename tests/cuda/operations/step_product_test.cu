// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/step_product.cuh"

#include <doctest/doctest.h>
#include "coyote/operations/cuda/linear.cuh"
#include "cuda/support/matrices.cuh"

namespace {

using namespace coyote_test;
using cy::bf16;
using cy::NormKind;
using Context = cy::Context<cy::Cuda>;

struct Shape {
  Index rows, depth, columns;
};

/// norm(x) weight + bias + skip in double, of which the kernels round norm(x) and the weights.
void check(Context& context, NormKind kind, const Shape& shape, Layout layout, std::uint64_t seed) {
  const auto [rows, depth, columns] = shape;
  CAPTURE(rows);
  CAPTURE(depth);
  CAPTURE(columns);
  const double epsilon = 1e-5, n = static_cast<double>(depth);
  Random random(seed);
  OnDevice<bf16> x(rows, depth, layout, [&](Index i, Index c) { return random(i, c) + (i % 2 == 0 ? 3.0 : 0.0); });
  OnDevice<bf16> skip(rows, columns, layout, random), y(rows, columns, layout);
  OnDevice<float> weight(depth, columns, {}, random), bias(1, columns, {}, random), scale(1, depth, {}, random);
  OnDevice<float> shift(kind == NormKind::layer ? 1 : 0, depth, {}, random);
  const cy::NormRule<float> rule{kind, static_cast<float>(epsilon), scale.read(), shift.read()};
  cy::linear<bf16>(context, {.sequences = rows, .length = 1}, x.read(), weight.read(), bias.read(), y.view(), skip.read(), rule);
  Doubles wanted(rows, columns), unnormed(rows, columns), none(rows, columns);
  for (Index i = 0; i < rows; ++i) {
    double mean = 0, squares = 0;
    for (Index c = 0; c < depth && kind == NormKind::layer; ++c) mean += x(i, c) / n;
    for (Index c = 0; c < depth; ++c) squares += (x(i, c) - mean) * (x(i, c) - mean);
    const double inverse = 1 / std::sqrt(squares / n + epsilon);
    for (Index j = 0; j < columns; ++j) {
      wanted(i, j) = unnormed(i, j) = bias(0, j) + skip(i, j);
      for (Index c = 0; c < depth; ++c) {
        const double normed = (x(i, c) - mean) * inverse * scale(0, c);
        wanted(i, j) += (normed + (shift.rows() > 0 ? shift(0, c) : 0)) * weight(c, j);
        unnormed(i, j) += x(i, c) * weight(c, j);
      }
    }
  }
  context.synchronise();
  CHECK(error(y.now(), wanted) <= tolerance<bf16>);
  CHECK_FALSE(error(y.now(), unnormed) <= tolerance<bf16>);
  CHECK_FALSE(error(none.values, wanted) <= tolerance<bf16>);
}

const std::vector<Shape> small = {{1, 8, 8}, {3, 64, 40}, {9, 40, 8}};

TEST_CASE("a norm in front of a product of few rows") {
  Context context;
  context.poison(true);
  std::uint64_t seed = 1;
  for (const NormKind kind : {NormKind::layer, NormKind::root_mean_square}) {
    for (const Index rows : {1, 8, 9, 17, 64, 65}) {
      for (const Index depth : {8, 64, 264, 512, 520, 1544}) {
        for (const Index columns : {8, 40, 96}) check(context, kind, {rows, depth, columns}, {0, 8}, ++seed);
      }
    }
    check(context, kind, {5, 33, 40}, {}, ++seed);  // these go the long way
    check(context, kind, {5, 64, 40}, {1, 1}, ++seed);
  }
}

TEST_CASE("a norm in front of a product at small shapes") {
  Context context;
  for (const Shape& shape : small) check(context, NormKind::layer, shape, {}, 5);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/norm.cuh"

#include <doctest/doctest.h>
#include "cuda/support/matrices.cuh"

namespace {

using namespace coyote_test;
using cy::bf16;
using cy::NormKind;
using cy::Write;
using Context = cy::Context<cy::Cuda>;

struct Shape {
  Index rows, width;
  Layout layout;
};
// Every number of lanes and of packs a lane, rows that no team holds, odd and unaligned ones.
const std::vector<Shape> shapes = {{1, 1, {}},         {3, 2, {}},       {5, 8, {0, 8}}, {130, 17, {}},    {77, 32, {}},
                                   {1000, 64, {}},     {33, 72, {0, 8}}, {65, 128, {}},  {9, 200, {1, 1}}, {40, 256, {}},
                                   {21, 512, {0, 64}}, {17, 513, {}},    {12, 1024, {}}, {6, 1032, {}},    {5, 2048, {}},
                                   {70000, 8, {}},     {3, 777, {}},     {4, 2050, {}},  {3, 4096, {}},    {2, 5000, {0, 8}}};

template <class S>
void check(Context& context, NormKind kind, const Shape& shape, std::uint64_t seed) {
  const auto [rows, width, layout] = shape;
  const double epsilon = 1e-5, n = static_cast<double>(width);
  Random random(seed);
  OnDevice<S> x(rows, width, layout, [&](Index i, Index c) { return random(i, c) + (i % 2 == 0 ? 3.0 : 0.0); });
  OnDevice<S> dy(rows, width, layout, random);
  OnDevice<float> scale(1, width, {}, random), shift(kind == NormKind::layer ? 1 : 0, width, {}, random);
  OnDevice<float> statistics(rows, 2), dscale(1, width, {}, random), dshift(kind == NormKind::layer ? 1 : 0, width, {}, random);
  OnDevice<S> y(rows, width, layout);

  Doubles normed(rows, width), wanted(rows, width), wanted_dx(rows, width), wanted_dscale(1, width), wanted_dshift(1, width);
  for (Index c = 0; c < width; ++c) {
    wanted_dscale(0, c) = dscale(0, c);
    if (dshift.rows() > 0) wanted_dshift(0, c) = dshift(0, c);
  }
  for (Index i = 0; i < rows; ++i) {
    double mean = 0, squares = 0, mean_g = 0, mean_gn = 0;
    for (Index c = 0; c < width && kind == NormKind::layer; ++c) mean += x(i, c) / n;
    for (Index c = 0; c < width; ++c) squares += (x(i, c) - mean) * (x(i, c) - mean);
    const double inverse = 1 / std::sqrt(squares / n + epsilon);
    for (Index c = 0; c < width; ++c) {
      normed(i, c) = (x(i, c) - mean) * inverse;
      wanted(i, c) = normed(i, c) * scale(0, c) + (shift.rows() > 0 ? shift(0, c) : 0);
      const double g = dy(i, c) * scale(0, c);
      mean_g += kind == NormKind::layer ? g / n : 0;
      mean_gn += g * normed(i, c) / n;
      wanted_dscale(0, c) += dy(i, c) * normed(i, c);
      wanted_dshift(0, c) += dy(i, c);
    }
    for (Index c = 0; c < width; ++c) {
      wanted_dx(i, c) = inverse * (dy(i, c) * scale(0, c) - mean_g - normed(i, c) * mean_gn);
    }
  }
  CAPTURE(rows);
  CAPTURE(width);
  CAPTURE(static_cast<int>(kind));
  normalise<S>(context, kind, static_cast<float>(epsilon), x.read(), scale.read(), shift.read(), y.view(), statistics.view());
  CHECK(error(y.now(), wanted) <= tolerance<S>);
  OnDevice<S> again(rows, width, layout);
  normalise<S>(context, kind, static_cast<float>(epsilon), x.read(), scale.read(), shift.read(), again.view(), {});
  CHECK(again.now() == y.now());

  // In rows of one or two elements nearly all of a gradient cancels: what is left is compared with what there was.
  double terms = 0, left = 0;
  for (Index i = 0; i < rows; ++i) {
    for (Index c = 0; c < width; ++c) {
      const double term = dy(i, c) * scale(0, c) / std::sqrt(epsilon);
      terms += term * term;
      left += wanted_dx(i, c) * wanted_dx(i, c);
    }
  }
  const double cancelled = width <= 2 ? std::sqrt(terms / left) : 1;
  // What passes by the norm comes in where parameters have gradients, and where they have none.
  OnDevice<S> passing(rows, width, layout, random);
  for (const Write write : {Write::overwrite, Write::add, Write::none}) {
    const bool skips = seed % 2 == 0;
    OnDevice<S> dx(rows, width, layout, [&](Index, Index) { return write == Write::overwrite ? not_a_number : 0.5; });
    OnDevice<float> ds(1, width, {}, [&](Index i, Index c) { return dscale(i, c); });
    OnDevice<float> dt(dshift.rows(), width, {}, [&](Index i, Index c) { return dshift(i, c); });
    const bool parameters = write != Write::add;
    normalise_backward<S>(context, kind, x.read(), scale.read(), statistics.read(), dy.read(), dx.view(), write,
                          parameters ? ds.view() : Rows<float>(), parameters ? dt.view() : Rows<float>(),
                          skips ? passing.read() : Rows<const S>());
    Doubles sum(rows, width);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < width; ++c)
        sum(i, c) =
            (write == Write::none ? 0 : wanted_dx(i, c) + (skips ? passing(i, c) : 0)) + (write == Write::overwrite ? 0 : 0.5);
    }
    CAPTURE(static_cast<int>(write));
    CHECK(error(dx.now(), sum) <= tolerance<S> * cancelled);
    if (parameters) {
      CHECK(error(ds.now(), wanted_dscale) <= 1e-5);
      if (dt.rows() > 0) CHECK(error(dt.now(), wanted_dshift) <= 1e-5);
    } else {
      Doubles before(1, width);
      for (Index c = 0; c < width; ++c) before(0, c) = dscale(0, c);
      CHECK(ds.now() == before.values);
    }
    OnDevice<float> once_more(1, width, {}, [&](Index i, Index c) { return dscale(i, c); });
    normalise_backward<S>(context, kind, x.read(), scale.read(), statistics.read(), dy.read(), {}, Write::none, once_more.view(),
                          {});
    if (parameters) CHECK(once_more.now() == ds.now());
  }
}

TEST_CASE_TEMPLATE("Layer norm", S, float, bf16) {
  Context context;
  context.poison(true);
  for (std::size_t s = 0; s < shapes.size(); ++s) check<S>(context, NormKind::layer, shapes[s], s + 1);
}

TEST_CASE_TEMPLATE("Root mean square norm", S, float, bf16) {
  Context context;
  context.poison(true);
  for (std::size_t s = 0; s < shapes.size(); ++s) check<S>(context, NormKind::root_mean_square, shapes[s], s + 100);
}

TEST_CASE_TEMPLATE("Norms at small shapes", S, float, bf16) {
  Context context;
  context.poison(true);
  for (const Index width : {1, 3, 40, 64, 1100}) {
    for (const NormKind kind : {NormKind::layer, NormKind::root_mean_square}) {
      check<S>(context, kind, {7, width, {}}, static_cast<std::uint64_t>(width));
      check<S>(context, kind, {65, width, {1, 2}}, static_cast<std::uint64_t>(width));
    }
  }
}

}  // namespace

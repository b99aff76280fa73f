// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include "cuda/support/matrices.cuh"

#include "coyote/operations/cuda/activation.cuh"
#include "coyote/operations/cuda/dropout.cuh"
#include "coyote/operations/cuda/rotary.cuh"
#include "coyote/operations/cuda/select.cuh"
#include "coyote/operations/cuda/token_shift.cuh"

namespace {

using namespace coyote_test;
using cy::bf16;
using cy::Write;
using Context = cy::Context<cy::Cuda>;

struct Shape {
  Index rows, width;
  Layout layout;
};
// Aligned and not, contiguous and not, wider than a block, fewer rows and more than one grid.
const std::vector<Shape> shapes = {{1, 1, {}},    {3, 2, {0, 1}},    {7, 8, {}},         {5, 64, {0, 8}},
                                   {33, 17, {}},  {2, 16, {1, 0}},   {64, 40, {3, 5}},   {129, 96, {0, 32}},
                                   {1, 4096, {}}, {9, 2056, {0, 8}}, {20011, 8, {0, 8}}, {3000, 67, {}}};

struct Wanted {
  double value;
};

/// Compares y (=|+=) f with what the device made of it.
template <class S, class F, class Run>
void check_map(const Shape& shape, std::uint64_t seed, F&& f, Run&& run) {
  for (const Write write : {Write::overwrite, Write::add, Write::none}) {
    Random random(seed);
    OnDevice<S> y(shape.rows, shape.width, shape.layout,
                  [&](Index i, Index c) { return write == Write::overwrite ? not_a_number : random(i, c); });
    Doubles wanted(shape.rows, shape.width);
    for (Index i = 0; i < shape.rows; ++i) {
      for (Index c = 0; c < shape.width; ++c)
        wanted(i, c) = write == Write::none ? y(i, c) : (write == Write::add ? y(i, c) : 0) + f(i, c);
    }
    run(y.view(), write);
    CAPTURE(shape.rows);
    CAPTURE(shape.width);
    CAPTURE(static_cast<int>(write));
    const auto got = y.now();
    CHECK(error(got, wanted) <= tolerance<S>);
  }
}

TEST_CASE_TEMPLATE("Elementwise operations", S, float, bf16) {
  Context context;
  std::uint64_t seed = 1;
  for (const Shape& shape : shapes) {
    Random random(++seed);
    OnDevice<S> a(shape.rows, shape.width, shape.layout, random), b(shape.rows, shape.width, shape.layout, random);
    check_map<S>(
        shape, 11, [&](Index i, Index c) { return a(i, c); },
        [&](Rows<S> y, Write write) {
          if (write == Write::overwrite) {
            copy<S>(context, a.read(), y);
          } else {
            assign<S>(context, a.read(), y, write);
          }
        });
    check_map<S>(
        shape, 12, [&](Index i, Index c) { return a(i, c) * b(i, c); },
        [&](Rows<S> y, Write write) { multiply<S>(context, a.read(), b.read(), y, write); });
    OnDevice<S> y(shape.rows, shape.width, shape.layout);
    add<S>(context, a.read(), b.read(), y.view());
    Doubles sum(shape.rows, shape.width), zero(shape.rows, shape.width);
    for (Index i = 0; i < shape.rows; ++i) {
      for (Index c = 0; c < shape.width; ++c) sum(i, c) = a(i, c) + b(i, c);
    }
    CHECK(error(y.now(), sum) <= tolerance<S>);
    clear<S>(context, y.view());
    CHECK(y.now() == zero.values);
  }
}

using DoubleMath = cy::ScalarMath<double>;

template <class S, class Function>
void check_activation(Context& context) {
  const Shape shape{63, 70, {0, 2}};
  Random random(3);
  // Far out, where exp overflows or a cube would.
  OnDevice<S> x(shape.rows, shape.width, shape.layout,
                [&](Index i, Index c) { return i == 0 ? (c % 2 == 0 ? 1.0 : -1.0) * std::pow(10.0, c % 20) : 3 * random(i, c); });
  OnDevice<S> dy(shape.rows, shape.width, shape.layout, random);
  OnDevice<S> y(shape.rows, shape.width, shape.layout);
  activate<S, Function>(context, x.read(), y.view());
  const auto got = y.now();
  REQUIRE(got.size() == static_cast<std::size_t>(shape.rows * shape.width));
  Doubles wanted(shape.rows, shape.width);
  for (Index i = 0; i < shape.rows; ++i) {
    for (Index c = 0; c < shape.width; ++c) {
      wanted(i, c) = Function::template value<DoubleMath>(x(i, c));
      const double come = got[static_cast<std::size_t>(i * shape.width + c)];
      CHECK(std::abs(come - wanted(i, c)) <= (sizeof(S) == 4 ? 1e-5 : 1e-2) * (1e-3 + std::abs(wanted(i, c))));
    }
  }
  check_map<S>(
      shape, 5, [&](Index i, Index c) { return dy(i, c) * Function::template derivative<DoubleMath>(x(i, c)); },
      [&](Rows<S> dx, Write write) { activate_backward<S, Function>(context, x.read(), dy.read(), dx, write); });
}

TEST_CASE_TEMPLATE("Activations", S, float, bf16) {
  Context context;
  check_activation<S, cy::functions::Silu>(context);
  check_activation<S, cy::functions::Gelu>(context);
  check_activation<S, cy::functions::Sigmoid>(context);
  check_activation<S, cy::functions::Relu>(context);
}

TEST_CASE_TEMPLATE("Dropout keeps what the host keeps", S, float, bf16) {
  Context context;
  for (const Shape& shape : shapes) {
    Random random(4);
    OnDevice<S> x(shape.rows, shape.width, shape.layout, [](Index, Index) { return 1.0; });
    const cy::DropoutRule rule(0.25, cy::Stream(cy::Seed{7}, cy::Purpose::dropout, 0x123456789ABCDEFull, 0x500000003ull));
    OnDevice<S> y(shape.rows, shape.width, shape.layout);
    drop<S>(context, rule, x.read(), y.view(), Write::overwrite);
    Doubles wanted(shape.rows, shape.width);
    for (Index i = 0; i < shape.rows; ++i) {
      for (Index c = 0; c < shape.width; ++c) {
        const bool keeps = rule.keeps(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(c));
        wanted(i, c) = keeps ? to_double(from_double<S>(static_cast<double>(static_cast<float>(rule.scale())))) : 0.0;
      }
    }
    CHECK(y.now() == wanted.values);
    check_map<S>(
        shape, 6, [&](Index i, Index c) { return wanted(i, c) * x(i, c); },
        [&](Rows<S> to, Write write) { drop<S>(context, rule, x.read(), to, write); });
  }
}

const std::vector<std::vector<Index>> batches = {{1},       {2, 2},       {5, 5, 5}, {3, 1, 2, 17}, {64, 64, 64, 64},
                                                 {1, 1, 1}, {500, 3, 250}};

TEST_CASE_TEMPLATE("Token shift", S, float, bf16) {
  Context context;
  std::uint64_t seed = 20;
  for (const auto& sizes : batches) {
    for (const auto& [width, layout] : {std::pair<Index, Layout>{1, {}}, {8, {}}, {64, {0, 64}}, {37, {1, 2}}, {1032, {}}}) {
      const DeviceSequences sequences(sizes);
      const cy::Batch& batch = sequences.batch();
      const Index rows = batch.rows();
      Random random(++seed);
      OnDevice<S> x(rows, width, layout, random), dy(rows, width, layout, random);
      OnDevice<float> mix(1, width, {}, random), rest(1, width, {}, random), dmix(1, width, {}, random);
      const auto before = [&](Index i) { return cy::position_of(batch, i) > 0; };
      check_map<S>(
          {rows, width, layout}, seed,
          [&](Index i, Index c) { return mix(0, c) * x(i, c) + (before(i) ? rest(0, c) * x(i - 1, c) : 0); },
          [&](Rows<S> y, Write write) {
            if (write == Write::overwrite) {
              token_shift<S>(context, batch, x.read(), mix.read(), rest.read(), y);
            } else {
              OnDevice<S> made(rows, width, layout);
              token_shift<S>(context, batch, x.read(), mix.read(), rest.read(), made.view());
              assign<S>(context, made.read(), y, write);
              context.synchronise();
            }
          });
      check_map<S>(
          {rows, width, layout}, seed,
          [&](Index i, Index c) {
            return mix(0, c) * dy(i, c) + (i + 1 < rows && before(i + 1) ? rest(0, c) * dy(i + 1, c) : 0);
          },
          [&](Rows<S> dx, Write write) {
            token_shift_backward<S>(context, batch, x.read(), mix.read(), rest.read(), dy.read(), dx, write, {});
          });
      token_shift_backward<S>(context, batch, x.read(), mix.read(), rest.read(), dy.read(), {}, Write::none, dmix.view());
      Doubles wanted(1, width);
      for (Index c = 0; c < width; ++c) wanted(0, c) = dmix(0, c);
      for (Index i = 0; i < rows; ++i) {
        for (Index c = 0; c < width; ++c) wanted(0, c) += dy(i, c) * (x(i, c) - (before(i) ? x(i - 1, c) : 0));
      }
      CHECK(error(dmix.now(), wanted) <= 1e-5);
    }
  }
}

TEST_CASE_TEMPLATE("Rows by a factor each", S, float, bf16) {
  Context context;
  for (const Shape& shape : shapes) {
    Random random(31);
    OnDevice<S> f(shape.rows, 1, {0, 2}, random), x(shape.rows, shape.width, shape.layout, random);
    OnDevice<S> dy(shape.rows, shape.width, shape.layout, random);
    OnDevice<unsigned char> picked(shape.rows, 1, {}, [](Index i, Index) { return i % 3 == 0 ? 1.0 : 0.0; });
    OnDevice<S> y(shape.rows, shape.width, shape.layout), dx(shape.rows, shape.width, shape.layout), df(shape.rows, 1, {0, 3});
    Doubles some(shape.rows, shape.width), all = some, slope = some, factor(shape.rows, 1);
    for (Index i = 0; i < shape.rows; ++i) {
      for (Index c = 0; c < shape.width; ++c) {
        all(i, c) = f(i, 0) * x(i, c);
        some(i, c) = i % 3 == 0 ? all(i, c) : 0;
        slope(i, c) = f(i, 0) * dy(i, c);
        factor(i, 0) += dy(i, c) * x(i, c);
      }
    }
    scale_rows<S>(context, f.read(), picked.read(), x.read(), y.view());
    CHECK(error(y.now(), some) <= tolerance<S>);
    scale_rows<S>(context, f.read(), {}, x.read(), y.view());
    CHECK(error(y.now(), all) <= tolerance<S>);
    scale_rows_backward<S>(context, f.read(), x.read(), dy.read(), dx.view(), df.view());
    CHECK(error(dx.now(), slope) <= tolerance<S>);
    CHECK(error(df.now(), factor) <= tolerance<S>);
  }
}

TEST_CASE_TEMPLATE("Rotation", S, float, bf16) {
  Context context;
  for (const auto& sizes : batches) {
    for (const auto& [heads, head_dim, layout] :
         {std::tuple<Index, Index, Layout>{1, 1, {}}, {2, 3, {}}, {2, 8, {0, 16}}, {3, 64, {}}, {4, 6, {1, 1}}}) {
      const DeviceSequences sequences(sizes);
      const Index rows = sequences.batch().rows(), width = heads * head_dim, first = 70000;
      Random random(41);
      OnDevice<S> x(rows, width, layout, random);
      for (const bool backwards : {false, true}) {
        OnDevice<S> y(rows, width, layout, [&](Index i, Index c) { return x(i, c); });
        const auto device_first = on_device({static_cast<std::int32_t>(first)});
        rotate<S>(context, sequences.batch(), heads, 10000, backwards ? first : 5, backwards, y.view(),
                  backwards ? nullptr : device_first.data());
        Doubles wanted(rows, width);
        for (Index i = 0; i < rows; ++i) {
          for (Index c = 0; c < width; ++c) {
            const Index in_head = c % head_dim, pair = in_head / 2;
            if (2 * pair + 1 >= head_dim) {
              wanted(i, c) = x(i, c);
              continue;
            }
            const double angle = static_cast<double>(first + cy::position_of(sequences.batch(), i)) *
                                 std::pow(10000.0, -2.0 * static_cast<double>(pair) / static_cast<double>(head_dim));
            const double cosine = std::cos(angle), sine = backwards ? -std::sin(angle) : std::sin(angle);
            wanted(i, c) = in_head % 2 == 0 ? x(i, c) * cosine - x(i, c + 1) * sine : x(i, c - 1) * sine + x(i, c) * cosine;
          }
        }
        CHECK(error(y.now(), wanted) <= tolerance<S>);
      }
    }
  }
}

TEST_CASE("The comparison rejects zeros, slight errors and NaN") {
  OnDevice<float> x(5, 7, {}, Random(1));
  std::vector<double> same = x.now(), wrong = same, poisoned = same;
  const std::vector<double> zeros(same.size(), 0.0);
  wrong[3] *= 1 + 1e-3;
  poisoned[4] = not_a_number;
  CHECK(error(same, same) <= 1e-5);
  CHECK_FALSE(error(zeros, same) <= 1e-2);
  CHECK_FALSE(error(wrong, same) <= 1e-5);
  CHECK_FALSE(error(poisoned, same) <= 1e-2);
}

}  // namespace

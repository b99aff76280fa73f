// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/wkv.cuh"

#include <doctest/doctest.h>
#include "coyote/operations/reference/wkv.hpp"
#include "cuda/support/matrices.cuh"

namespace {

using namespace coyote_test;
using cy::bf16;
using Context = cy::Context<cy::Cuda>;

struct Problem {
  std::vector<Index> sizes;
  Index width;
  Layout layout = {};
  double decay = -1, keys = 1;  // the mean logarithm of w, the spread of keys
  bool packed = false;
  double (*level)(Index row) = nullptr;  // what keys are spread around
};

/// On the host in double, by the definition.
struct Wanted {
  Doubles y, dk, dv, ddecay, dbonus;
};

Rows<double> view(Doubles& m) { return {m.values.data(), static_cast<Index>(m.values.size()) / m.width, m.width}; }

template <class S>
void check(Context& context, const Problem& problem, std::uint64_t seed, double tolerance, double of_gradients = 0) {
  if (of_gradients == 0) of_gradients = tolerance;
  const DeviceSequences sequences(problem.sizes, problem.packed);
  const cy::Batch& batch = sequences.batch();
  const Index rows = batch.rows(), width = problem.width;
  Random random(seed);
  OnDevice<S> k(rows, width, problem.layout, [&](Index i, Index c) {
    return (problem.level != nullptr ? problem.level(i) : 0) + problem.keys * random(i, c);
  });
  OnDevice<S> v(rows, width, problem.layout, random), dy(rows, width, problem.layout, random);
  OnDevice<float> decay(1, width, {}, [&](Index i, Index c) { return problem.decay + 0.5 * random(i, c); }),
      bonus(1, width, {}, random);
  OnDevice<float> ddecay(1, width, {}, random), dbonus(1, width, {}, random);
  const auto doubles = [](const auto& m) {
    Doubles result(m.rows(), m.width());
    for (Index i = 0; i < m.rows(); ++i) {
      for (Index c = 0; c < m.width(); ++c) result(i, c) = m(i, c);
    }
    return result;
  };
  Doubles w = doubles(decay), b = doubles(bonus), kd = doubles(k), vd = doubles(v), dyd = doubles(dy);
  Wanted wanted{Doubles(rows, width), Doubles(rows, width), Doubles(rows, width), doubles(ddecay), doubles(dbonus)};
  cy::Context<cy::Reference> host;
  wkv<double>(host, batch, view(w), view(b), view(kd), view(vd), view(wanted.y), {});
  wkv_backward<double>(host, batch, view(w), view(b), view(kd), view(vd), {}, view(dyd), view(wanted.dk), view(wanted.dv),
                       view(wanted.ddecay), view(wanted.dbonus));

  CAPTURE(rows);
  CAPTURE(batch.length);
  CAPTURE(batch.offsets.size());
  CAPTURE(width);
  CAPTURE(problem.decay);
  CAPTURE(problem.keys);
  OnDevice<S> y(rows, width, problem.layout), dk(rows, width, problem.layout), dv(rows, width, problem.layout);
  OnDevice<float> checkpoints(wkv_checkpoints(context, batch), 3 * width);
  wkv<S>(context, batch, decay.read(), bonus.read(), k.read(), v.read(), y.view(), checkpoints.view());
  const auto got = y.now();
  CHECK(error(got, wanted.y) <= tolerance);
  OnDevice<S> inferred(rows, width, problem.layout);
  wkv<S>(context, batch, decay.read(), bonus.read(), k.read(), v.read(), inferred.view(), {});
  CHECK(inferred.now() == got);
  const auto backward = [&](OnDevice<float>& to_decay, OnDevice<float>& to_bonus, bool both) {
    wkv_backward<S>(context, batch, decay.read(), bonus.read(), k.read(), v.read(), checkpoints.read(), dy.read(), dk.view(),
                    dv.view(), both ? to_decay.view() : Rows<float>(), to_bonus.view());
  };
  OnDevice<float> again(1, width, {}, [&](Index i, Index c) { return dbonus(i, c); }), unused;
  backward(ddecay, dbonus, true);
  CHECK(error(dk.now(), wanted.dk) <= of_gradients);
  CHECK(error(dv.now(), wanted.dv) <= of_gradients);
  // At width 1 this is one number, a sum most of which cancels.
  CHECK(error(ddecay.now(), wanted.ddecay) <= (sizeof(S) == 4 ? 3 * of_gradients : 1e-3));
  CHECK(error(dbonus.now(), wanted.dbonus) <= (sizeof(S) == 4 ? of_gradients : 1e-3));
  const auto dk_first = dk.now();
  backward(unused, again, false);
  CHECK(dk.now() == dk_first);
  CHECK(again.now() == dbonus.now());
}

TEST_CASE_TEMPLATE("Wkv and its gradients", S, float, bf16) {
  Context context;
  context.poison(true);
  const double tolerance = coyote_test::tolerance<S>;
  std::uint64_t seed = 0;
  for (const auto& sizes : {std::vector<Index>{1},
                            {2},
                            {3, 3},
                            {7, 8, 9},
                            {8},
                            {13, 1, 64, 65},
                            {63},
                            {64, 64},
                            {65},
                            {100, 100, 100},
                            {257},
                            {1000, 3}}) {
    for (const auto& [width, layout] : {std::pair<Index, Layout>{1, {}}, {2, {0, 2}}, {64, {}}, {67, {1, 2}}, {130, {0, 62}}}) {
      check<S>(context, {sizes, width, layout}, ++seed, tolerance);
      check<S>(context, {sizes, width, layout, -3, 3, true}, ++seed, tolerance);
    }
  }
  // Few channels: a team of blocks for a sequence.
  check<S>(context, {{4096}, 64}, 1001, tolerance);
  check<S>(context, {{5000, 5000}, 34}, 1002, tolerance);
  check<S>(context, {{3000, 17, 1, 2999}, 96, {0, 32}}, 1003, tolerance);
  // Many: one block each.
  check<S>(context, {std::vector<Index>(150, 70), 256}, 1004, tolerance);
}

TEST_CASE_TEMPLATE("Wkv at small shapes", S, float, bf16) {
  Context context;
  context.poison(true);
  const double tolerance = coyote_test::tolerance<S>;
  for (const Index width : {1, 40, 64}) {
    check<S>(context, {{1, 7, 65}, width, {1, 2}}, static_cast<std::uint64_t>(width), tolerance);
    check<S>(context, {{3, 3}, width}, static_cast<std::uint64_t>(width), tolerance);
  }
}

// By itself: racecheck reports races over barriers of which some threads only say that they have come.
TEST_CASE_TEMPLATE("Wkv of small teams", S, float, bf16) {
  Context context;
  context.poison(true);
  check<S>(context, {{1500}, 64}, 1, coyote_test::tolerance<S>);
}

TEST_CASE_TEMPLATE("Wkv of extreme keys and decays", S, float, bf16) {
  Context context;
  context.poison(true);
  // Keys whose exponentials overflow; exponents of that size are themselves rounded to 1e-5.
  check<S>(context, {{300, 40}, 66, {}, -1, 60}, 1, sizeof(S) == 4 ? 3e-4 : 1e-2);
  check<S>(context, {{300, 40}, 66, {}, 6, 1}, 2, tolerance<S>);                // forgets at once
  check<S>(context, {{300, 40}, 66, {}, 100, 1}, 3, tolerance<S>);              // the decay is infinite
  check<S>(context, {{700}, 66, {}, -30, 1}, 4, sizeof(S) == 4 ? 3e-5 : 1e-2);  // never forgets
}

// Slices whose keys are near one another and slices whose are not, states far above and far below them, in blocks and teams.
TEST_CASE_TEMPLATE("Wkv of keys that jump", S, float, bf16) {
  Context context;
  context.poison(true);
  const auto in_turn = [](Index i) { return i % 7 == 3 ? 200.0 : i % 11 == 5 ? -200.0 : 0.0; };
  const auto up_and_down = [](Index i) { return i % 100 < 37 ? -200.0 : i % 100 < 70 ? 0.0 : 200.0; };
  const auto climb = [](Index i) { return 3.0 * static_cast<double>(i % 190); };
  const auto fall = [](Index i) { return -3.0 * static_cast<double>(i % 190); };
  const auto high = [](Index) { return 300.0; };
  const auto low = [](Index) { return -800.0; };
  const auto one_high = [](Index i) { return i == 5 ? 100.0 : 0.0; };
  const double gradients = sizeof(S) == 4 ? 3e-4 : 1e-2;
  std::uint64_t seed = 2000;
  for (const auto level : std::initializer_list<double (*)(Index)>{in_turn, up_and_down, climb, fall, high, low, one_high}) {
    for (const double decay : {-30.0, -3.0, 0.0, 2.3, 6.0}) {
      CAPTURE(seed);
      for (const double keys : {0.0, 1.0}) {
        check<S>(context, {{300, 41}, 66, {}, decay, keys, false, level}, ++seed, tolerance<S>, gradients);
        check<S>(context, {{3000}, 34, {}, decay, keys, false, level}, ++seed, tolerance<S>, gradients);
      }
    }
  }
}

TEST_CASE_TEMPLATE("Wkv step by step", S, float, bf16) {
  Context context;
  const Index sequences = 3, length = 50, width = 37;
  Random random(5);
  OnDevice<S> k(sequences * length, width, {}, random), v(sequences * length, width, {}, random), y(sequences * length, width),
      now(sequences, width);
  OnDevice<float> decay(1, width, {}, random), bonus(1, width, {}, random);
  OnDevice<float> state(sequences, 3 * width, {}, [&](Index, Index c) { return c < 2 * width ? 0.0 : cy::empty_exponent; });
  const cy::Batch batch{.sequences = sequences, .length = length};
  wkv<S>(context, batch, decay.read(), bonus.read(), k.read(), v.read(), y.view(), {});
  const auto wanted = y.now();
  for (Index i = 0; i < length; ++i) {
    // Row i of every sequence: views of rows that stand `length` apart.
    const auto row = [&](Rows<const S> m) { return Rows<const S>(m.row(i), sequences, width, length * m.stride); };
    wkv_step<S>(context, state.view(), decay.read(), bonus.read(), row(k.read()), row(v.read()), now.view());
    const auto got = now.now();
    std::vector<double> part;
    for (Index s = 0; s < sequences; ++s) {
      for (Index c = 0; c < width; ++c) part.push_back(wanted[static_cast<std::size_t>((s * length + i) * width + c)]);
    }
    CHECK(error(got, part) <= (sizeof(S) == 4 ? 1e-5 : 1e-2));
  }
}

TEST_CASE("The comparison rejects a decay that is slightly wrong") {
  Context context;
  Random random(6);
  OnDevice<float> k(200, 8, {}, random), v(200, 8, {}, random), y(200, 8), wrong(200, 8), bonus(1, 8, {}, random);
  OnDevice<float> decay(1, 8, {}, [](Index, Index) { return -1.0; }), other(1, 8, {}, [](Index, Index) { return -1.01; });
  const cy::Batch batch{.sequences = 1, .length = 200};
  wkv<float>(context, batch, decay.read(), bonus.read(), k.read(), v.read(), y.view(), {});
  wkv<float>(context, batch, other.read(), bonus.read(), k.read(), v.read(), wrong.view(), {});
  CHECK_FALSE(error(wrong.now(), y.now()) <= 1e-5);
}

}  // namespace

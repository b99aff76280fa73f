// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/combinators/select.hpp"

#include "coyote/mixers/attention.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/operations/cpu/activation.hpp"
#include "coyote/operations/cpu/attention.hpp"
#include "coyote/operations/cpu/linear.hpp"
#include "coyote/operations/cpu/short_convolution.hpp"
#include "support/conformance.hpp"

namespace {

/// A user's selector: every other row, beginning with the first, at a score that is a parameter.
struct EveryOther {
  struct Options {};
  static constexpr bool is_causal = false;  // it looks at positions, which `picks` is not told
  static constexpr coyote::Index rows(coyote::Index length, const Options&) { return (length + 1) / 2; }
  static constexpr coyote::Cost cost(coyote::Dimensions, const Options&) { return {.parameters = 1}; }
};

}  // namespace

template <class Backend, class S>
class coyote::Picker<EveryOther, Backend, S> {
 public:
  using Saved = NothingSaved;
  Picker(Dimensions, const EveryOther::Options&, Path path) : path_(path), level_(1, 1, Init::constant(0.25)) {}
  template <class V>
  void visit(V& v) {
    visit_parameter(v, path_ / "level", level_);
  }
  void score(Context<Backend>&, const Batch&, Rows<const S>, Rows<S> f, Saved&) const {
    for (Index i = 0; i < f.rows; ++i) f(i, 0) = level_.value(0, 0);
  }
  void backward(Context<Backend>&, const Batch&, Rows<S> df, Rows<S> du, Write write, Saved&) const {
    for (Index i = 0; i < df.rows; ++i) level_.gradient(0, 0) += df(i, 0);
    if (write == Write::overwrite) {
      for (Index i = 0; i < du.rows; ++i) std::fill_n(du.row(i), du.width, S{});
    }
  }
  void penalise(Context<Backend>&, const Batch&, Rows<const S>) const {}
  void penalise_backward(Context<Backend>&, const Batch&, Rows<const S>, Rows<S>) const {}
  void pick(Context<Backend>&, const Batch& batch, Rows<const S>, Rows<unsigned char> picked) const {
    for (Index s = 0; s < batch.sequences; ++s) {
      for (Index i = 0; i < batch.size(s); ++i) picked(batch.begin(s) + i, 0) = i % 2 == 0;
    }
  }

 private:
  Path path_;
  Parameter<parameter_t<S>> level_;
};

namespace {

using namespace coyote;
using namespace coyote::test;

using Dense1 = Attention<Heads<1>, Dense>;

/// Scores and A(u) of a bench, by the public parts.
template <class M, class A, class Backend, class S>
struct Parts {
  std::vector<double> f;
  Matrix<S> mixed;

  Parts(Bench<M, Backend, S>& bench, Bench<A, Backend, S>& inner, const Batch& batch, Rows<const S> u) {
    const auto all = parameters_of<S>(bench.layer);
    REQUIRE(all[0].name == "test.selector.weight");
    for (Index i = 0; i < u.rows; ++i) {
      double sum = 0;
      for (Index c = 0; c < u.width; ++c) sum += static_cast<double>(u(i, c)) * static_cast<double>(all[0].value(c, 0));
      f.push_back(1 / (1 + std::exp(-sum)));
    }
    const auto mine = parameters_of<S>(inner.layer);
    REQUIRE(mine.size() + 1 == all.size());
    for (std::size_t p = 0; p < mine.size(); ++p) {
      for (Index r = 0; r < mine[p].value.rows; ++r) {
        for (Index c = 0; c < mine[p].value.width; ++c) mine[p].value(r, c) = all[p + 1].value(r, c);
      }
    }
    mixed = inner.run(batch, u, u, 1, Mode::inference).y;
  }
};

template <class A, class Backend, class S>
void selects() {
  using M = Select<TopRows<>, A>;
  const Packed packed({17, 1, 9, 2, 10});
  const Batch batch = packed.view();
  const Index width = 6;
  Bench<M, Backend, S> bench({width, 17}, {});
  Bench<A, Backend, S> inner({width, 17}, {});
  const Matrix<S> u = random_matrix<S>(batch.rows(), width, 1);
  const Parts<M, A, Backend, S> parts(bench, inner, batch, u);
  std::vector<double> all, some;
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index n = batch.size(s), k = static_cast<Index>(std::ceil(std::sqrt(static_cast<double>(n))));
    Index kept = 0;
    for (Index i = batch.begin(s); i < batch.end(s); ++i) {
      Index better = 0;
      for (Index j = batch.begin(s); j < batch.end(s); ++j) {
        if (parts.f[static_cast<std::size_t>(j)] > parts.f[static_cast<std::size_t>(i)]) ++better;
      }
      if (better < k) ++kept;
      for (Index c = 0; c < width; ++c) {
        all.push_back(parts.f[static_cast<std::size_t>(i)] * static_cast<double>(parts.mixed(i, c)));
        some.push_back(better < k ? all.back() : 0.0);
      }
    }
    CHECK(kept == k);
  }
  const auto training = bench.run(batch, u, u.view()).y, inference = bench.run(batch, u, u.view(), 1, Mode::inference).y;
  CHECK(relative_error(training, all) <= Tolerance<S>::forward);
  CHECK(relative_error(inference, some) <= Tolerance<S>::forward);
  CHECK_FALSE(relative_error(training, some) <= Tolerance<S>::forward);
  CHECK_FALSE(relative_error(inference, all) <= Tolerance<S>::forward);
}

TEST_CASE("all rows in training, the best k in inference") {
  selects<ShortConv<2>, Reference, double>();
  selects<ShortConv<2>, Cpu, float>();
  selects<Dense1, Cpu, double>();
}

/// The training loss sum(weights * y) + penalty, whose gradient backward has to be.
template <class M, class Backend>
double loss(Bench<M, Backend, double>& bench, const Batch& batch, Rows<const double> u, const Matrix<double>& weights) {
  Context<Backend> context = ContextFor<Backend>::make(1);
  context.mode = Mode::training;
  typename Layer<M, Backend, double>::Saved saved;
  Matrix<double> y(u.rows, weights.width());
  bench.layer.forward(context, batch, u, y, saved);
  double sum = context.auxiliary_loss;
  for (Index i = 0; i < y.size(); ++i) sum += y.data()[i] * weights.data()[i];
  return sum;
}

template <class Backend, class M>
void differentiates(const typename M::Options& options) {
  const Packed packed({7, 1, 5, 9});
  const Batch batch = packed.view();
  const Index width = 5;
  Bench<M, Backend, double> bench({width, 9}, options);
  Matrix<double> u = random_matrix<double>(batch.rows(), width, 1), numeric = u;
  const auto weights = random_matrix<double>(batch.rows(), width, 2);
  const auto r = bench.run(batch, u, weights.view(), 2);
  const double h = 1e-5;
  const auto slope = [&](double& x) {
    const double value = x;
    x = value + h;
    const double above = loss<M, Backend>(bench, batch, u, weights);
    x = value - h;
    const double below = loss<M, Backend>(bench, batch, u, weights);
    x = value;
    return (above - below) / (2 * h);
  };
  for (Index i = 0; i < u.size(); ++i) numeric.data()[i] = slope(u.data()[i]);
  CHECK(relative_error(r.du, numeric) <= 1e-6);
  auto differences = r.gradients;
  for (const Segment& segment : bench.store.segments()) {
    for (Index i = segment.begin; i < segment.begin + segment.size; ++i) {
      differences[static_cast<std::size_t>(i)] = slope(bench.store.values()[i]);
    }
  }
  CHECK(relative_error(r.gradients, differences) <= 1e-6);
  CHECK_FALSE(relative_error(std::vector<double>(differences.size()), differences) <= 1e-6);
}

TEST_CASE("gradients include the penalty's") {
  differentiates<Reference, Select<TopRows<>, ShortConv<2>>>({.selector = {.penalty = 3}});
  differentiates<Cpu, Select<TopRows<FixedRows<2>>, ShortConv<2>>>({.selector = {.penalty = 3}});
  differentiates<Cpu, Select<ThresholdRows<>, Dense1>>({.selector = {.penalty = 3}});
  differentiates<Cpu, Select<EveryOther, ShortConv<2>>>({});
}

TEST_CASE("the penalty is lambda relu(mean f - k / n), averaged over sequences") {
  using M = Select<TopRows<>, ShortConv<1>>;
  const Packed packed({16, 4, 1});
  const Batch batch = packed.view();
  Bench<M, Cpu, double> bench({2, 16}, {.selector = {.penalty = 0.5}});
  for (double& x : bench.store.values()) x = 0;  // f = 1/2 everywhere
  const Matrix<double> u = random_matrix<double>(batch.rows(), 2, 1), weights(batch.rows(), 2);
  // 16 rows: 1/2 - 4/16; 4 rows: 1/2 - 2/4; 1 row: 1/2 - 1 < 0.
  CHECK(loss<M, Cpu>(bench, batch, u, weights) == doctest::Approx(0.5 * 0.25 / 3));
  Context<Cpu> context(1);
  Matrix<double> y(batch.rows(), 2);
  Layer<M, Cpu, double>::Saved saved;
  bench.layer.forward(context, batch, u, y, saved);
  CHECK(context.auxiliary_loss == 0);
}

TEST_CASE("equal scores: the earlier rows; NaN last; a user's selector") {
  using M = Select<TopRows<FixedRows<2>>, ShortConv<1>>;
  Bench<M, Cpu, float> bench({2, 5}, {});
  for (float& x : bench.store.values()) x = 0;
  parameters_of<float>(bench.layer)[1].value(0, 0) = 1;
  Matrix<float> u(5, 2);
  for (float& x : u) x = 1;
  const auto rows_kept = [&] {
    const auto y = bench.run({.sequences = 1, .length = 5}, u, u.view(), 1, Mode::inference).y;
    std::vector<Index> rows;
    for (Index i = 0; i < 5; ++i) {
      if (y(i, 0) != 0) rows.push_back(i);
    }
    return rows;
  };
  CHECK(rows_kept() == std::vector<Index>{0, 1});
  parameters_of<float>(bench.layer)[0].value(1, 0) = 1;
  u(3, 1) = 2;
  u(0, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK(rows_kept() == std::vector<Index>{1, 3});

  Bench<Select<EveryOther, ShortConv<1>>, Cpu, float> own({2, 5}, {});
  const auto x = random_matrix<float>(5, 2, 1);
  const auto training = own.run({.sequences = 1, .length = 5}, x, x.view()).y;
  const auto inference = own.run({.sequences = 1, .length = 5}, x, x.view(), 1, Mode::inference).y;
  for (Index i = 0; i < 5; ++i) {
    CHECK(training(i, 0) != 0);
    CHECK(inference(i, 0) == (i % 2 == 0 ? training(i, 0) : 0));
  }
}

template <class A, class Backend, class S>
void steps() {
  using M = Select<ThresholdRows<>, A>;
  const Index n = 20, width = 6, sequences = 3;
  Bench<M, Backend, S> bench({width, n}, {.selector = {.threshold = 0.5}});
  const Batch batch{.sequences = sequences, .length = n};
  const Matrix<S> u = random_matrix<S>(sequences * n, width, 1);
  const auto forward = bench.run(batch, u, u.view(), 1, Mode::inference).y;
  Context<Backend> context = ContextFor<Backend>::make(1);
  auto state = bench.layer.make_state({.sequences = sequences, .capacity = n});
  Matrix<S> y(sequences * n, width), u_t(sequences, width), y_t(sequences, width);
  Index kept = 0;
  for (Index i = 0; i < n; ++i) {
    for (Index s = 0; s < sequences; ++s) {
      for (Index c = 0; c < width; ++c) u_t(s, c) = u(s * n + i, c);
    }
    bench.layer.step(context, state, {.position = i}, u_t, y_t);
    for (Index s = 0; s < sequences; ++s) {
      for (Index c = 0; c < width; ++c) y(s * n + i, c) = y_t(s, c);
      kept += y_t(s, 0) != S(0);
    }
  }
  CHECK(relative_error(y, forward) <= 10 * Tolerance<S>::forward);
  CHECK(kept > 0);
  CHECK(kept < sequences * n);
  // Calibrated on its own scores, it keeps the number that was asked for.
  Matrix<S> f(sequences * n, 1);
  bench.layer.scores(context, batch, u, f);
  for (const double wanted : {0.0, 1.0, 4.0, 20.0}) {
    bench.layer.selector().set_threshold(calibrate_threshold<S>({f.data(), sequences, n}, wanted));
    const auto chosen = bench.run(batch, u, u.view(), 1, Mode::inference).y;
    Index rows = 0;
    for (Index i = 0; i < sequences * n; ++i) rows += chosen(i, 0) != S(0);
    CHECK(rows == static_cast<Index>(wanted) * sequences);
  }
}

TEST_CASE("with a threshold it decodes row by row") {
  steps<ShortConv<3>, Reference, double>();
  steps<Dense1, Cpu, float>();
}

TEST_CASE("calibration refuses what it cannot do") {
  const Matrix<double> none, ties = [] {
    Matrix<double> m(2, 3);
    for (double& x : m) x = 0.5;
    return m;
  }();
  CHECK_THROWS_AS(calibrate_threshold<double>(none, 1), Error);
  CHECK_THROWS_AS(calibrate_threshold<double>(ties, 4), Error);
  CHECK_THROWS_AS(calibrate_threshold<double>(ties, -1), Error);
  CHECK(calibrate_threshold<double>(ties, 1) == 0.5);
  Matrix<double> nan = ties;
  nan(1, 1) = NAN;
  CHECK_THROWS_AS(calibrate_threshold<double>(nan, 1), Error);
  using M = Select<ThresholdRows<>, ShortConv<1>>;
  CHECK_THROWS_AS((Layer<M, Cpu, float>({4, 4}, {.selector = {.penalty = -1}}, Path("select"))), Error);
}

TEST_CASE("facts, and the textbook's cost") {
  using Top = Select<TopRows<>, Dense1>;
  using Threshold = Select<ThresholdRows<>, Dense1>;
  static_assert(!is_causal<Top> && is_causal<Threshold> && is_input_dependent<Top> && degree<Top>.is_infinite());
  static_assert(!state_is_bounded<Threshold> && state_is_bounded<Select<ThresholdRows<>, ShortConv<3>>>);
  const Index n = 30, d = 8, k = 6, e = 25 + 26 + 27 + 28 + 29 + 30;
  CHECK(cost<Top>(d, n) == Cost{.parameters = 4 * d * d + 5 * d,
                                .multiplications = n * d + 2 * n * d * d + 2 * k * d * d + 2 * d * e,
                                .additions = n * (d - 1) + 2 * n * d * d + 2 * k * d * d + (d - 1) * e + (d + 1) * (e - k),
                                .functions = n + 2 * e,
                                .state_scalars = 2 * n * d,
                                .worst_case = true});
  CHECK(cost<Top>(d, n, 50).multiplications == n * d + 2 * n * d * d + 2 * k * d * d + 2 * d * 50);
  CHECK_FALSE(cost<Top>(d, n, 50).worst_case);
  static_assert(SquareRootRows::chosen(1) == 1 && SquareRootRows::chosen(16) == 4 && SquareRootRows::chosen(17) == 5);
  static_assert(FixedRows<3>::chosen(2) == 2);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/operations/cpu/linear.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/worst_error.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

/// A matrix of small random numbers with `gap` unused columns behind each row, which must stay as they are.
template <class S>
struct Strided {
  Strided(Index rows, Index width, Index gap, std::uint64_t name) : values(rows, width + gap) {
    const Stream stream(Seed{7}, Purpose::test, name);
    for (Index i = 0; i < values.size(); ++i) {
      values.data()[i] = static_cast<S>(2 * stream.uniform(static_cast<std::uint64_t>(i)) - 1);
    }
    columns = width;
  }
  operator Rows<S>() { return values.view().columns(0, columns); }
  operator Rows<const S>() const { return values.view().columns(0, columns); }
  Rows<const S> view() const { return *this; }
  Matrix<S> values;
  Index columns = 0;
};

template <class S>
constexpr double tolerance = sizeof(S) == 4 ? 2e-6 : 4e-15;

/// initial + sum_p a(i, p) b(p, j) as plain loops in double.
template <class A, class B, class Init>
std::vector<double> plain(Index rows, Index depth, Index width, A a, B b, Init init) {
  std::vector<double> c;
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < width; ++j) {
      double sum = init(i, j);
      for (Index p = 0; p < depth; ++p) sum += static_cast<double>(a(i, p)) * static_cast<double>(b(p, j));
      c.push_back(sum);
    }
  }
  return c;
}

template <class S>
void check_products(Index m, Index k, Index n, Index gap) {
  CAPTURE(m);
  CAPTURE(k);
  CAPTURE(n);
  CAPTURE(gap);
  const Strided<S> a(m, k, gap, 1), at(k, m, gap, 2), b(k, n, gap, 3), bt(n, k, gap, 4);
  for (const Write write : {Write::overwrite, Write::add}) {
    const Strided<S> before(m, n, gap, 5);
    const auto init = [&](Index i, Index j) { return write == Write::add ? static_cast<double>(before.values(i, j)) : 0.0; };
    const double allowed = tolerance<S> * static_cast<double>(k + 1);
    Strided<S> c = before;
    cpu::product<S>(a, b, c, write);
    const auto expected = plain(m, k, n, a.values.view(), b.values.view(), init);
    CHECK(worst_error<S>(expected, c) <= allowed);
    for (Index i = 0; i < m; ++i) {
      for (Index g = 0; g < gap; ++g) REQUIRE(c.values(i, n + g) == before.values(i, n + g));
    }
    if (m * n > 1) {
      const Matrix<S> zero(m, n);
      CHECK_FALSE(worst_error<S>(expected, zero) <= allowed);
      Strided<S> wrong = c;
      wrong.values(m - 1, n - 1) += S(0.01) * static_cast<S>(k + 1);
      CHECK_FALSE(worst_error<S>(expected, wrong) <= allowed);
      wrong.values(m - 1, n - 1) = std::numeric_limits<S>::quiet_NaN();
      CHECK_FALSE(worst_error<S>(expected, wrong) <= allowed);
    }
    c = before;
    cpu::product_nt<S>(a, bt, c, write);
    CHECK(worst_error<S>(plain(
                             m, k, n, a.values.view(), [&](Index p, Index j) { return bt.values(j, p); }, init),
                         c) <= allowed);
    c = before;
    cpu::product_tn<S>(at, b, c, write);
    CHECK(worst_error<S>(plain(
                             m, k, n, [&](Index i, Index p) { return at.values(p, i); }, b.values.view(), init),
                         c) <= allowed);
    c = before;
    cpu::product<S>(a, b, c, Write::none);
    CHECK(worst_error<S>(plain(m, 0, n, a.values.view(), b.values.view(), [&](Index i, Index j) { return before.values(i, j); }),
                         c) <= 0);
  }
}

TEST_CASE_TEMPLATE("block products equal plain loops for odd sizes and strides", S, float, double) {
  for (const Index m : {1, 2, 5, 12, 23, 64}) {
    for (const Index k : {1, 3, 16, 65}) {
      for (const Index n : {1, 8, 17, 33, 64}) check_products<S>(m, k, n, (m + k) % 2 == 0 ? 0 : 3);
    }
  }
  check_products<S>(50, 300, 40, 300);  // several panels of the inner dimension, far rows
  check_products<S>(3, 513, 70, 0);
}

template <class S>
void check_linear(const Batch& batch, Index in, Index out, Index bias_rows, Index threads) {
  CAPTURE(in);
  CAPTURE(out);
  CAPTURE(bias_rows);
  const Index rows = batch.rows();
  const Strided<S> x(rows, in, 2, 1), weight(in, out, 1, 2), bias(bias_rows, out, 1, 3), dy(rows, out, 3, 4);
  std::vector<Index> position;
  for (Index s = 0; s < batch.sequences; ++s) {
    for (Index i = 0; i < batch.size(s); ++i) position.push_back(i);
  }
  const auto bias_at = [&](Index i, Index j) {
    if (bias_rows == 0) return 0.0;
    return static_cast<double>(bias.values(bias_rows == 1 ? 0 : position[static_cast<std::size_t>(i)], j));
  };
  const double allowed = tolerance<S> * static_cast<double>(in + out),
               allowed_sum = tolerance<S> * (20 + static_cast<double>(rows) / 4);
  Context<Cpu> ctx(threads);
  ctx.poison(true);
  Strided<S> y(rows, out, 1, 5);
  linear<S>(ctx, batch, x, weight, bias, y);
  CHECK(worst_error<S>(plain(rows, in, out, x.values.view(), weight.values.view(), bias_at), y) <= allowed);

  for (const Write write : {Write::overwrite, Write::add, Write::none}) {
    Strided<S> dx(rows, in, 1, 6), dweight(in, out, 2, 7), dbias(bias_rows, out, 1, 8);
    const Strided<S> dx0 = dx, dweight0 = dweight, dbias0 = dbias;
    linear_backward<S>(ctx, batch, x, weight, dy, dx, write, dweight, dbias);
    const Index depth = write == Write::none ? 0 : out;
    const auto init = [&](Index i, Index j) { return write == Write::overwrite ? 0.0 : static_cast<double>(dx0.values(i, j)); };
    CHECK(worst_error<S>(plain(
                             rows, depth, in, dy.values.view(), [&](Index p, Index j) { return weight.values(j, p); }, init),
                         dx) <= allowed);
    CHECK(worst_error<S>(plain(
                             in, rows, out, [&](Index i, Index p) { return x.values(p, i); }, dy.values.view(),
                             [&](Index i, Index j) { return dweight0.values(i, j); }),
                         dweight) <= allowed_sum);
    std::vector<double> sums;
    for (Index i = 0; i < bias_rows; ++i) {
      for (Index c = 0; c < out; ++c) sums.push_back(static_cast<double>(dbias0.values(i, c)));
    }
    for (Index i = 0; bias_rows > 0 && i < rows; ++i) {
      const Index to = bias_rows == 1 ? 0 : position[static_cast<std::size_t>(i)];
      for (Index c = 0; c < out; ++c) sums[static_cast<std::size_t>(to * out + c)] += static_cast<double>(dy.values(i, c));
    }
    CHECK(worst_error<S>(sums, dbias) <= allowed_sum);
    // Absent gradients.
    Strided<S> again(rows, in, 1, 6);
    linear_backward<S>(ctx, batch, x, weight, dy, again, write, Rows<S>{}, Rows<S>{});
    CHECK(std::equal(again.values.begin(), again.values.end(), dx.values.begin()));
  }
}

TEST_CASE_TEMPLATE("linear and its gradient equal plain loops", S, float, double) {
  const std::vector<Index> offsets = {0, 1, 70, 75, 305};
  const Batch packed{.sequences = 4, .length = 230, .offsets = offsets};
  for (const Index bias : {0, 1, 230, 240}) {
    check_linear<S>(packed, 5, 33, bias, 2);
    check_linear<S>(packed, 64, 64, bias, 1);
  }
  check_linear<S>(packed, 300, 290, 1, 2);  // several blocks of the inner dimension and groups of columns, far rows
  check_linear<S>(packed, 290, 31, 0, 2);
  check_linear<S>(packed, 33, 600, 230, 2);
  check_linear<S>(Batch{.sequences = 3, .length = 7}, 17, 3, 7, 2);
  check_linear<S>(Batch{.sequences = 1, .length = 1}, 64, 192, 1, 2);
}

void check_threads(Index in, Index out) {
  const Batch batch{.sequences = 5, .length = 1001};
  const Index rows = batch.rows();
  const Strided<float> x(rows, in, 0, 1), weight(in, out, 0, 2), bias(1, out, 0, 3), dy(rows, out, 0, 4);
  std::vector<std::vector<float>> results;
  for (const Index threads : {1, 3}) {
    Context<Cpu> ctx(threads);
    Matrix<float> y(rows, out), dx(rows, in), dweight(in, out), dbias(1, out);
    linear<float>(ctx, batch, x, weight, bias, y);
    linear_backward<float>(ctx, batch, x, weight, dy, dx, Write::overwrite, dweight, dbias);
    std::vector<float>& all = results.emplace_back();
    for (const Matrix<float>* m : {&y, &dx, &dweight, &dbias}) all.insert(all.end(), m->begin(), m->end());
  }
  CHECK(results[0] == results[1]);
  results[1][17] += 1e-6f;
  CHECK(results[0] != results[1]);
}

TEST_CASE("linear does not depend on the number of threads") {
  check_threads(20, 72);
  check_threads(300, 513);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include "coyote/operations/cuda/linear.cuh"

#include "coyote/operations/reference/linear.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

Matrix<double> widen(const Matrix<float>& m) {
  Matrix<double> wide(m.rows(), m.width());
  for (Index i = 0; i < m.size(); ++i) wide.data()[i] = m.data()[i];
  return wide;
}

/// Forward and backward of one map against loops in double, with rows that begin off boundaries when `gap` is odd.
template <class S>
void agrees(Index rows, Index in, Index out, Index gap, bool biased, double tolerance) {
  CAPTURE(rows);
  CAPTURE(in);
  CAPTURE(out);
  CAPTURE(gap);
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  const Batch batch{.sequences = 1, .length = rows};
  const Matrix<float> x = random_matrix<S>(rows, in, 1), w = random_matrix<S>(in, out, 2, 0.1), b = random_matrix<S>(1, out, 3),
                      dy = random_matrix<S>(rows, out, 4), before = random_matrix<S>(rows, in, 5);
  const DeviceMatrix<S> x_(x.view(), in + gap, gap), dy_(dy.view(), out + gap, gap);
  const DeviceMatrix<float> w_(w.view()), b_(b.view());
  DeviceMatrix<S> y_(rows, out), dx_(before.view());
  DeviceMatrix<float> dw_(w.view()), db_(b.view());
  linear<S>(context, batch, x_.view().columns(gap, in), w_, biased ? b_.view() : Rows<const float>(), y_);
  linear_backward<S>(context, batch, x_.view().columns(gap, in), w_, dy_.view().columns(gap, out), dx_, Write::add, dw_,
                     biased ? db_.view() : Rows<float>());
  Context<Reference> plain;
  const Matrix<double> xd = widen(x), wd = widen(w), bd = widen(b), dyd = widen(dy);
  Matrix<double> y(rows, out), dx = widen(before), dw = widen(w), db = widen(b);
  linear<double>(plain, batch, xd, wd, biased ? bd.view() : Rows<const double>(), y);
  linear_backward<double>(plain, batch, xd, wd, dyd, dx, Write::add, dw, biased ? db.view() : Rows<double>());
  CHECK(relative_error(y_.read(), y) <= tolerance);
  CHECK(relative_error(dx_.read(), dx) <= tolerance);
  CHECK(relative_error(dw_.read(), dw) <= tolerance);
  CHECK(relative_error(db_.read(), db) <= tolerance);
  CHECK_FALSE(relative_error(Matrix<float>(rows, out), y) <= tolerance);
  Matrix<double> wrong = y;
  for (double& value : wrong) value *= 1 + 3 * tolerance;
  CHECK_FALSE(relative_error(wrong, y) <= tolerance);
  DeviceMatrix<S> again(rows, out);
  linear<S>(context, batch, x_.view().columns(gap, in), w_, biased ? b_.view() : Rows<const float>(), again);
  CHECK(relative_error(again.read(), y_.read()) == 0);
}

TEST_CASE("linear maps of any shape and place agree with loops in double") {
  for (const bool biased : {false, true}) {
    for (const Index gap : {0, 1, 8}) {
      agrees<float>(300, 64, 96, gap, biased, 2e-6);
      agrees<bf16>(300, 64, 96, gap, biased, 5e-3);
    }
    agrees<float>(1, 1, 1, 0, biased, 2e-6);
    agrees<float>(37, 21, 13, 0, biased, 2e-6);
    agrees<bf16>(37, 21, 13, 1, biased, 5e-3);
    agrees<bf16>(5, 512, 1536, 0, biased, 5e-3);
    agrees<bf16>(20000, 64, 64, 0, biased, 5e-3);
  }
}

TEST_CASE("linear maps at small shapes") {
  for (const Index width : {1, 3, 40, 64}) {
    for (const Index gap : {0, 1}) {
      agrees<float>(7, width, 13, gap, true, 2e-6);
      agrees<bf16>(65, width, 40, gap, true, 5e-3);
    }
  }
}

TEST_CASE("a bias per position") {
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  const Packed packed({3, 1, 4});
  const Resident<Cuda> resident(context, packed.view());
  const Batch& batch = resident;
  const Matrix<float> x = random_matrix<float>(8, 5, 1), w = random_matrix<float>(5, 7, 2), b = random_matrix<float>(4, 7, 3);
  const DeviceMatrix<float> x_(x.view()), w_(w.view()), b_(b.view()), dy_(random_matrix<float>(8, 7, 4).view());
  DeviceMatrix<float> y_(8, 7), db_(b.view());
  linear<float>(context, batch, x_, w_, b_, y_);
  linear_backward<float>(context, batch, x_, w_, dy_, {}, Write::none, {}, db_);
  Context<Reference> plain;
  Matrix<float> y(8, 7), db = b;
  linear<float>(plain, packed.view(), x, w, b, y);
  linear_backward<float>(plain, packed.view(), x, w, random_matrix<float>(8, 7, 4), {}, Write::none, {}, db);
  CHECK(relative_error(y_.read(), y) <= 1e-6);
  CHECK(relative_error(db_.read(), db) <= 1e-6);
}

}  // namespace

int main(int argc, char** argv) {
  coyote::test::require_gpu();
  return doctest::Context(argc, argv).run();
}

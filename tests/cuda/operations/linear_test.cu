// SPDX-License-Identifier: Apache-2.0
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

/// The columns of a matrix that began `gap` elements into rows of the rest; nothing else may have been written.
Matrix<float> within(const Matrix<float>& whole, Index gap, Index width) {
  Matrix<float> part(whole.rows(), width);
  bool others_are_left = true;
  for (Index i = 0; i < whole.rows(); ++i) {
    for (Index c = 0; c < whole.width(); ++c) {
      const bool inside = c >= gap && c < gap + width;
      if (inside) part(i, c - gap) = whole(i, c);
      others_are_left &= inside || std::isnan(whole(i, c));
    }
  }
  CHECK(others_are_left);
  return part;
}

/// Gradients of parameters are sums in float of exact products, whatever the activations are.
constexpr double sum_tolerance = 1e-5;

/// Forward and backward of one map against loops in double, with rows that begin off boundaries when `gap` is odd. Gradients are
/// added to what was there, but dx as `write` says.
template <class S>
void agrees(Index rows, Index in, Index out, Index gap, bool biased, double tolerance, Write write = Write::add) {
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
  DeviceMatrix<S> y_(rows, out), dx_(before.view(), in + gap, gap);
  DeviceMatrix<float> dw_(w.view()), db_(b.view());
  const auto backward = [&](DeviceMatrix<S>& dx, DeviceMatrix<float>& dw, DeviceMatrix<float>& db) {
    linear_backward<S>(context, batch, x_.view().columns(gap, in), w_, dy_.view().columns(gap, out), dx.view().columns(gap, in),
                       write, dw, biased ? db.view() : Rows<float>());
  };
  linear<S>(context, batch, x_.view().columns(gap, in), w_, biased ? b_.view() : Rows<const float>(), y_);
  backward(dx_, dw_, db_);
  Context<Reference> plain;
  const Matrix<double> xd = widen(x), wd = widen(w), bd = widen(b), dyd = widen(dy);
  Matrix<double> y(rows, out), dx = widen(before), dw = widen(w), db = widen(b);
  linear<double>(plain, batch, xd, wd, biased ? bd.view() : Rows<const double>(), y);
  linear_backward<double>(plain, batch, xd, wd, dyd, dx, write, dw, biased ? db.view() : Rows<double>());
  CHECK(relative_error(y_.read(), y) <= tolerance);
  CHECK(relative_error(within(dx_.read(), gap, in), dx) <= tolerance);
  CHECK(relative_error(dw_.read(), dw) <= sum_tolerance);
  CHECK(relative_error(db_.read(), db) <= sum_tolerance);
  CHECK_FALSE(relative_error(Matrix<float>(rows, out), y) <= tolerance);
  Matrix<double> wrong = y;
  for (double& value : wrong) value *= 1 + 3 * tolerance;
  CHECK_FALSE(relative_error(wrong, y) <= tolerance);
  CHECK_FALSE(relative_error(w, dw) <= sum_tolerance);
  DeviceMatrix<S> again(rows, out), dx_again(before.view(), in + gap, gap);
  DeviceMatrix<float> dw_again(w.view()), db_again(b.view());
  linear<S>(context, batch, x_.view().columns(gap, in), w_, biased ? b_.view() : Rows<const float>(), again);
  backward(dx_again, dw_again, db_again);
  CHECK(relative_error(again.read(), y_.read()) == 0);
  linear<S>(context, batch, x_.view().columns(gap, in), w_, biased ? b_.view() : Rows<const float>(), again,
            dy_.view().columns(gap, out));
  for (Index i = 0; i < rows; ++i) {
    for (Index c = 0; c < out; ++c) y(i, c) += dyd(i, c);
  }
  CHECK(relative_error(again.read(), y) <= tolerance);
  CHECK(relative_error(within(dx_again.read(), gap, in), within(dx_.read(), gap, in)) == 0);
  CHECK(relative_error(dw_again.read(), dw_.read()) == 0);
  CHECK(relative_error(db_again.read(), db_.read()) == 0);
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
    for (const Index rows : {1, 2, 4, 7, 8, 9}) {  // up to eight go by kernels of their own
      agrees<bf16>(rows, 513, 40, 0, biased, 5e-3);
      agrees<bf16>(rows, 72, 520, 1, biased, 5e-3);
      agrees<float>(rows, 130, 36, 1, biased, 2e-6);
    }
    agrees<bf16>(20000, 64, 64, 0, biased, 5e-3);
  }
}

TEST_CASE("gradients of narrow maps agree with loops in double") {
  for (const Index rows : {1, 7, 33, 1000}) {
    for (const Index in : {8, 24, 64, 72, 128}) {
      for (const Index out : {8, 16, 40, 64, 128, 192}) {
        agrees<bf16>(rows, in, out, rows % 2 == 0 ? 16 : 0, in != 24, 5e-3, out == 40 ? Write::overwrite : Write::add);
      }
    }
  }
  agrees<bf16>(1000, 64, 192, 8, true, 5e-3, Write::none);
  agrees<bf16>(20011, 64, 192, 0, true, 5e-3, Write::overwrite);
  agrees<bf16>(20011, 128, 128, 8, true, 5e-3, Write::add);
}

TEST_CASE("linear maps at small shapes") {
  for (const Index width : {1, 3, 40, 64}) {
    for (const Index gap : {0, 1}) {
      agrees<float>(7, width, 13, gap, true, 2e-6);
      agrees<bf16>(65, width, 40, gap, true, 5e-3);
    }
  }
}

TEST_CASE_TEMPLATE("what passes by a map is added to it, by whichever product", S, float, bf16) {
  using H = on_host_t<S>;
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  for (const auto& [rows, in, out] : {std::tuple<Index, Index, Index>{130, 64, 64}, {33, 64, 192}, {40, 256, 320}, {7, 5, 13}}) {
    const Matrix<H> x = random_matrix<H>(rows, in, 1), skip = random_matrix<H>(rows, out, 4);
    const Matrix<float> w = random_matrix<float>(in, out, 2), b = random_matrix<float>(1, out, 3);
    const DeviceMatrix<S> x_(x.view()), skip_(skip.view(), out + 8, 0);
    const DeviceMatrix<float> w_(w.view()), b_(b.view());
    DeviceMatrix<S> y(rows, out), plain(rows, out);
    const Batch batch{.sequences = 1, .length = rows};
    const Rows<const S> passing = std::as_const(skip_).view().columns(0, out);
    linear<S>(context, batch, x_, w_, b_, y.view(), passing);
    linear<S>(context, batch, x_, w_, b_, plain.view());
    const Matrix<H> without = plain.read();
    Matrix<H> wanted(rows, out);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < out; ++c) wanted(i, c) = without(i, c) + OnHost<S>::round(skip(i, c));
    }
    CAPTURE(in);
    CHECK(relative_error(y.read(), wanted) <= (sizeof(S) == 2 ? 5e-3 : 1e-6));
    CHECK_FALSE(relative_error(without, wanted) <= 1e-2);
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

TEST_CASE("a bias per position beside weights of a narrow map") {
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  const Packed packed({3, 1, 4});
  const Resident<Cuda> resident(context, packed.view());
  const Matrix<float> x = random_matrix<bf16>(8, 16, 1), w = random_matrix<bf16>(16, 24, 2), b = random_matrix<float>(4, 24, 3),
                      dy = random_matrix<bf16>(8, 24, 4);
  const DeviceMatrix<bf16> x_(x.view()), dy_(dy.view());
  const DeviceMatrix<float> w_(w.view());
  DeviceMatrix<bf16> dx_(8, 16);
  DeviceMatrix<float> dw_(w.view()), db_(b.view());
  linear_backward<bf16>(context, resident, x_, w_, dy_, dx_, Write::overwrite, dw_, db_);
  Context<Reference> plain;
  Matrix<float> dx(8, 16), dw = w, db = b;
  linear_backward<float>(plain, packed.view(), x, w, dy, dx, Write::overwrite, dw, db);
  CHECK(relative_error(dx_.read(), dx) <= 5e-3);
  CHECK(relative_error(dw_.read(), dw) <= 1e-6);
  CHECK(relative_error(db_.read(), db) <= 1e-6);
  CHECK_FALSE(relative_error(b, db) <= 1e-6);
}

}  // namespace

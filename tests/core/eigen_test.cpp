// SPDX-License-Identifier: Apache-2.0
#include "coyote/eigen.hpp"

#include <doctest/doctest.h>

#include "coyote/operations/cpu/linear.hpp"
#include "support/conformance.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("views share their numbers with Eigen") {
  Matrix<float> m(5, 4);
  as_eigen(m).setConstant(2);
  as_eigen(m.view().slice(1, 2).columns(1, 2)).setZero();
  CHECK(m(0, 0) == 2);
  CHECK(m(1, 1) == 0);
  CHECK(m(2, 2) == 0);
  CHECK(m(2, 3) == 2);
  CHECK(as_eigen(std::as_const(m)).sum() == 32);
  Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> e(2, 3);
  e << 1, 2, 3, 4, 5, 6;
  rows_of(e)(1, 2) = 60;
  CHECK(e(1, 2) == 60);
  CHECK(rows_of(std::as_const(e))(1, 0) == 4);
}

TEST_CASE("linear maps agree with Eigen's products, which nobody here wrote") {
  for (const Index rows : {1, 127, 128, 700}) {
    const Index in = 65, out = 130;
    const Matrix<double> x = random_matrix<double>(rows, in, 1), weight = random_matrix<double>(in, out, 2),
                         dy = random_matrix<double>(rows, out, 3);
    Matrix<double> y(rows, out), dx(rows, in), dweight(in, out), expected(rows, out), expected_dx(rows, in), expected_dw(in, out);
    Context<Cpu> context(2);
    const Batch batch{.sequences = 1, .length = rows};
    linear<double>(context, batch, x, weight, {}, y);
    linear_backward<double>(context, batch, x, weight, dy, dx, Write::overwrite, dweight, {});
    as_eigen(expected) = as_eigen(x) * as_eigen(weight);
    as_eigen(expected_dx) = as_eigen(dy) * as_eigen(weight).transpose();
    as_eigen(expected_dw) = as_eigen(x).transpose() * as_eigen(dy);
    CHECK(relative_error(y, expected) <= 1e-14);
    CHECK(relative_error(dx, expected_dx) <= 1e-14);
    CHECK(relative_error(dweight, expected_dw) <= 1e-13);
    y(0, 0) += 1e-9;
    CHECK_FALSE(relative_error(y, expected) <= 1e-14);
  }
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#pragma once

// g++ 12 takes the undefined operands of some AVX-512 intrinsics for forgotten variables (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <type_traits>

#include "coyote/core/rows.hpp"

namespace coyote::inline v0 {

// Views between coyote and Eigen, without copies. Not part of coyote.hpp, and the only header that needs Eigen (3.4): include it
// where a program has its data in Eigen's matrices, or wants Eigen's algebra on a model's parameters and activations.

/// A view as Eigen's: reads and writes go to the same numbers.
///
///     as_eigen(weight).norm();    as_eigen(y) = as_eigen(x) * as_eigen(weight);
template <class T>
auto as_eigen(Rows<T> rows) {
  using Dense = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Seen = std::conditional_t<std::is_const_v<T>, const Dense, Dense>;
  return Eigen::Map<Seen, Eigen::Unaligned, Eigen::OuterStride<>>(rows.data, rows.rows, rows.width,
                                                                  Eigen::OuterStride<>(rows.stride));
}
template <class T>
auto as_eigen(Matrix<T>& matrix) {
  return as_eigen(matrix.view());
}
template <class T>
auto as_eigen(const Matrix<T>& matrix) {
  return as_eigen(matrix.view());
}

/// A row-major matrix of Eigen's as a view: what layers take as input and output. It lives as long as the matrix.
template <class Derived>
Rows<typename Derived::Scalar> rows_of(Eigen::PlainObjectBase<Derived>& matrix) {
  static_assert(Derived::IsRowMajor,
                "coyote: rows_of takes a matrix with Eigen::RowMajor, as coyote's rows lie one after another");
  return {matrix.data(), matrix.rows(), matrix.cols(), matrix.outerStride()};
}
template <class Derived>
Rows<const typename Derived::Scalar> rows_of(const Eigen::PlainObjectBase<Derived>& matrix) {
  static_assert(Derived::IsRowMajor,
                "coyote: rows_of takes a matrix with Eigen::RowMajor, as coyote's rows lie one after another");
  return {matrix.data(), matrix.rows(), matrix.cols(), matrix.outerStride()};
}

}  // namespace coyote::inline v0

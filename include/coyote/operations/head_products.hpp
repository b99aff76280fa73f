// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// Products of two matrices' rows, head by head.

/// y[(g*E + i)*F + j] = a[g*E + i] * b[g*F + j] in every row.
template <class S, Index E, Index F, RowContext C>
constexpr void outer_product(C& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  context.for_rows(y.rows, y.width, [&](Index row) {
    const S *left = a.row(row), *right = b.row(row);
    S* to = y.row(row);
    for (Index g = 0; g < a.width / E; ++g) {
      for (Index i = 0; i < E; ++i) {
        for (Index j = 0; j < F; ++j) to[(g * E + i) * F + j] = left[g * E + i] * right[g * F + j];
      }
    }
  });
}

/// da[g*E + i] = sum_j dy[(g*E + i)*F + j] b[g*F + j], db[g*F + j] = sum_i dy[(g*E + i)*F + j] a[g*E + i].
template <class S, Index E, Index F, RowContext C>
constexpr void outer_product_backward(C& context, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da, Rows<S> db) {
  context.for_rows(dy.rows, 2 * dy.width, [&](Index row) {
    const S *left = a.row(row), *right = b.row(row), *from = dy.row(row);
    S *dleft = da.row(row), *dright = db.row(row);
    for (Index g = 0; g < a.width / E; ++g) {
      for (Index i = 0; i < E; ++i) {
        const S* gradient = from + (g * E + i) * F;
        S sum = gradient[0] * right[g * F];
        for (Index j = 1; j < F; ++j) sum += gradient[j] * right[g * F + j];
        dleft[g * E + i] = sum;
        for (Index j = 0; j < F; ++j) {
          const S part = gradient[j] * left[g * E + i];
          dright[g * F + j] = i == 0 ? part : dright[g * F + j] + part;
        }
      }
    }
  });
}

/// y[g*F + j] = sum_i a[g*E + i] * b[(g*E + i)*F + j] in every row.
template <class S, Index E, Index F, RowContext C>
constexpr void contraction(C& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  context.for_rows(y.rows, b.width, [&](Index row) {
    const S *left = a.row(row), *right = b.row(row);
    S* to = y.row(row);
    for (Index g = 0; g < a.width / E; ++g) {
      for (Index j = 0; j < F; ++j) {
        S sum = left[g * E] * right[g * E * F + j];
        for (Index i = 1; i < E; ++i) sum += left[g * E + i] * right[(g * E + i) * F + j];
        to[g * F + j] = sum;
      }
    }
  });
}

/// da[k] = sum_j dy[k/E*F + j] b[k*F + j], db[k*F + j] = a[k] dy[k/E*F + j].
template <class S, Index E, Index F, RowContext C>
constexpr void contraction_backward(C& context, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da, Rows<S> db) {
  context.for_rows(dy.rows, 2 * b.width, [&](Index row) {
    const S *left = a.row(row), *right = b.row(row), *from = dy.row(row);
    S *dleft = da.row(row), *dright = db.row(row);
    for (Index k = 0; k < a.width; ++k) {
      const S* gradient = from + k / E * F;
      S sum = gradient[0] * right[k * F];
      for (Index j = 1; j < F; ++j) sum += gradient[j] * right[k * F + j];
      dleft[k] = sum;
      for (Index j = 0; j < F; ++j) dright[k * F + j] = left[k] * gradient[j];
    }
  });
}

}  // namespace coyote::inline v0

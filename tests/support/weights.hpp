// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coyote/core/parameters.hpp"

namespace coyote::test {

/// Small integers without a pattern, mostly positive, so that sums of their products seldom vanish.
constexpr long small_integer(Index i, Index c, Index salt) {
  std::uint32_t hash = static_cast<std::uint32_t>(i * 73856093 + c * 19349663 + salt * 83492791);
  hash = (hash ^ (hash >> 15)) * 0x9E3779B1u;
  constexpr long values[] = {1, 2, 3, -1};
  return values[hash >> 30];
}

/// Copies of a model's parameters by name, also in constant evaluation: what equations written out as loops read.
template <class S>
class Weights {
 public:
  /// Of a model whose values are set already.
  template <class M>
  constexpr explicit Weights(M& model) {
    auto collect = [this](const Path& path, auto& p) { this->keep(path, p); };
    model.visit(collect);
  }
  /// Of a model whose values this sets: small integers, different everywhere.
  template <class M>
  static constexpr Weights integers(M& model) {
    Index salt = 1;
    auto set = [&salt](const Path&, auto& p) {
      for (Index i = 0; i < p.rows; ++i) {
        for (Index c = 0; c < p.columns; ++c) {
          p.value(i, c) = static_cast<S>(small_integer(i, c, salt));
        }
      }
      ++salt;
    };
    model.visit(set);
    return Weights(model);
  }

  constexpr const Matrix<S>& operator()(std::string_view name) const {
    for (const Named& item : items_) {
      if (item.name.view() == name) return item.value;
    }
    throw Error("Weights", "a parameter of the model", std::string(name));
  }
  /// u W + b, from `name`.weight and `name`.bias.
  constexpr Matrix<S> linear(const Path& name, const Matrix<S>& u) const {
    const Matrix<S>&w = (*this)(name / "weight"), &b = (*this)(name / "bias");
    Matrix<S> y(u.rows(), w.width());
    for (Index i = 0; i < u.rows(); ++i) {
      for (Index c = 0; c < w.width(); ++c) {
        S sum = b(0, c);
        for (Index k = 0; k < u.width(); ++k) sum += u(i, k) * w(k, c);
        y(i, c) = sum;
      }
    }
    return y;
  }

 private:
  struct Named {
    Path name;
    Matrix<S> value;
  };
  template <class P>
  constexpr void keep(const Path& path, const P& p) {
    Matrix<S> value(p.rows, p.columns);
    for (Index i = 0; i < p.rows; ++i) {
      for (Index c = 0; c < p.columns; ++c) value(i, c) = p.value(i, c);
    }
    items_.emplace(Named{path, std::move(value)});
  }
  List<Named> items_;
};

/// y[i, c] = sum_{t <= i, t < taps} taps[t, c] u[i-t, c]
template <class S>
constexpr Matrix<S> convolved(const Matrix<S>& taps, const Matrix<S>& u) {
  Matrix<S> y(u.rows(), u.width());
  for (Index i = 0; i < u.rows(); ++i) {
    for (Index c = 0; c < u.width(); ++c) {
      for (Index t = 0; t <= i && t < taps.rows(); ++t) y(i, c) += taps(t, c) * u(i - t, c);
    }
  }
  return y;
}

template <class S>
constexpr bool same(const Matrix<S>& a, const Matrix<S>& b) {
  if (a.rows() != b.rows() || a.width() != b.width()) return false;
  for (Index i = 0; i < a.size(); ++i) {
    if (!(a.data()[i] == b.data()[i])) return false;
  }
  return true;
}

}  // namespace coyote::test

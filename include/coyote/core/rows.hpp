// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <type_traits>

#include "coyote/core/array.hpp"
#include "coyote/core/error.hpp"

namespace coyote::inline v0 {

/// A view of a row-major matrix: row i starts at data + i * stride and holds `width` neighbours. A sequence batch
/// `[batch, length, width]` is its rows one after another; a packed batch likewise (see Batch).
template <class T>
struct Rows {
  T* data = nullptr;
  Index rows = 0;
  Index width = 0;
  Index stride = 0;

  constexpr Rows() = default;
  COYOTE_HOST_DEVICE constexpr Rows(T* data_, Index rows_, Index width_) : Rows(data_, rows_, width_, width_) {}
  COYOTE_HOST_DEVICE constexpr Rows(T* data_, Index rows_, Index width_, Index stride_)
      : data(data_), rows(rows_), width(width_), stride(stride_) {}
  /// A view of mutable elements reads as one of const elements.
  template <class U>
  requires(std::same_as<T, const U>) COYOTE_HOST_DEVICE constexpr Rows(Rows<U> other)
      : Rows(other.data, other.rows, other.width, other.stride) {}

  COYOTE_HOST_DEVICE constexpr T* row(Index i) const { return data + i * stride; }
  COYOTE_HOST_DEVICE constexpr T& operator()(Index i, Index c) const { return data[i * stride + c]; }
  COYOTE_HOST_DEVICE constexpr bool empty() const { return rows == 0 || width == 0; }
  /// Rows first .. first + count - 1.
  COYOTE_HOST_DEVICE constexpr Rows slice(Index first, Index count) const {
    return {data + first * stride, count, width, stride};
  }
  /// Columns first .. first + count - 1, of every row.
  COYOTE_HOST_DEVICE constexpr Rows columns(Index first, Index count) const { return {data + first, rows, count, stride}; }
};

/// An owning, zero-initialised, row-major matrix; reads as Rows wherever a view is asked for.
template <class T>
class Matrix {
 public:
  constexpr Matrix() = default;
  constexpr Matrix(Index rows, Index width) : array_(rows * width), rows_(rows), width_(width) {}

  constexpr Rows<T> view() { return {array_.data(), rows_, width_}; }
  constexpr Rows<const T> view() const { return {array_.data(), rows_, width_}; }
  constexpr operator Rows<T>() { return view(); }
  constexpr operator Rows<const T>() const { return view(); }

  constexpr T* data() { return array_.data(); }
  constexpr const T* data() const { return array_.data(); }
  constexpr Index rows() const { return rows_; }
  constexpr Index width() const { return width_; }
  constexpr Index size() const { return array_.size(); }
  constexpr T& operator()(Index i, Index c) { return array_[i * width_ + c]; }
  constexpr const T& operator()(Index i, Index c) const { return array_[i * width_ + c]; }
  constexpr T* begin() { return array_.begin(); }
  constexpr T* end() { return array_.end(); }
  constexpr const T* begin() const { return array_.begin(); }
  constexpr const T* end() const { return array_.end(); }

 private:
  Array<T> array_;
  Index rows_ = 0, width_ = 0;
};

/// Throws unless a view has the shape that a layer asks for. `where` is a Path or a string.
template <class Where, class T>
constexpr void require_shape(const Where& where, std::string_view what, Rows<T> view, Index rows, Index width) {
  if (view.rows != rows || view.width != width || (view.data == nullptr && rows * width > 0)) {
    throw Error(std::string(std::string_view(where)), words(what, " of shape [", rows, ", ", width, "]"),
                view.data == nullptr ? words("no data") : words("[", view.rows, ", ", view.width, "]"));
  }
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "coyote/core/rows.hpp"

namespace coyote::inline v0 {

namespace detail {
template <class Backend, class T>
struct StorageOf {
  using type = Matrix<T>;
  static constexpr Matrix<T> from_host(Matrix<T> matrix) { return matrix; }
  static constexpr const Matrix<T>& to_host(const Matrix<T>& matrix) { return matrix; }
};
}  // namespace detail

/// An owning matrix where a backend's operations work, zero when made: what decoding states and the tables of layers are. On
/// the host a Matrix; on Cuda memory of the device (core/cuda/storage.cuh), which the host fills by to_backend and reads by
/// to_host. Copies deeply.
template <class Backend, class T>
using Storage = typename detail::StorageOf<Backend, T>::type;

/// A matrix made on the host, in a backend's own memory.
template <class Backend, class T>
constexpr Storage<Backend, T> to_backend(Matrix<T> matrix) {
  return detail::StorageOf<Backend, T>::from_host(std::move(matrix));
}
/// A backend's matrix where the host can read it, once all work on it is done: itself, or a copy.
template <class Backend, class T>
constexpr decltype(auto) to_host(const Storage<Backend, T>& matrix) {
  return detail::StorageOf<Backend, T>::to_host(matrix);
}

}  // namespace coyote::inline v0

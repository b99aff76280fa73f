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
};
}  // namespace detail

/// An owning matrix where a backend's operations work, zero when made: what decoding states and the tables of layers are. On
/// the host a Matrix; on Cuda memory of the device (core/cuda/storage.cuh), which the host fills by to_backend and reads as
/// views only. Copies deeply.
template <class Backend, class T>
using Storage = typename detail::StorageOf<Backend, T>::type;

/// A matrix made on the host, in a backend's own memory.
template <class Backend, class T>
constexpr Storage<Backend, T> to_backend(Matrix<T> matrix) {
  return detail::StorageOf<Backend, T>::from_host(std::move(matrix));
}

}  // namespace coyote::inline v0

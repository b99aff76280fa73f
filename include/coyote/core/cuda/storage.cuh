// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/memory.cuh"
#include "coyote/core/storage.hpp"

namespace coyote::inline v0 {

namespace cuda {

/// What Matrix is on the host: an owning, zero-initialised, row-major matrix, on the device.
template <class T>
class DeviceMatrix {
 public:
  DeviceMatrix() = default;
  DeviceMatrix(Index rows, Index width) : array_(rows * width), rows_(rows), width_(width) {}
  explicit DeviceMatrix(const Matrix<T>& host) : array_(host.data(), host.size()), rows_(host.rows()), width_(host.width()) {}
  DeviceMatrix(const DeviceMatrix& other) : DeviceMatrix(other.rows_, other.width_) { array_.copy(other.array_); }
  DeviceMatrix(DeviceMatrix&&) noexcept = default;
  DeviceMatrix& operator=(DeviceMatrix other) noexcept {
    std::swap(array_, other.array_);
    std::swap(rows_, other.rows_);
    std::swap(width_, other.width_);
    return *this;
  }

  Rows<T> view() { return {array_.data(), rows_, width_}; }
  Rows<const T> view() const { return {array_.data(), rows_, width_}; }
  operator Rows<T>() { return view(); }
  operator Rows<const T>() const { return view(); }

  T* data() { return array_.data(); }
  const T* data() const { return array_.data(); }
  Index rows() const { return rows_; }
  Index width() const { return width_; }
  Index size() const { return rows_ * width_; }
  /// Waits for all work, and gives what it left.
  Matrix<T> to_host() const {
    Matrix<T> matrix(rows_, width_);
    array_.download(matrix.data());
    return matrix;
  }

 private:
  DeviceArray<T> array_;
  Index rows_ = 0, width_ = 0;
};

}  // namespace cuda

namespace detail {
template <class T>
struct StorageOf<Cuda, T> {
  using type = cuda::DeviceMatrix<T>;
  static cuda::DeviceMatrix<T> from_host(const Matrix<T>& matrix) { return cuda::DeviceMatrix<T>(matrix); }
  static Matrix<T> to_host(const cuda::DeviceMatrix<T>& matrix) { return matrix.to_host(); }
};
}  // namespace detail
}  // namespace coyote::inline v0

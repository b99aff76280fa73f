// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <utility>

#include "coyote/core/arena.hpp"
#include "coyote/core/context.hpp"
#include "coyote/core/cuda/check.cuh"
#include "coyote/core/parameters.hpp"

namespace coyote::inline v0 {
namespace cuda {

/// Memory of the current device. Throws with what was asked and what is free; nothing else changes then.
inline void* allocate(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    std::size_t free = 0, total = 0;
    COYOTE_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    throw Error("cudaMalloc", words(bytes, " bytes of the device's memory"),
                words(cudaGetErrorName(status), ": ", free, " of its ", total, " are free"));
  }
  COYOTE_CUDA_CHECK(status);
  return data;
}

/// Where the arena of a device gets its blocks. Work that uses a block runs in `stream`.
struct DeviceMemory {
  static constexpr std::size_t alignment = 256;
  cudaStream_t stream = nullptr;

  void* allocate(std::size_t bytes) { return cuda::allocate(bytes); }
  void deallocate(void* data) noexcept { cudaFree(data); }  // waits for the kernels that use it
  void poison(void* data, std::size_t bytes) { COYOTE_CUDA_CHECK(cudaMemsetAsync(data, 0xFF, bytes, stream)); }
  static std::size_t block_size(std::size_t bytes, std::size_t) { return std::max(bytes, std::size_t{16} << 20); }
};

/// An owning, zero-initialised array on the device that is current when it is made.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(Index size) : size_(size) {
    if (size == 0) return;
    data_ = static_cast<T*>(allocate(bytes()));
    COYOTE_CUDA_CHECK(cudaMemset(data_, 0, bytes()));
    COYOTE_CUDA_CHECK(cudaStreamSynchronize(nullptr));  // a context's stream does not wait for it
  }
  /// A copy of `size` elements of the host's.
  DeviceArray(const T* host, Index size) : DeviceArray(size) { upload(host); }
  DeviceArray(DeviceArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }
  /// Copies all elements; both wait for what the device has been told before, and until the copy is done.
  void upload(const T* host) {
    if (size_ == 0) return;
    COYOTE_CUDA_CHECK(cudaDeviceSynchronize());
    COYOTE_CUDA_CHECK(cudaMemcpy(data_, host, bytes(), cudaMemcpyHostToDevice));
    COYOTE_CUDA_CHECK(cudaStreamSynchronize(nullptr));  // small copies come back before they have arrived
  }
  /// Copies another array of the same size, and waits until that is done.
  void copy(const DeviceArray& other) {
    if (size_ == 0) return;
    COYOTE_CUDA_CHECK(cudaDeviceSynchronize());
    COYOTE_CUDA_CHECK(cudaMemcpy(data_, other.data_, bytes(), cudaMemcpyDeviceToDevice));
    COYOTE_CUDA_CHECK(cudaStreamSynchronize(nullptr));
  }
  void download(T* host) const {
    if (size_ == 0) return;
    COYOTE_CUDA_CHECK(cudaDeviceSynchronize());
    COYOTE_CUDA_CHECK(cudaMemcpy(host, data_, bytes(), cudaMemcpyDeviceToHost));
  }

 private:
  T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace cuda

namespace detail {
template <class T>
struct BufferOf<Cuda, T> {
  using type = cuda::DeviceArray<T>;
};
}  // namespace detail

template <class T>
class HostCopy<cuda::DeviceArray<T>> {
 public:
  explicit HostCopy(cuda::DeviceArray<T>& buffer) : buffer_(buffer), copy_(buffer.size()) { buffer.download(copy_.data()); }
  T* data() { return copy_.data(); }
  void write_back() { buffer_.upload(copy_.data()); }

 private:
  cuda::DeviceArray<T>& buffer_;
  Array<T> copy_;
};

namespace cuda {

/// Page-locked memory of the host, which copies to and from the device read directly.
template <class T>
class PinnedArray {
 public:
  PinnedArray() = default;
  explicit PinnedArray(Index size) : size_(size) {
    if (size > 0) COYOTE_CUDA_CHECK(cudaMallocHost(&data_, static_cast<std::size_t>(size) * sizeof(T)));
  }
  PinnedArray(PinnedArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PinnedArray& operator=(PinnedArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~PinnedArray() { cudaFreeHost(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  T& operator[](Index i) { return data_[i]; }

 private:
  T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace cuda
}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// An owning array of n value-initialised elements on 64-byte boundaries, usable in constant evaluation
/// (std::vector is not, in clang 14). Copies deeply; its size changes only by assignment.
template <class T>
class Array {
 public:
  constexpr Array() = default;
  constexpr explicit Array(Index size) : data_(allocate(size)), size_(size) {}
  constexpr Array(const Array& other) : Array(other.size_) {
    for (Index i = 0; i < size_; ++i) data_[i] = other.data_[i];
  }
  constexpr Array(Array&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  constexpr Array& operator=(Array other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  constexpr ~Array() { release(); }

  constexpr T* data() { return data_; }
  constexpr const T* data() const { return data_; }
  constexpr Index size() const { return size_; }
  constexpr T& operator[](Index i) { return data_[i]; }
  constexpr const T& operator[](Index i) const { return data_[i]; }
  constexpr T* begin() { return data_; }
  constexpr T* end() { return data_ + size_; }
  constexpr const T* begin() const { return data_; }
  constexpr const T* end() const { return data_ + size_; }

 private:
  static constexpr T* allocate(Index size) {
    if (size == 0) return nullptr;
    const auto count = static_cast<std::size_t>(size);
    if (std::is_constant_evaluated()) return new T[count]();
    T* data = static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{64}));
    std::uninitialized_value_construct_n(data, count);
    return data;
  }
  constexpr void release() {
    if (std::is_constant_evaluated()) {
      delete[] data_;
    } else if (data_ != nullptr) {
      std::destroy_n(data_, static_cast<std::size_t>(size_));
      ::operator delete (data_, std::align_val_t{64});
    }
  }

  T* data_ = nullptr;
  Index size_ = 0;
};

/// A growing list of movable things that need no default constructor: layers, states, saved activations.
/// Usable in constant evaluation.
template <class T>
class List {
 public:
  constexpr List() = default;
  constexpr List(const List& other) {
    reserve(other.size_);
    for (const T& item : other) emplace(item);
  }
  constexpr List(List&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  constexpr List& operator=(List other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  constexpr ~List() {
    for (Index i = 0; i < size_; ++i) std::destroy_at(data_ + i);
    if (data_ != nullptr) std::allocator<T>{}.deallocate(data_, static_cast<std::size_t>(capacity_));
  }

  template <class... Args>
  constexpr T& emplace(Args&&... args) {
    if (size_ == capacity_) reserve(size_ == 0 ? 4 : 2 * size_);
    return *std::construct_at(data_ + size_++, std::forward<Args>(args)...);
  }
  /// Makes exactly n default-constructed elements, unless there are n already: then nothing changes.
  constexpr void ensure(Index n) {
    if (size_ == n) return;
    *this = List();
    reserve(n);
    while (size_ < n) emplace();
  }

  constexpr Index size() const { return size_; }
  constexpr T& operator[](Index i) { return data_[i]; }
  constexpr const T& operator[](Index i) const { return data_[i]; }
  constexpr T* begin() { return data_; }
  constexpr T* end() { return data_ + size_; }
  constexpr const T* begin() const { return data_; }
  constexpr const T* end() const { return data_ + size_; }

 private:
  constexpr void reserve(Index capacity) {
    if (capacity <= capacity_) return;
    T* fresh = std::allocator<T>{}.allocate(static_cast<std::size_t>(capacity));
    for (Index i = 0; i < size_; ++i) {
      std::construct_at(fresh + i, std::move(data_[i]));
      std::destroy_at(data_ + i);
    }
    if (data_ != nullptr) std::allocator<T>{}.deallocate(data_, static_cast<std::size_t>(capacity_));
    data_ = fresh;
    capacity_ = capacity;
  }

  T* data_ = nullptr;
  Index size_ = 0, capacity_ = 0;
};

}  // namespace coyote::inline v0

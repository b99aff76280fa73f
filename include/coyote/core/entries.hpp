// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

template <class T>
class Entries;

namespace detail {
template <class R>
inline constexpr bool is_entries = false;
template <class T>
inline constexpr bool is_entries<Entries<T>> = true;
}  // namespace detail

/// A view of neighbours in memory: a std::span that functions of a GPU may use too. The two convert into each other.
template <class T>
class Entries {
 public:
  Entries() = default;
  COYOTE_HOST_DEVICE constexpr Entries(T* data, Index size) : data_(data), size_(size) {}
  template <class U>
  requires(std::same_as<T, const U>) COYOTE_HOST_DEVICE constexpr Entries(Entries<U> other)
      : Entries(other.data(), other.size()) {}
  /// Everything that reads as a std::span: arrays, vectors, views of mutable elements.
  template <class R>
  requires(!detail::is_entries<std::remove_cvref_t<R>> && std::convertible_to<R, std::span<T>>) constexpr Entries(R&& range) {
    const std::span<T> span = range;
    data_ = span.data();
    size_ = static_cast<Index>(span.size());
  }
  constexpr operator std::span<T>() const { return {data_, static_cast<std::size_t>(size_)}; }

  COYOTE_HOST_DEVICE constexpr T& operator[](Index i) const { return data_[i]; }
  COYOTE_HOST_DEVICE constexpr T* data() const { return data_; }
  COYOTE_HOST_DEVICE constexpr Index size() const { return size_; }
  COYOTE_HOST_DEVICE constexpr Entries first(Index count) const { return {data_, count}; }
  /// From entry `from` on.
  COYOTE_HOST_DEVICE constexpr Entries behind(Index from) const { return {data_ + from, size_ - from}; }

 private:
  T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace coyote::inline v0

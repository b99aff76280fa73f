// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coyote/core/error.hpp"
#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// The name of a place in an architecture, such as `layers.0.mixer.left`. Parameters, random streams and errors are
/// named by it. Fixed capacity, so that layers with names exist in constant evaluation.
class Path {
 public:
  static constexpr Index capacity = 256;

  constexpr Path() = default;
  constexpr Path(const char* name) { append(name); }
  constexpr Path(std::string_view name) { append(name); }

  /// The place `name` below this one.
  [[gnu::noinline]] constexpr Path operator/(std::string_view name) const {
    Path result = *this;
    if (size_ > 0) result.append(".");
    result.append(name);
    return result;
  }
  [[gnu::noinline]] constexpr Path operator/(Index number) const {
    char digits[24] = {};
    Index begin = 24;
    do digits[--begin] = static_cast<char>('0' + number % 10);
    while ((number /= 10) > 0);
    return *this / std::string_view(digits + begin, static_cast<std::size_t>(24 - begin));
  }

  constexpr operator std::string_view() const { return {text_, static_cast<std::size_t>(size_)}; }
  constexpr std::string_view view() const { return *this; }

  /// FNV-1a of the text: the key of this place's random stream.
  constexpr std::uint64_t hash() const {
    std::uint64_t h = 14695981039346656037u;
    for (const char c : view()) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
    return h;
  }

 private:
  [[gnu::noinline]] constexpr void append(std::string_view name) {
    if (size_ + static_cast<Index>(name.size()) > capacity) {
      throw Error(std::string(view()), words("a layer's path of at most ", capacity, " characters"), std::string(name));
    }
    for (const char c : name) text_[size_++] = c;
  }

  char text_[capacity] = {};
  Index size_ = 0;
};

}  // namespace coyote::inline v0

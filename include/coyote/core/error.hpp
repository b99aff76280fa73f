// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace coyote::inline v0 {

/// The one exception of the library. `what()` reads "where: required ..., came ...".
class Error : public std::runtime_error {
 public:
  /// @param where     the place: a layer's path, a file, an option
  /// @param required  what is legal there, and how to get it
  /// @param came      what was given instead
  [[gnu::noinline, gnu::cold]] Error(std::string where, std::string required, std::string came)
      : std::runtime_error(where + ": required " + required + ", came " + came),
        where_(std::move(where)),
        required_(std::move(required)),
        came_(std::move(came)) {}

  const std::string& where() const noexcept { return where_; }
  const std::string& required() const noexcept { return required_; }
  const std::string& came() const noexcept { return came_; }

 private:
  std::string where_, required_, came_;
};

namespace detail {
inline std::string text(std::string_view value) { return std::string(value); }
template <class T>
requires std::is_arithmetic_v<T> std::string text(T value) { return std::to_string(value); }
}  // namespace detail

/// Concatenates strings and numbers into one string: the wording of errors, without a stream.
template <class... Parts>
[[gnu::noinline, gnu::cold]] std::string words(const Parts&... parts) {
  std::string result;
  ((result += detail::text(parts)), ...);
  return result;
}

}  // namespace coyote::inline v0

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
/// One part of `words`: a string or a number. It views the string.
class Word {
 public:
  Word(std::string_view text) : text_(text) {}
  Word(const std::string& text) : text_(text) {}
  Word(const char* text) : text_(text) {}
  template <class T>
  requires std::is_arithmetic_v<T> Word(T value) {
    if constexpr (std::is_floating_point_v<T>) {
      kind_ = Kind::real;
      real_ = static_cast<double>(value);
    } else if constexpr (std::is_signed_v<T>) {
      kind_ = Kind::integer;
      integer_ = value;
    } else {
      kind_ = Kind::natural;
      natural_ = value;
    }
  }

  void append_to(std::string& result) const {
    switch (kind_) {
      case Kind::text:
        result += text_;
        break;
      case Kind::integer:
        result += std::to_string(integer_);
        break;
      case Kind::natural:
        result += std::to_string(natural_);
        break;
      case Kind::real:
        result += std::to_string(real_);
        break;
    }
  }

 private:
  enum class Kind { text, integer, natural, real };
  Kind kind_ = Kind::text;
  std::string_view text_;
  union {
    long long integer_;
    unsigned long long natural_;
    double real_;
  };
};
[[gnu::noinline, gnu::cold]] inline std::string join(const Word* first, const Word* last) {
  std::string result;
  for (; first != last; ++first) first->append_to(result);
  return result;
}
}  // namespace detail

/// Concatenates strings and numbers into one string: the wording of errors, without a stream.
template <class... Parts>
[[gnu::noinline, gnu::cold]] std::string words(const Parts&... parts) {
  const detail::Word all[] = {detail::Word(parts)...};
  return detail::join(all, all + sizeof...(parts));
}

}  // namespace coyote::inline v0

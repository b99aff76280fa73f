// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "coyote/core/error.hpp"
#include "coyote/core/types.hpp"

namespace coyote::inline v0::detail {

/// The length of the UTF-8 sequence at text[at], or 0 where there is none (RFC 3629: no overlong form, no surrogate,
/// nothing above U+10FFFF).
constexpr std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned first = byte(at), second = byte(at + 1);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF && continues(at + 1)) return 2;
  if ((first & 0xF0u) == 0xE0u && continues(at + 1) && continues(at + 2)) {
    const bool overlong = first == 0xE0 && second < 0xA0, surrogate = first == 0xED && second >= 0xA0;
    return overlong || surrogate ? 0 : 3;
  }
  if (first >= 0xF0 && first <= 0xF4 && continues(at + 1) && continues(at + 2) && continues(at + 3)) {
    const bool overlong = first == 0xF0 && second < 0x90, too_large = first == 0xF4 && second >= 0x90;
    return overlong || too_large ? 0 : 4;
  }
  return 0;
}
constexpr bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

/// Appends `text` as a JSON string, quotes included.
inline void append_json_string(std::string& out, std::string_view text) {
  constexpr const char* hex = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += hex[byte >> 4];
      out += hex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

/// Reads JSON (RFC 8259) whose form is known beforehand, value by value: the caller says what must come next. So nothing
/// recurses deeper than the caller does, whatever the text holds. Names within an object must differ; integers are plain
/// and not negative. Every violation throws Error with `where` and the number of the byte.
class JsonReader {
 public:
  JsonReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}

  /// Reads an object; member(name) is called after each name and must read its value.
  template <class Member>
  void object(Member&& member) {
    take('{', "'{'");
    std::vector<std::string> names;
    if (!accept('}')) {
      do {
        names.push_back(string());
        take(':', "':' after a name");
        member(names.back());
      } while (accept(','));
      take('}', "',' or '}'");
    }
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) throw Error(where_, "names that differ within an object", "'" + printable(*twice) + "' twice");
  }
  /// Reads an array; element() must read one value.
  template <class Element>
  void array(Element&& element) {
    take('[', "'['");
    if (accept(']')) return;
    do element();
    while (accept(','));
    take(']', "',' or ']'");
  }
  std::string string() {
    take('"', "a string");
    std::string result;
    for (;;) {
      if (at_ == text_.size()) fail("'\"' at the end of a string");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return result;
      }
      if (static_cast<unsigned char>(c) < 0x20) fail("control characters in a string as escapes");
      if (c == '\\') {
        ++at_;
        escape(result);
      } else {
        const std::size_t length = utf8_length(text_, at_);
        if (length == 0) fail("UTF-8");
        result += text_.substr(at_, length);
        at_ += length;
      }
    }
  }
  Index integer() {
    skip_spaces();
    constexpr Index largest = std::numeric_limits<Index>::max();
    const std::size_t begin = at_;
    Index value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const Index digit = text_[at_] - '0';
      if (value > (largest - digit) / 10) fail("an integer below 2^63");
      value = 10 * value + digit;
    }
    const bool leading_zero = at_ - begin > 1 && text_[begin] == '0';
    const bool goes_on = at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E');
    if (at_ == begin || leading_zero || goes_on) fail("an integer that is not negative, in plain digits");
    return value;
  }
  /// Throws unless only white space is left.
  void end() {
    skip_spaces();
    if (at_ != text_.size()) fail("nothing after the last '}'");
  }

  /// `text`, shortened and without control characters, for an error.
  static std::string printable(std::string_view text) {
    std::string result(text.substr(0, 100));
    for (char& c : result) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
    }
    return text.size() > result.size() ? result + "..." : result;
  }

 private:
  [[noreturn]] void fail(const char* required) const {
    throw Error(
        where_, std::string("JSON with ") + required,
        at_ < text_.size() ? words("'", printable(text_.substr(at_, 1)), "' at byte ", at_) : words("its end at byte ", at_));
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }
  /// Reads over c if it comes next.
  bool accept(char c) {
    skip_spaces();
    const bool found = at_ < text_.size() && text_[at_] == c;
    if (found) ++at_;
    return found;
  }
  void take(char c, const char* required) {
    if (!accept(c)) fail(required);
  }
  unsigned hex4() {
    unsigned value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("four hexadecimal digits after '\\u'");
      value = 16 * value + static_cast<unsigned>(digit);
    }
    return value;
  }
  void escape(std::string& out) {
    const char kind = at_ < text_.size() ? text_[at_] : '\0';
    constexpr std::string_view kinds = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    if (kind != 'u') {
      const std::size_t found = kind == '\0' ? std::string_view::npos : kinds.find(kind);
      if (found == std::string_view::npos) fail("a known escape after '\\'");
      out += meanings[found];
      ++at_;
      return;
    }
    ++at_;
    unsigned code = hex4();
    if (code >= 0xDC00 && code <= 0xDFFF) fail("surrogates in pairs");
    if (code >= 0xD800 && code <= 0xDBFF) {
      if (text_.substr(at_, 2) != "\\u") fail("surrogates in pairs");
      at_ += 2;
      const unsigned low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("surrogates in pairs");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    const auto put = [&](unsigned byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    } else {
      put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F)), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    }
  }

  std::string_view text_;
  std::string where_;
  std::size_t at_ = 0;
};

}  // namespace coyote::inline v0::detail

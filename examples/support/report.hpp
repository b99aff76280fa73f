// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

namespace support {

/// printf into a string, for numbers in tables.
template <class... Args>
std::string format(const char* pattern, Args... args) {
  const int size = std::snprintf(nullptr, 0, pattern, args...);
  std::string text(static_cast<std::size_t>(size), '\0');
  std::snprintf(text.data(), text.size() + 1, pattern, args...);
  return text;
}

/// "1 234 567": thousands apart.
inline std::string grouped(long long value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && digits[i - 1] != '-' && (digits.size() - i) % 3 == 0) text += ' ';
    text += digits[i];
  }
  return text;
}

/// "4.2 s", "3 min 05 s", "2 h 10 min".
inline std::string duration(double seconds) {
  if (seconds < 60) return format("%.1f s", seconds);
  const long whole = static_cast<long>(seconds + 0.5);
  if (whole < 3600) return format("%ld min %02ld s", whole / 60, whole % 60);
  return format("%ld h %02ld min", whole / 3600, whole % 3600 / 60);
}

/// Characters that a terminal shows for UTF-8 text without wide or combining characters.
inline std::size_t shown_width(const std::string& text) {
  std::size_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return width;
}

/// A table in plain text: the first column to the left, the others to the right, as wide as their widest cell.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  /// Cells that are missing at the end stay empty.
  void add(std::vector<std::string> cells) {
    cells.resize(rows_[0].size());
    rows_.push_back(std::move(cells));
  }
  std::string text() const {
    std::vector<std::size_t> widths(rows_[0].size());
    for (const auto& row : rows_) {
      for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], shown_width(row[c]));
    }
    std::string result;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      for (std::size_t c = 0; c < widths.size(); ++c) {
        const std::string padding(widths[c] - shown_width(rows_[r][c]), ' ');
        result += c == 0 ? rows_[r][c] + padding : "   " + padding + rows_[r][c];
      }
      result.erase(result.find_last_not_of(' ') + 1);
      result += '\n';
      if (r == 0) {
        for (std::size_t c = 0; c < widths.size(); ++c) result += std::string(c == 0 ? 0 : 3, ' ') + std::string(widths[c], '-');
        result += '\n';
      }
    }
    return result;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// Progress of a training run: one line that is redrawn on a terminal; elsewhere (a file, a pipe) a new line for every
/// tenth of the way. Written to the standard error stream, so that results can be redirected alone.
class Progress {
 public:
  Progress(std::string label, long steps, std::FILE* out = stderr)
      : label_(std::move(label)),
        steps_(steps < 1 ? 1 : steps),
        out_(out),
        terminal_(::isatty(::fileno(out)) == 1),
        start_(Clock::now()) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { clear(); }

  /// Shows that `step` steps are done, with the latest loss and accuracy (in 0 .. 1; below 0 = not known yet).
  void show(long step, double loss, double accuracy) {
    const auto now = Clock::now();
    if (terminal_) {
      // Ten times a second is as often as an eye can follow.
      if (step < steps_ && drawn_ && now - last_ < std::chrono::milliseconds(100)) return;
    } else {
      const long tenth = 10 * step / steps_;
      if (tenth == tenth_) return;
      tenth_ = tenth;
    }
    last_ = now;
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    const double left = step > 0 ? elapsed * static_cast<double>(steps_ - step) / static_cast<double>(step) : 0;
    std::string line = format("%-22s ", label_.c_str()) + bar(step) + format(" %ld/%ld  loss %.4f", step, steps_, loss);
    if (accuracy >= 0) line += format("  accuracy %.1f %%", 100 * accuracy);
    line += "  " + (step < steps_ ? duration(left) + " left" : duration(elapsed));
    std::fprintf(out_, terminal_ ? "\r\x1b[K%s" : "%s\n", line.c_str());
    std::fflush(out_);
    drawn_ = true;
  }
  /// Removes the line from a terminal, so that other text can follow.
  void clear() {
    if (terminal_ && drawn_) {
      std::fputs("\r\x1b[K", out_);
      std::fflush(out_);
    }
    drawn_ = false;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr long bar_width = 20;

  std::string bar(long step) const {
    if (!terminal_) return format("%3ld %%", 100 * step / steps_);
    const long filled = bar_width * std::min(step, steps_) / steps_;
    std::string text = "[";
    for (long i = 0; i < bar_width; ++i) text += i < filled ? '#' : '.';
    return text + "]";
  }

  std::string label_;
  long steps_, tenth_ = -1;
  std::FILE* out_;
  bool terminal_, drawn_ = false;
  Clock::time_point start_, last_{};
};

}  // namespace support

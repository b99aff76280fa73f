// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "coyote/core/error.hpp"
#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

namespace detail {
/// An open file that closes itself.
class FileHandle {
 public:
  explicit FileHandle(int number) : number_(number) {}
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;
  ~FileHandle() { close(); }
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }
  bool close() { return number_ < 0 || ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

inline std::string system_message(int error) { return std::generic_category().message(error); }
}  // namespace detail

/// A file that appears under its name only when it is complete: bytes go to a new file beside it, which commit() makes
/// durable and renames. Without commit, or after an error, the new file is removed and what stood under the name before
/// stays as it was. Errors name the path: a folder that is missing or not writable, a name that is taken by something
/// other than a regular file, a full disk.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path) : path_(std::move(path)), file_(create()) {}
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (!committed_) ::unlink(temporary_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    if (buffer_.size() + bytes.size() > buffer_bytes) flush();
    if (bytes.size() >= buffer_bytes) {
      put(bytes);
    } else {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  void commit() {
    flush();
    if (::fsync(file_.number()) != 0 || !file_.close()) fail("space for a file");
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("a path that can be replaced");
    committed_ = true;
    // The new name itself becomes durable with the folder. Some file systems cannot do that; the file is complete anyway.
    const std::size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const detail::FileHandle directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.is_open()) static_cast<void>(::fsync(directory.number()));
  }

 private:
  static constexpr std::size_t buffer_bytes = std::size_t{1} << 16;

  [[noreturn]] void fail(const char* required) const { throw Error(path_, required, detail::system_message(errno)); }

  int create() {
    struct stat found;
    if (::stat(path_.c_str(), &found) == 0 && !S_ISREG(found.st_mode)) {
      throw Error(path_, "the path of a regular file", S_ISDIR(found.st_mode) ? "a folder" : "something else");
    }
    for (int attempt = 0;; ++attempt) {
      temporary_ = words(path_, ".partial-", ::getpid(), "-", attempt);
      const int number = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (number >= 0) return number;
      if (errno != EEXIST || attempt == 1000) fail("a folder to write into");
    }
  }
  void flush() {
    put(buffer_);
    buffer_.clear();
  }
  void put(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ::ssize_t written = ::write(file_.number(), bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("space for a file");
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  std::string path_, temporary_;
  detail::FileHandle file_;
  std::vector<std::byte> buffer_;
  bool committed_ = false;
};

/// Writes a whole file, atomically.
inline void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

/// Reads a regular file from its beginning on.
class InputFile {
 public:
  explicit InputFile(std::string path) : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    struct stat found;
    if (!file_.is_open() || ::fstat(file_.number(), &found) != 0) {
      throw Error(path_, "a file that can be read", detail::system_message(errno));
    }
    if (!S_ISREG(found.st_mode)) throw Error(path_, "a regular file", S_ISDIR(found.st_mode) ? "a folder" : "something else");
    size_ = static_cast<Index>(found.st_size);
  }

  const std::string& path() const { return path_; }
  /// Bytes in the whole file.
  Index size() const { return size_; }
  /// Fills `to` with the next bytes.
  void read(std::span<std::byte> to) {
    while (!to.empty()) {
      const ::ssize_t got = ::read(file_.number(), to.data(), to.size());
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw Error(path_, words(to.size(), " more bytes"), got == 0 ? "its end" : detail::system_message(errno));
      to = to.subspan(static_cast<std::size_t>(got));
    }
  }

 private:
  std::string path_;
  detail::FileHandle file_;
  Index size_ = 0;
};

}  // namespace coyote::inline v0

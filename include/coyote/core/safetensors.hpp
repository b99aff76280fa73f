// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "coyote/core/file.hpp"
#include "coyote/core/json.hpp"
#include "coyote/core/rows.hpp"

namespace coyote::inline v0 {

/// The safetensors format: 8 bytes with the header's length N (little endian), N bytes of JSON, then the tensors' bytes,
/// row-major and without gaps. The header maps each name to {"dtype", "shape", "data_offsets": [begin, end]}, and
/// "__metadata__" to strings.
/// Source: https://huggingface.co/docs/safetensors, section "Format".

static_assert(std::endian::native == std::endian::little, "safetensors are written as they lie in memory: little endian");

/// The type of a tensor's elements.
enum class Dtype { f64, f32, f16, bfloat16, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

namespace detail {
struct DtypeFacts {
  std::string_view name;
  Index bytes;
};
/// In the order of Dtype.
inline constexpr DtypeFacts dtype_facts[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2},
                                             {"I8", 1},  {"U64", 8}, {"U32", 4}, {"U16", 2},  {"U8", 1},  {"BOOL", 1}};
inline constexpr std::string_view metadata_name = "__metadata__";
inline constexpr Index largest_header = 100'000'000;

template <class T>
struct DtypeOf;
// clang-format off
template <> struct DtypeOf<double> { static constexpr Dtype value = Dtype::f64; };
template <> struct DtypeOf<float> { static constexpr Dtype value = Dtype::f32; };
template <> struct DtypeOf<std::int64_t> { static constexpr Dtype value = Dtype::i64; };
template <> struct DtypeOf<std::int32_t> { static constexpr Dtype value = Dtype::i32; };
template <> struct DtypeOf<std::uint64_t> { static constexpr Dtype value = Dtype::u64; };
template <> struct DtypeOf<std::uint32_t> { static constexpr Dtype value = Dtype::u32; };
template <> struct DtypeOf<std::uint8_t> { static constexpr Dtype value = Dtype::u8; };
// clang-format on

/// Bytes of a tensor; throws when they do not fit an Index.
inline Index tensor_bytes(const std::string& where, Dtype dtype, std::span<const Index> shape) {
  Index bytes = dtype_facts[static_cast<std::size_t>(dtype)].bytes;
  for (const Index extent : shape) {
    if (extent < 0) throw Error(where, "extents of at least 0", words(extent));
    if (__builtin_mul_overflow(bytes, extent, &bytes)) throw Error(where, "a shape of less than 2^63 bytes", "a larger one");
  }
  return bytes;
}
inline std::string tensor_place(const std::string& path, std::string_view name) {
  return path + ": tensor '" + JsonReader::printable(name) + "'";
}
}  // namespace detail

/// The Dtype of a C++ type.
template <class T>
inline constexpr Dtype dtype_of = detail::DtypeOf<T>::value;
constexpr std::string_view name_of(Dtype dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].name; }
constexpr Index bytes_of(Dtype dtype) { return detail::dtype_facts[static_cast<std::size_t>(dtype)].bytes; }

/// Strings that a file carries beside its tensors.
using Metadata = std::vector<std::pair<std::string, std::string>>;

/// A tensor to be written. A view: its data must live until the file is written.
class TensorToWrite {
 public:
  /// A tensor of any rank that lies in `data` row-major.
  template <class T>
  TensorToWrite(std::string name, std::vector<Index> shape, std::span<T> data)
      : name_(std::move(name)), dtype_(dtype_of<std::remove_const_t<T>>), shape_(std::move(shape)), row_(std::as_bytes(data)) {}
  /// A matrix, of any stride.
  template <class T>
  TensorToWrite(std::string name, Rows<T> matrix)
      : name_(std::move(name)),
        dtype_(dtype_of<std::remove_const_t<T>>),
        shape_{matrix.rows, matrix.width},
        row_(reinterpret_cast<const std::byte*>(matrix.data), static_cast<std::size_t>(matrix.width) * sizeof(T)),
        rows_(matrix.rows),
        stride_(matrix.stride * static_cast<Index>(sizeof(T))) {}

  const std::string& name() const { return name_; }
  Dtype dtype() const { return dtype_; }
  const std::vector<Index>& shape() const { return shape_; }
  /// Bytes of its data, whatever the shape says.
  Index bytes() const { return rows_ * static_cast<Index>(row_.size()); }
  void write(AtomicFile& file) const {
    for (Index r = 0; r < rows_; ++r) file.write({row_.data() + r * stride_, row_.size()});
  }

 private:
  std::string name_;
  Dtype dtype_;
  std::vector<Index> shape_;
  std::span<const std::byte> row_;
  Index rows_ = 1, stride_ = 0;
};

/// Writes a safetensors file, atomically (see AtomicFile). Tensors of wider elements come first, so that each lies on a
/// multiple of its element's size; otherwise the order is kept. Errors: names that repeat or are not UTF-8, data that does
/// not fill its shape, and AtomicFile's; before anything is written where that can be known.
inline void write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors, const Metadata& metadata = {}) {
  std::vector<const TensorToWrite*> order;
  std::vector<std::string_view> names{detail::metadata_name};
  for (const TensorToWrite& tensor : tensors) {
    const std::string where = detail::tensor_place(path, tensor.name());
    if (!detail::is_utf8(tensor.name())) throw Error(where, "a name in UTF-8", "other bytes");
    const Index bytes = detail::tensor_bytes(where, tensor.dtype(), tensor.shape());
    if (bytes != tensor.bytes()) throw Error(where, words(bytes, " bytes for its shape"), words(tensor.bytes()));
    order.push_back(&tensor);
    names.push_back(tensor.name());
  }
  std::stable_sort(order.begin(), order.end(), [](auto* a, auto* b) { return bytes_of(a->dtype()) > bytes_of(b->dtype()); });
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    throw Error(path, "tensors with different names, none called __metadata__",
                "'" + detail::JsonReader::printable(*twice) + "'");
  }

  std::string header = "{";
  if (!metadata.empty()) {
    std::vector<std::string_view> keys;
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (!detail::is_utf8(key) || !detail::is_utf8(value))
        throw Error(path, "metadata in UTF-8", detail::JsonReader::printable(key));
      if (!keys.empty()) header += ',';
      keys.push_back(key);
      detail::append_json_string(header, key);
      header += ':';
      detail::append_json_string(header, value);
    }
    header += '}';
    std::sort(keys.begin(), keys.end());
    if (const auto twice = std::adjacent_find(keys.begin(), keys.end()); twice != keys.end()) {
      throw Error(path, "metadata with different names", "'" + detail::JsonReader::printable(*twice) + "' twice");
    }
  }
  Index begin = 0;
  for (const TensorToWrite* tensor : order) {
    if (header.size() > 1) header += ',';
    detail::append_json_string(header, tensor->name());
    header += words(":{\"dtype\":\"", name_of(tensor->dtype()), "\",\"shape\":[");
    for (std::size_t i = 0; i < tensor->shape().size(); ++i) header += words(i == 0 ? "" : ",", tensor->shape()[i]);
    header += words("],\"data_offsets\":[", begin, ",", begin + tensor->bytes(), "]}");
    begin += tensor->bytes();
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (static_cast<Index>(header.size()) > detail::largest_header) {
    throw Error(path, words("a header of at most ", detail::largest_header, " bytes"), words(header.size()));
  }

  AtomicFile file(path);
  const std::uint64_t length = header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const TensorToWrite* tensor : order) tensor->write(file);
  file.commit();
}

/// A safetensors file in memory, everything about it checked: what a hostile file says never leads outside of it.
/// Errors name the file and the tensor: a header that is too long, not JSON or not of the format's form; a tensor of an
/// unknown type, whose bytes are not its shape's, lie outside the data, or overlap or leave a gap; bytes that belong to no
/// tensor.
class Safetensors {
 public:
  struct Tensor {
    std::string name;
    Dtype dtype = Dtype::f32;
    std::vector<Index> shape;
    std::span<const std::byte> bytes;  ///< row-major; on a multiple of the element's size only if the writer saw to it

    Index size() const { return static_cast<Index>(bytes.size()) / bytes_of(dtype); }
  };

  static Safetensors read(const std::string& path) { return Safetensors(path); }

  const std::string& path() const { return path_; }
  /// In the order of their bytes.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Metadata& metadata() const { return metadata_; }

  /// The tensor of that name, or null.
  const Tensor* find(std::string_view name) const {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(), [&](const Tensor& t) { return t.name == name; });
    return found == tensors_.end() ? nullptr : &*found;
  }
  /// The text of that name, or null.
  const std::string* find_metadata(std::string_view name) const {
    const auto found = std::find_if(metadata_.begin(), metadata_.end(), [&](const auto& m) { return m.first == name; });
    return found == metadata_.end() ? nullptr : &found->second;
  }

  /// Throws unless tensor `name` is there, with the type and shape of the matrix.
  template <class T>
  void require(std::string_view name, Rows<T> like) const {
    const Tensor& tensor = require<T>(name);
    if (tensor.shape.size() != 2 || tensor.shape[0] != like.rows || tensor.shape[1] != like.width) {
      throw Error(detail::tensor_place(path_, name), words("shape [", like.rows, ", ", like.width, "]"), text_of(tensor.shape));
    }
  }
  /// Copies tensor `name` to a matrix of the same type and shape. Errors: no such tensor, another type or shape.
  template <class T>
  void copy(std::string_view name, Rows<T> to) const {
    require(name, to);
    const Tensor& tensor = *find(name);
    const std::size_t row_bytes = static_cast<std::size_t>(to.width) * sizeof(T);
    if (row_bytes == 0) return;
    for (Index r = 0; r < to.rows; ++r) {
      std::memcpy(to.row(r), tensor.bytes.data() + static_cast<std::size_t>(r) * row_bytes, row_bytes);
    }
  }
  /// The elements of tensor `name`, of whatever shape. Errors: no such tensor, another type.
  template <class T>
  std::vector<T> values(std::string_view name) const {
    const Tensor& tensor = require<T>(name);
    std::vector<T> result(static_cast<std::size_t>(tensor.size()));
    if (!result.empty()) std::memcpy(result.data(), tensor.bytes.data(), tensor.bytes.size());
    return result;
  }

 private:
  explicit Safetensors(const std::string& path) : path_(path) {
    InputFile file(path);
    std::uint64_t length = 0;
    if (file.size() < 8) throw Error(path, "a safetensors file, 8 bytes at least", words(file.size(), " bytes"));
    file.read(std::as_writable_bytes(std::span(&length, 1)));
    const Index rest = file.size() - 8;
    if (length > static_cast<std::uint64_t>(std::min(rest, detail::largest_header))) {
      throw Error(path, words("a header of at most ", std::min(rest, detail::largest_header), " bytes"), words(length));
    }
    std::string header(static_cast<std::size_t>(length), '\0');
    file.read(std::as_writable_bytes(std::span(header.data(), header.size())));
    const Index data_bytes = rest - static_cast<Index>(length);
    const std::vector<Run> runs = parse(header);
    check(runs, data_bytes);
    data_.reset(new (std::nothrow) std::byte[static_cast<std::size_t>(data_bytes)]);
    if (data_ == nullptr) throw Error(path, words("memory for ", data_bytes, " bytes"), "less");
    file.read({data_.get(), static_cast<std::size_t>(data_bytes)});
    for (std::size_t i = 0; i < runs.size(); ++i) {
      tensors_[i].bytes = {data_.get() + runs[i].begin, static_cast<std::size_t>(runs[i].end - runs[i].begin)};
    }
  }

  /// Where a tensor says that its bytes lie.
  struct Run {
    Index begin = 0, end = 0;
  };

  /// Fills tensors_ and metadata_ from the header; the runs belong to tensors_ one by one, both in the order of the bytes.
  std::vector<Run> parse(const std::string& header) {
    if (header.empty() || header[0] != '{') throw Error(path_, "a header that begins with '{'", "another byte");
    std::vector<std::pair<Run, Tensor>> found;
    detail::JsonReader json(header, path_ + ": header");
    json.object([&](const std::string& name) {
      if (name == detail::metadata_name) {
        json.object([&](const std::string& key) { metadata_.emplace_back(key, json.string()); });
      } else {
        found.push_back(parse_tensor(json, name));
      }
    });
    json.end();
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
      return a.first.begin != b.first.begin ? a.first.begin < b.first.begin : a.first.end < b.first.end;
    });
    std::vector<Run> runs;
    for (auto& [run, tensor] : found) {
      runs.push_back(run);
      tensors_.push_back(std::move(tensor));
    }
    return runs;
  }
  std::pair<Run, Tensor> parse_tensor(detail::JsonReader& json, const std::string& name) {
    const std::string where = detail::tensor_place(path_, name);
    std::vector<Index> offsets;
    Tensor tensor{name, Dtype::f32, {}, {}};
    int fields = 0;
    json.object([&](const std::string& field) {
      ++fields;
      if (field == "dtype") {
        const std::string dtype = json.string();
        const auto known = std::find_if(std::begin(detail::dtype_facts), std::end(detail::dtype_facts),
                                        [&](const detail::DtypeFacts& facts) { return facts.name == dtype; });
        if (known == std::end(detail::dtype_facts)) {
          throw Error(where, "a known dtype (F64, F32, F16, BF16, I64 ... I8, U64 ... U8, BOOL)",
                      "'" + detail::JsonReader::printable(dtype) + "'");
        }
        tensor.dtype = static_cast<Dtype>(known - std::begin(detail::dtype_facts));
      } else if (field == "shape") {
        json.array([&] { tensor.shape.push_back(json.integer()); });
      } else if (field == "data_offsets") {
        json.array([&] { offsets.push_back(json.integer()); });
      } else {
        throw Error(where, "the fields dtype, shape and data_offsets", "'" + detail::JsonReader::printable(field) + "'");
      }
    });
    // Names within an object differ, so three known fields are all of them.
    if (fields != 3) throw Error(where, "the fields dtype, shape and data_offsets", words(fields, " of them"));
    if (offsets.size() != 2) throw Error(where, "two data_offsets", words(offsets.size()));
    return {Run{offsets[0], offsets[1]}, std::move(tensor)};
  }
  void check(const std::vector<Run>& runs, Index data_bytes) const {
    Index end = 0;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const auto [begin, run_end] = runs[i];
      const std::string where = detail::tensor_place(path_, tensors_[i].name);
      if (begin > run_end) throw Error(where, "data_offsets that ascend", words(begin, " and ", run_end));
      if (run_end > data_bytes)
        throw Error(where, words("data_offsets within the ", data_bytes, " bytes of data"), words(run_end));
      if (begin != end) throw Error(where, words("data that begins where the last tensor's ends, at ", end), words(begin));
      const Index bytes = detail::tensor_bytes(where, tensors_[i].dtype, tensors_[i].shape);
      if (run_end - begin != bytes) throw Error(where, words(bytes, " bytes for its shape and dtype"), words(run_end - begin));
      end = run_end;
    }
    if (end != data_bytes) throw Error(path_, words("an end after the last tensor, ", end, " bytes of data"), words(data_bytes));
  }

  template <class T>
  const Tensor& require(std::string_view name) const {
    const Tensor* tensor = find(name);
    if (tensor == nullptr) throw Error(path_, "a tensor '" + detail::JsonReader::printable(name) + "'", "none of that name");
    if (tensor->dtype != dtype_of<T>) {
      throw Error(detail::tensor_place(path_, name), words("dtype ", name_of(dtype_of<T>)), std::string(name_of(tensor->dtype)));
    }
    return *tensor;
  }
  static std::string text_of(std::span<const Index> shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += words(i == 0 ? "" : ", ", shape[i]);
    return text + "]";
  }

  std::string path_;
  std::unique_ptr<std::byte[]> data_;
  std::vector<Tensor> tensors_;
  Metadata metadata_;
};

}  // namespace coyote::inline v0

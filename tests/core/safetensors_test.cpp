// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "coyote/core/safetensors.hpp"

namespace cy = coyote;
namespace fs = std::filesystem;

namespace {

/// A folder of this test's own that goes with it.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("coyote-safetensors-" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
  long files() const { return std::distance(fs::directory_iterator(path), fs::directory_iterator()); }
};

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

/// A file with this header and so many bytes of data.
std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return bytes + header + std::string(data_bytes, '\x01');
}

/// What reading says about these bytes: the error, or "" when they are accepted.
std::string complaint(const Folder& folder, const std::string& bytes) {
  const std::string path = folder / "hostile.safetensors";
  put(path, bytes);
  try {
    cy::Safetensors::read(path);
    return "";
  } catch (const cy::Error& error) {
    CHECK(error.where().find(path) == 0);
    return error.what();
  }
}
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/// What writing says, or "".
template <class Write>
std::string refusal(Write&& write) {
  try {
    write();
    return "";
  } catch (const cy::Error& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("the bytes of a file are those of the published format") {
  const Folder folder;
  const std::string path = folder / "golden.safetensors";
  const std::vector<float> weight{1.0f, -2.0f, 0.5f};
  const std::vector<double> moment{1.0};
  const std::vector<std::int64_t> step{-2};
  const std::vector<cy::TensorToWrite> tensors{
      {"layers.0.weight", {1, 3}, std::span(weight)}, {"moment", {1}, std::span(moment)}, {"step", {}, std::span(step)}};
  cy::write_safetensors(path, tensors, {{"format", "pt"}, {"note", "a\"b\n"}});

  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\",\"note\":\"a\\\"b\\u000a\"},"
      "\"moment\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},"
      "\"step\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[8,16]},"
      "\"layers.0.weight\":{\"dtype\":\"F32\",\"shape\":[1,3],\"data_offsets\":[16,28]}}";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  std::string expected(8, '\0');
  expected[0] = static_cast<char>(padded.size() & 0xFF);
  expected[1] = static_cast<char>(padded.size() >> 8);
  expected += padded;
  expected += std::string("\0\0\0\0\0\0\xf0\x3f", 8);               // 1.0 as binary64
  expected += std::string("\xfe\xff\xff\xff\xff\xff\xff\xff", 8);   // -2 in two's complement
  expected += std::string("\0\0\x80\x3f\0\0\0\xc0\0\0\0\x3f", 12);  // 1, -2, 0.5 as binary32
  CHECK(content(path) == expected);
  CHECK(folder.files() == 1);
}

TEST_CASE("what was written is read") {
  const Folder folder;
  const std::string path = folder / "round.safetensors";
  cy::Matrix<float> whole(3, 4);
  for (cy::Index i = 0; i < whole.size(); ++i) whole.data()[i] = static_cast<float>(i);
  const std::vector<double> doubles{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint8_t> bytes{7};
  const std::vector<std::uint64_t> none;
  const std::vector<cy::TensorToWrite> tensors{{"bytes", {1, 1, 1}, std::span(bytes)},
                                               {"right half", whole.view().columns(2, 2)},
                                               {"empty", {0, 5}, std::span(none)},
                                               {"d\xc3\xa9j\xc3\xa0 \"vu\"\\", {2, 3}, std::span(doubles)}};
  cy::write_safetensors(path, tensors, {{"key", "\x01 \xf0\x9f\x90\xba"}});
  const cy::Safetensors file = cy::Safetensors::read(path);
  CHECK(file.tensors().size() == 4);
  REQUIRE(file.find_metadata("key") != nullptr);
  CHECK(*file.find_metadata("key") == "\x01 \xf0\x9f\x90\xba");
  CHECK(file.find_metadata("other") == nullptr);
  CHECK(file.values<double>("d\xc3\xa9j\xc3\xa0 \"vu\"\\") == doubles);
  CHECK(file.values<std::uint8_t>("bytes") == bytes);
  CHECK(file.values<std::uint64_t>("empty").empty());
  cy::Matrix<float> half(3, 2);
  file.copy("right half", half.view());
  for (cy::Index r = 0; r < 3; ++r) {
    for (cy::Index c = 0; c < 2; ++c) CHECK(half(r, c) == whole(r, c + 2));
  }
  cy::Matrix<float> target(3, 4);
  file.copy("right half", target.view().columns(1, 2));
  CHECK(target(2, 1) == whole(2, 2));
  CHECK(target(2, 0) == 0);
  CHECK(target(2, 3) == 0);

  CHECK(contains(refusal([&] { file.copy("right half", target.view()); }), "'right half': required shape [3, 4], came [3, 2]"));
  CHECK(contains(refusal([&] { file.values<double>("right half"); }), "required dtype F64, came F32"));
  CHECK(contains(refusal([&] { file.values<double>("left"); }), "required a tensor 'left', came none of that name"));
  cy::write_safetensors(path, {}, {});
  CHECK(cy::Safetensors::read(path).tensors().empty());
}

TEST_CASE("files of others are read: any order of names, white space, every dtype") {
  const Folder folder;
  CHECK(complaint(folder, file_of("{}", 0)) == "");
  CHECK(complaint(folder, file_of("{ \"b\" : {\"shape\":[2],\n\"data_offsets\":[2,4],\t\"dtype\":\"U8\"},"
                                  "\"a\":{\"dtype\":\"BF16\",\"shape\":[1,1],\"data_offsets\":[0,2]}}   ",
                                  4)) == "");
  CHECK(complaint(folder,
                  file_of("{\"\\u0061\\ud83d\\udc3a\\/\":{\"dtype\":\"BOOL\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0)) == "");
  const std::pair<const char*, std::size_t> dtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                                        {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U64", 8},  {"U32", 4},
                                                        {"U16", 2}, {"U8", 1},  {"BOOL", 1}};
  for (const auto& dtype : dtypes) {
    const std::size_t bytes = dtype.second;
    const auto header = [&](std::size_t end) {
      return "{\"t\":{\"dtype\":\"" + std::string(dtype.first) + "\",\"shape\":[3],\"data_offsets\":[0," + std::to_string(end) +
             "]}}";
    };
    CHECK(complaint(folder, file_of(header(3 * bytes), 3 * bytes)) == "");
    CHECK(contains(complaint(folder, file_of(header(3 * bytes + 1), 3 * bytes + 1)), "bytes for its shape and dtype"));
  }
  put(folder / "misaligned", file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                     "\"b\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[1,9]}}",
                                     9));
  CHECK(cy::Safetensors::read(folder / "misaligned").values<double>("b")[0] == 0x1.1010101010101p-1007);
}

TEST_CASE("a file cut anywhere, or longer than it says, is refused") {
  const Folder folder;
  const std::string path = folder / "small.safetensors";
  const std::vector<float> a{1, 2}, b{3};
  cy::write_safetensors(path, std::vector<cy::TensorToWrite>{{"a", {2}, std::span(a)}, {"b", {1}, std::span(b)}}, {{"k", "v"}});
  const std::string whole = content(path);
  REQUIRE(complaint(folder, whole) == "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO("size ", size);
    CHECK(complaint(folder, whole.substr(0, size)) != "");
  }
  CHECK(contains(complaint(folder, whole + "x"), "an end after the last tensor"));
  // Any single byte may be changed to anything: the file is accepted or refused, never read outside of its bounds.
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int change : {0x01, 0x10, 0x80, 0xFF}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ change);
      const std::string said = complaint(folder, changed);
      if (at < 8) CHECK(said != "");
    }
  }
}

TEST_CASE("hostile headers are refused, by name") {
  const Folder folder;
  const auto tensor = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string("{\"w\":{\"dtype\":\"") + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  const auto two = [](const char* first, const char* second) {
    return std::string("{\"v\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":") + first +
           "},\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + second + "}}";
  };
  struct Case {
    std::string header;
    std::size_t data;
    const char* expected;
  };
  const Case cases[] = {
      {tensor("F32", "[2]", "[8,0]"), 8, "tensor 'w': required data_offsets that ascend"},
      {tensor("F32", "[2]", "[0,9]"), 8, "data_offsets within the 8 bytes"},
      {tensor("F32", "[2]", "[4,12]"), 12, "begins where the last tensor's ends"},
      {tensor("F32", "[3]", "[0,8]"), 8, "required 12 bytes for its shape and dtype, came 8"},
      {tensor("F64", "[2]", "[0,8]"), 8, "required 16 bytes"},
      {tensor("F31", "[2]", "[0,8]"), 8, "a known dtype"},
      {tensor("f32", "[2]", "[0,8]"), 8, "a known dtype"},
      {tensor("F32", "[-2]", "[0,8]"), 8, "not negative"},
      {tensor("F32", "[2.0]", "[0,8]"), 8, "plain digits"},
      {tensor("F32", "[2e0]", "[0,8]"), 8, "plain digits"},
      {tensor("F32", "[02]", "[0,8]"), 8, "plain digits"},
      {tensor("F32", "[2,]", "[0,8]"), 8, "plain digits"},
      {tensor("F32", "[2 3]", "[0,8]"), 8, "',' or ']'"},
      {tensor("F32", "2", "[0,8]"), 8, "'['"},
      {tensor("F32", "[2]", "[0,8,8]"), 8, "two data_offsets"},
      {tensor("F32", "[2]", "[]"), 8, "two data_offsets"},
      {tensor("F32", "[9223372036854775807,4]", "[0,8]"), 8, "less than 2^63 bytes"},
      {tensor("F32", "[4294967296,4294967296]", "[0,0]"), 0, "less than 2^63 bytes"},
      {tensor("F32", "[9223372036854775808]", "[0,8]"), 8, "below 2^63"},
      {tensor("F32", "[2]", "[0,99999999999999999999]"), 8, "below 2^63"},
      {two("[0,4]", "[2,6]"), 6, "tensor 'w': required data that begins where"},
      {two("[0,4]", "[0,4]"), 4, "begins where"},
      {two("[0,4]", "[5,9]"), 9, "begins where"},
      {two("[0,4]", "[4,8]"), 9, "an end after the last tensor"},
      {"{\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,"
       "0]}}",
       0, "'w' twice"},
      {"{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "'dtype' twice"},
      {"{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0]}}", 0, "'dtype' twice"},
      {"{\"w\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0, "2 of them"},
      {"{\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}", 0, "came 'x'"},
      {"{\"w\":[]}", 0, "'{'"},
      {"{\"__metadata__\":{\"k\":1}}", 0, "a string"},
      {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "'k' twice"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' twice"},
      {"{\"__metadata__\":{\"k\":\"\\x\"}}", 0, "a known escape"},
      {"{\"__metadata__\":{\"k\":\"\\u12g4\"}}", 0, "four hexadecimal digits"},
      {"{\"__metadata__\":{\"k\":\"\\ud800\"}}", 0, "surrogates in pairs"},
      {"{\"__metadata__\":{\"k\":\"\\ud800\\u0041\"}}", 0, "surrogates in pairs"},
      {"{\"__metadata__\":{\"k\":\"\\udc00\"}}", 0, "surrogates in pairs"},
      {"{\"__metadata__\":{\"k\":\"a\nb\"}}", 0, "control characters"},
      {"{\"__metadata__\":{\"k\":\"\xff\"}}", 0, "UTF-8"},
      {"{\"__metadata__\":{\"k\":\"\xc0\x80\"}}", 0, "UTF-8"},
      {"{\"__metadata__\":{\"k\":\"\xed\xa0\x80\"}}", 0, "UTF-8"},
      {"{\"__metadata__\":{\"k\":\"\xf4\x90\x80\x80\"}}", 0, "UTF-8"},
      {"{\"__metadata__\":{\"k\":\"\xe2\x82\"}}", 0, "UTF-8"},
      {"{} {}", 0, "nothing after"},
      {"[]", 0, "begins with '{'"},
      {" {}", 0, "begins with '{'"},
      {"", 0, "begins with '{'"},
      {std::string(100000, '['), 0, "begins with '{'"},
      {"{\"w\":" + std::string(100000, '{'), 0, "a string"},
      {"{\"w\":{\"shape\":" + std::string(100000, '['), 0, "plain digits"},
  };
  for (const Case& c : cases) {
    INFO(c.header.substr(0, 200));
    const std::string said = complaint(folder, file_of(c.header, c.data));
    INFO(said);
    CHECK(contains(said, c.expected));
  }
  std::string huge = file_of("{}", 0);
  huge[7] = '\x7f';
  CHECK(contains(complaint(folder, huge), "a header of at most 2 bytes"));
  huge[7] = '\xff';
  CHECK(contains(complaint(folder, huge), "a header of at most 2 bytes"));
  const std::string name_bomb = "{\"" + std::string(5000, 'n') + "\\n\":{\"dtype\":\"?\"}}";
  CHECK(complaint(folder, file_of(name_bomb, 0)).size() < 600);
}

TEST_CASE("a header of more than 100 MB is refused before it is read") {
  const Folder folder;
  const std::string path = folder / "sparse";
  std::string length(8, '\0');
  const std::uint64_t claimed = 100'000'001;
  std::memcpy(length.data(), &claimed, 8);
  put(path, length);
  fs::resize_file(path, 8 + claimed);
  CHECK(contains(refusal([&] { cy::Safetensors::read(path); }), "a header of at most 100000000 bytes, came 100000001"));
}

TEST_CASE("what cannot be a file of tensors is refused before anything is written") {
  const Folder folder;
  const std::string path = folder / "out.safetensors";
  put(path, "old");
  const std::vector<float> a{1, 2};
  const auto write = [&](std::string name, std::vector<cy::Index> shape, const cy::Metadata& metadata = {}) {
    return refusal([&] {
      cy::write_safetensors(path, std::vector<cy::TensorToWrite>{{"first", {2}, std::span(a)}, {name, shape, std::span(a)}},
                            metadata);
    });
  };
  CHECK(contains(write("a", {3}), "tensor 'a': required 12 bytes for its shape, came 8"));
  CHECK(contains(write("a", {-1, -2}), "extents of at least 0"));
  CHECK(contains(write("a", {cy::Index{1} << 62, 4}), "less than 2^63"));
  CHECK(contains(write("first", {2}), "different names"));
  CHECK(contains(write("__metadata__", {2}), "none called __metadata__"));
  CHECK(contains(write("\xff", {2}), "a name in UTF-8"));
  CHECK(contains(write("a", {2}, {{"k", "1"}, {"k", "2"}}), "'k' twice"));
  CHECK(contains(write("a", {2}, {{"k", "\xff"}}), "metadata in UTF-8"));
  CHECK(content(path) == "old");
  CHECK(folder.files() == 1);
  CHECK(write("a", {2}) == "");
  CHECK(content(path) != "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("paths that cannot be read or written are errors that name them") {
  const Folder folder;
  const auto read = [](const std::string& path) { return refusal([&] { cy::Safetensors::read(path); }); };
  const auto write = [](const std::string& path) { return refusal([&] { cy::write_safetensors(path, {}); }); };
  CHECK(contains(read(folder / "absent"), "absent: required a file that can be read, came No such file"));
  CHECK(contains(read(folder.path.string()), "came a folder"));
  CHECK(contains(read("/dev/null"), "a regular file"));
  CHECK(contains(write(folder / "no such folder/x"), "required a folder to write into, came No such file"));
  CHECK(contains(write(folder.path.string()), "came a folder"));
  CHECK(contains(write("/dev/full"), "the path of a regular file"));
  CHECK(fs::is_character_file("/dev/full"));
  put(folder / "plain", "");
  CHECK(contains(write(folder / "plain/x"), "came Not a directory"));
  CHECK(contains(write("/proc/coyote-test"), "required a folder to write into"));
  CHECK(folder.files() == 1);
}

TEST_CASE("a disk that fills up leaves the old file and nothing else") {
  const Folder folder;
  const std::string path = folder / "old.safetensors";
  const std::vector<float> small{1, 2}, large(100000);
  cy::write_safetensors(path, std::vector<cy::TensorToWrite>{{"a", {2}, std::span(small)}});
  const std::string old = content(path);
  // A limit on the size of files fails in write() as a full disk does.
  struct rlimit limit;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{100}, rlim_t{70000}, rlim_t{399999}}) {
    const struct rlimit low { bytes, limit.rlim_max };
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &low) == 0);
    const std::string said = refusal([&] {
      cy::write_safetensors(path, std::vector<cy::TensorToWrite>{{"a", {100000}, std::span(large)}});
    });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK(contains(said, "old.safetensors: required space for a file"));
    CHECK(content(path) == old);
    CHECK(folder.files() == 1);
  }
  ::signal(SIGXFSZ, handler);
  cy::write_safetensors(path, std::vector<cy::TensorToWrite>{{"a", {100000}, std::span(large)}});
  CHECK(cy::Safetensors::read(path).values<float>("a") == large);
}

TEST_CASE("an abandoned atomic file disappears") {
  const Folder folder;
  const std::string path = folder / "x";
  {
    cy::AtomicFile file(path);
    file.write("half");
    CHECK(folder.files() == 1);
    CHECK(!fs::exists(path));
  }
  CHECK(folder.files() == 0);
  cy::write_file(path, "whole");
  CHECK(content(path) == "whole");
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <string>
#include <vector>

#include "coyote/core/safetensors.hpp"
#include "coyote/training/trainer.hpp"

namespace coyote::inline v0 {

namespace detail {
inline constexpr std::string_view steps_key = "coyote.steps", version_key = "coyote.version";

/// Metadata that was read from a checkpoint may be written again: our own entries are replaced.
inline void set_metadata(Metadata& metadata, std::string_view key, std::string value) {
  std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
  metadata.emplace_back(key, std::move(value));
}

/// Tensors to be written, with their values: what a visitor sees of a device's is gone when the visit ends.
class CollectedTensors {
 public:
  template <class T>
  void add(std::string name, Rows<T> matrix) {
    std::vector<std::byte>& copy = values_.emplace_back();
    for (Index r = 0; r < matrix.rows; ++r) {
      const auto row = std::as_bytes(std::span(matrix.row(r), static_cast<std::size_t>(matrix.width)));
      copy.insert(copy.end(), row.begin(), row.end());
    }
    const std::span<const T> all(reinterpret_cast<const T*>(copy.data()), copy.size() / sizeof(T));
    tensors_.emplace_back(std::move(name), std::vector<Index>{matrix.rows, matrix.width}, all);
  }
  std::span<const TensorToWrite> tensors() const { return tensors_; }

 private:
  std::vector<TensorToWrite> tensors_;
  std::vector<std::vector<std::byte>> values_;
};
}  // namespace detail

/// Writes a model's parameters as a safetensors file, atomically, each under its name.
template <class Model>
void save_parameters(Model& model, const std::string& path, Metadata metadata = {}) {
  detail::CollectedTensors all;
  auto add = [&](const Path& name, auto& p) { all.add(std::string(name.view()), p.value); };
  model.visit(add);
  detail::set_metadata(metadata, detail::version_key, COYOTE_VERSION);
  write_safetensors(path, all.tensors(), metadata);
}

/// Reads parameters by name from a safetensors file. Tensors that the model does not have are left alone.
/// Errors: one that the model has is missing, or has another type or shape; then the model stays as it was.
template <class Model>
void load_parameters(Model& model, const Safetensors& file) {
  auto check = [&](const Path& name, auto& p) { file.require(name.view(), p.value); };
  model.visit(check);
  auto copy = [&](const Path& name, auto& p) { file.copy(name.view(), p.value); };
  model.visit(copy);
}
template <class Model>
void load_parameters(Model& model, const std::string& path) {
  load_parameters(model, Safetensors::read(path));
}

/// Writes all that a training run carries: parameters, moments, the number of steps, and the caller's metadata (say, the
/// configuration and the curves so far). A run that goes on from it makes the same updates, bit for bit, as one that never
/// stopped.
template <class Model>
void save_checkpoint(Trainer<Model>& trainer, const std::string& path, Metadata metadata = {}) {
  detail::CollectedTensors all;
  trainer.visit_state([&](std::string_view kind, const Path& name, auto matrix) {
    all.add(std::string(kind) + std::string(name.view()), matrix);
  });
  detail::set_metadata(metadata, detail::version_key, COYOTE_VERSION);
  detail::set_metadata(metadata, detail::steps_key, words(trainer.steps()));
  write_safetensors(path, all.tensors(), metadata);
}

/// Restores what save_checkpoint wrote into a trainer built with the same options, and returns the file's metadata.
/// Errors: anything missing or of another shape; then the trainer stays as it was.
template <class Model>
Metadata load_checkpoint(Trainer<Model>& trainer, const std::string& path) {
  const Safetensors file = Safetensors::read(path);
  const std::string* steps = file.find_metadata(detail::steps_key);
  std::uint64_t count = 0;
  if (steps == nullptr) throw Error(path, "a training checkpoint (metadata coyote.steps)", "a file without it");
  const auto [end, error] = std::from_chars(steps->data(), steps->data() + steps->size(), count);
  if (error != std::errc() || end != steps->data() + steps->size())
    throw Error(path, "a number of steps in coyote.steps", *steps);
  trainer.visit_state([&](std::string_view kind, const Path& name, auto matrix) {
    file.require(std::string(kind) + std::string(name.view()), matrix);
  });
  trainer.visit_state([&](std::string_view kind, const Path& name, auto matrix) {
    file.copy(std::string(kind) + std::string(name.view()), matrix);
  });
  trainer.set_steps(count);
  return file.metadata();
}

}  // namespace coyote::inline v0

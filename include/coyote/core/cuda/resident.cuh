// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/cuda/context.cuh"

namespace coyote::inline v0 {

namespace cuda {

/// The arrays of a batch in one run of bytes, so that one copy brings all of them to the device.
class BatchImage {
 public:
  explicit BatchImage(const Batch& batch) : batch_(batch) {
    const bool packed = !batch.offsets.empty();
    offsets_ = place<std::int32_t>(packed ? batch.offsets.size() : 0);
    positions_ = place<std::int32_t>(packed ? static_cast<std::size_t>(batch.rows()) : 0);
    tokens_ = place<Token>(batch.tokens.size());
    label_rows_ = place<Index>(batch.label_rows.size());
    labels_ = place<Token>(batch.labels.size());
  }

  std::size_t bytes() const { return bytes_; }
  void write(std::byte* to) const {
    if (!batch_.offsets.empty()) {
      auto* offsets = reinterpret_cast<std::int32_t*>(to + offsets_);
      auto* positions = reinterpret_cast<std::int32_t*>(to + positions_);
      std::copy(batch_.offsets.begin(), batch_.offsets.end(), offsets);
      for (Index s = 0; s < batch_.sequences; ++s) {
        for (Index i = batch_.begin(s); i < batch_.end(s); ++i) positions[i] = static_cast<std::int32_t>(i - batch_.begin(s));
      }
    }
    std::copy(batch_.tokens.begin(), batch_.tokens.end(), reinterpret_cast<Token*>(to + tokens_));
    std::copy(batch_.label_rows.begin(), batch_.label_rows.end(), reinterpret_cast<Index*>(to + label_rows_));
    std::copy(batch_.labels.begin(), batch_.labels.end(), reinterpret_cast<Token*>(to + labels_));
  }
  /// The arrays of an image that lies at `data`.
  DeviceBatch at(const std::byte* data) const {
    const bool packed = !batch_.offsets.empty();
    return {packed ? reinterpret_cast<const std::int32_t*>(data + offsets_) : nullptr,
            packed ? reinterpret_cast<const std::int32_t*>(data + positions_) : nullptr,
            reinterpret_cast<const Token*>(data + tokens_), reinterpret_cast<const Index*>(data + label_rows_),
            reinterpret_cast<const Token*>(data + labels_)};
  }

 private:
  template <class T>
  std::size_t place(std::size_t count) {
    const std::size_t begin = bytes_;
    bytes_ += (count * sizeof(T) + 255) / 256 * 256;
    return begin;
  }

  const Batch& batch_;
  std::size_t bytes_ = 0;
  std::size_t offsets_, positions_, tokens_, label_rows_, labels_;
};

}  // namespace cuda

/// A copy of the batch's arrays in the context's current frame, unless the batch has one already.
template <>
class Resident<Cuda> {
 public:
  Resident(Context<Cuda>& context, const Batch& batch) : batch_(batch) {
    if (batch.device != nullptr) return;
    const cuda::BatchImage image(batch);
    if (image.bytes() > 0) {
      auto* data = context.make<std::byte>(1, static_cast<Index>(image.bytes())).data;
      std::byte* staged = context.stage(image.bytes());
      image.write(staged);
      context.send(staged, data, image.bytes());
      arrays_ = image.at(data);
    }
    batch_.device = &arrays_;
  }
  Resident(const Resident&) = delete;
  Resident& operator=(const Resident&) = delete;
  operator const Batch&() const { return batch_; }

 private:
  Batch batch_;
  DeviceBatch arrays_;
};

/// The same for a decoding step.
template <>
class ResidentStep<Cuda> {
 public:
  ResidentStep(Context<Cuda>& context, const Step& step) : step_(step) {
    if (step.device != nullptr) return;
    const auto count = static_cast<Index>(step.tokens.size());
    auto* data = context.make<std::int32_t>(1, 1 + count).data;
    std::byte* staged = context.stage(static_cast<std::size_t>(1 + count) * sizeof(std::int32_t));
    auto* numbers = reinterpret_cast<std::int32_t*>(staged);
    numbers[0] = static_cast<std::int32_t>(step.position);
    std::copy(step.tokens.begin(), step.tokens.end(), numbers + 1);
    context.send(staged, data, static_cast<std::size_t>(1 + count) * sizeof(std::int32_t));
    on_device_ = {data, count > 0 ? data + 1 : nullptr};
    step_.device = &on_device_;
  }
  ResidentStep(const ResidentStep&) = delete;
  ResidentStep& operator=(const ResidentStep&) = delete;
  operator const Step&() const { return step_; }

 private:
  Step step_;
  DeviceStep on_device_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "coyote/core/cuda/context.cuh"
#include "coyote/core/random.hpp"

/// Matrices on the device for tests, with the same numbers in double on the host.
namespace coyote_test {

namespace cy = coyote;
using cy::Index;
using cy::Rows;

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

template <class S>
double to_double(S x) {
  if constexpr (std::is_arithmetic_v<S>) {
    return static_cast<double>(x);
  } else {
    return static_cast<double>(static_cast<float>(x));
  }
}
template <class S>
S from_double(double x) {
  if constexpr (std::is_arithmetic_v<S>) {
    return static_cast<S>(x);
  } else {
    return S(static_cast<float>(x));
  }
}

/// Where a matrix's rows lie: so many elements behind an aligned address, so many unused ones between two rows.
struct Layout {
  Index shift = 0, padding = 0;
};

/// A matrix on the device; elements between its rows hold a mark that nobody may touch.
template <class S>
class OnDevice {
  static constexpr double mark = -77;

 public:
  OnDevice() = default;
  /// @param value  f(row, column), rounded to S
  template <class F>
  OnDevice(Index rows, Index width, Layout layout, F&& value)
      : rows_(rows), width_(width), stride_(width + layout.padding), shift_(layout.shift), host_(size()) {
    if (rows_ > 0) array_ = cy::cuda::DeviceArray<S>(shift_ + rows_ * stride_);
    set(value);
  }
  /// NaN everywhere: what an operation overwrites.
  OnDevice(Index rows, Index width, Layout layout = {})
      : OnDevice(rows, width, layout, [](Index, Index) { return not_a_number; }) {}

  template <class F>
  void set(F&& value) {
    std::vector<S> all(static_cast<std::size_t>(array_.size()), from_double<S>(mark));
    for (Index i = 0; i < rows_; ++i) {
      for (Index c = 0; c < width_; ++c) {
        const S rounded = from_double<S>(value(i, c));
        all[static_cast<std::size_t>(shift_ + i * stride_ + c)] = rounded;
        host_[static_cast<std::size_t>(i * width_ + c)] = to_double(rounded);
      }
    }
    array_.upload(all.data());
  }

  Rows<S> view() { return rows_ == 0 ? Rows<S>() : Rows<S>(array_.data() + shift_, rows_, width_, stride_); }
  Rows<const S> read() { return view(); }
  double operator()(Index i, Index c) const { return host_[static_cast<std::size_t>(i * width_ + c)]; }
  Index rows() const { return rows_; }
  Index width() const { return width_; }

  /// What the device holds now, row by row; empty if a mark between the rows is gone.
  std::vector<double> now() const {
    std::vector<S> all(static_cast<std::size_t>(array_.size()));
    array_.download(all.data());
    std::vector<double> result(size());
    for (Index i = 0; i < shift_ && rows_ > 0; ++i) {
      if (to_double(all[static_cast<std::size_t>(i)]) != mark) return {};
    }
    for (Index i = 0; i < rows_; ++i) {
      for (Index c = 0; c < stride_; ++c) {
        const double x = to_double(all[static_cast<std::size_t>(shift_ + i * stride_ + c)]);
        if (c < width_) {
          result[static_cast<std::size_t>(i * width_ + c)] = x;
        } else if (x != mark) {
          return {};
        }
      }
    }
    return result;
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(rows_ * width_); }

  Index rows_ = 0, width_ = 0, stride_ = 0, shift_ = 0;
  std::vector<double> host_;
  cy::cuda::DeviceArray<S> array_;
};

/// A matrix on the host, in double.
struct Doubles {
  Index width;
  std::vector<double> values;
  Doubles(Index rows, Index width_) : width(width_), values(static_cast<std::size_t>(rows * width_), 0.0) {}
  double& operator()(Index i, Index c) { return values[static_cast<std::size_t>(i * width + c)]; }
};

/// ||got - wanted|| / ||wanted||; NaN if anything is NaN, infinite if the sizes differ.
inline double error(const std::vector<double>& got, const std::vector<double>& wanted) {
  if (got.size() != wanted.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    difference += (got[i] - wanted[i]) * (got[i] - wanted[i]);
    size += wanted[i] * wanted[i];
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}
inline double error(const std::vector<double>& got, const Doubles& wanted) { return error(got, wanted.values); }

/// The accuracy that a scalar owes.
template <class S>
inline constexpr double tolerance = sizeof(S) == 4 ? 1e-5 : 1e-2;

/// Different numbers at every call.
struct Random {
  cy::Draws draws{cy::Stream(cy::Seed{1}, cy::Purpose::test)};
  explicit Random(std::uint64_t seed) : draws(cy::Stream(cy::Seed{seed}, cy::Purpose::test)) {}
  double operator()(Index, Index) { return draws.normal(); }
  Index below(Index bound) { return static_cast<Index>(draws.below(static_cast<std::uint64_t>(bound))); }
};

/// A batch with its arrays on the device: sequences of the given sizes, packed if they differ or if told so.
class DeviceSequences {
 public:
  explicit DeviceSequences(std::vector<Index> sizes, bool packed = false) {
    offsets_.push_back(0);
    Index longest = 0;
    std::vector<std::int32_t> offsets{0}, positions;
    for (const Index size : sizes) {
      packed = packed || size != sizes[0];
      longest = std::max(longest, size);
      offsets_.push_back(offsets_.back() + size);
      offsets.push_back(static_cast<std::int32_t>(offsets_.back()));
      for (Index i = 0; i < size; ++i) positions.push_back(static_cast<std::int32_t>(i));
    }
    device_offsets_ = {offsets.data(), static_cast<Index>(offsets.size())};
    device_positions_ = {positions.data(), static_cast<Index>(positions.size())};
    device_ = {.offsets = device_offsets_.data(), .positions = device_positions_.data()};
    batch_.sequences = static_cast<Index>(sizes.size());
    batch_.length = longest;
    if (packed) batch_.offsets = offsets_;
    batch_.device = &device_;
  }
  DeviceSequences(const DeviceSequences&) = delete;

  const cy::Batch& batch() const { return batch_; }
  /// The same sequences with these tokens, on the host and on the device, which the caller keeps.
  cy::Batch with_tokens(const std::vector<std::int32_t>& tokens, const cy::cuda::DeviceArray<std::int32_t>& there) {
    device_.tokens = there.data();
    cy::Batch batch = batch_;
    batch.tokens = tokens;
    return batch;
  }

 private:
  std::vector<Index> offsets_;
  cy::cuda::DeviceArray<std::int32_t> device_offsets_, device_positions_;
  cy::DeviceBatch device_;
  cy::Batch batch_;
};

/// Integers on the device.
inline cy::cuda::DeviceArray<std::int32_t> on_device(const std::vector<std::int32_t>& values) {
  return {values.data(), static_cast<Index>(values.size())};
}
inline std::span<const std::int32_t> span_of(const cy::cuda::DeviceArray<std::int32_t>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

}  // namespace coyote_test

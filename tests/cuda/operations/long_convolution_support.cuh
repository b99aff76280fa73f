// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <numeric>
#include <vector>

#include "coyote/core/cuda/resident.cuh"
#include "coyote/core/random.hpp"
#include "coyote/operations/wrap.hpp"

/// Long convolutions in double on the host, and matrices on the device.
namespace coyote_test {

using namespace coyote;
using Doubles = std::vector<double>;

inline std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// exp(-+ 2 pi i ...) sums over z, in place; a plain radix-2 transform in double.
inline void transform(std::vector<std::complex<double>>& z, bool inverse) {
  const std::size_t n = z.size();
  for (std::size_t i = 1, j = 0; i < n; ++i) {
    std::size_t bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) std::swap(z[i], z[j]);
  }
  static std::vector<std::complex<double>> roots;  // of the size used last
  if (roots.size() != n / 2) {
    roots.resize(n / 2);
    for (std::size_t k = 0; k < n / 2; ++k) {
      const double angle = -2 * 3.14159265358979323846 * static_cast<double>(k) / static_cast<double>(n);
      roots[k] = {std::cos(angle), std::sin(angle)};
    }
  }
  for (std::size_t half = 1; half < n; half *= 2) {
    for (std::size_t i = 0; i < n; i += 2 * half) {
      for (std::size_t k = 0; k < half; ++k) {
        const std::complex<double> root = roots[k * (n / 2 / half)], w = inverse ? std::conj(root) : root, a = z[i + k],
                                   b = {z[i + k + half].real() * w.real() - z[i + k + half].imag() * w.imag(),
                                        z[i + k + half].real() * w.imag() + z[i + k + half].imag() * w.real()};
        z[i + k] = a + b;
        z[i + k + half] = a - b;
      }
    }
  }
}

/// The product of two polynomials with n coefficients each: 2n of them. By definition up to 300, above by transforms.
inline Doubles product(const Doubles& a, const Doubles& b) {
  const std::size_t n = a.size();
  Doubles result(2 * n, 0.0);
  if (n <= 300) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) result[i + j] += a[i] * b[j];
    }
    return result;
  }
  std::size_t points = 1;
  while (points < 2 * n) points *= 2;
  // Both in one transform, made equally large: their product is the imaginary part of the square, halved.
  const auto size = [](const Doubles& v) { return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 1e-300)); };
  const double ratio = size(a) / size(b);
  std::vector<std::complex<double>> z(points);
  for (std::size_t i = 0; i < n; ++i) z[i] = {a[i], ratio * b[i]};
  transform(z, false);
  for (auto& x : z) x = {x.real() * x.real() - x.imag() * x.imag(), 2 * x.real() * x.imag()};
  transform(z, true);
  for (std::size_t i = 0; i < 2 * n; ++i) result[i] = z[i].imag() / (2 * static_cast<double>(points) * ratio);
  return result;
}

/// sum_t taps[t] x[i-t] for one channel of one sequence.
inline Doubles convolution(Wrap wrap, const Doubles& taps, const Doubles& x) {
  const std::size_t n = x.size();
  Doubles all = product(taps, x);
  if (wrap == Wrap::cyclic) {
    for (std::size_t i = 0; i < n; ++i) all[i] += all[i + n];
  }
  all.resize(n);
  return all;
}
/// sum_i d[i] x[i-t]: gradients of taps; with taps for x, turned round, those of x are the same sum.
inline Doubles correlation(Wrap wrap, const Doubles& d, const Doubles& x) {
  const std::size_t n = x.size();
  const Doubles turned(x.rbegin(), x.rend());
  const Doubles all = product(d, turned);  // [n - 1 + t]
  Doubles result(n);
  for (std::size_t t = 0; t < n; ++t) result[t] = all[n - 1 + t] + (wrap == Wrap::cyclic && t > 0 ? all[t - 1] : 0.0);
  return result;
}

/// ||got - wanted|| / ||wanted||; NaN if anything is NaN.
inline double error(const Doubles& got, const Doubles& wanted) {
  if (got.size() != wanted.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    difference += (got[i] - wanted[i]) * (got[i] - wanted[i]);
    size += wanted[i] * wanted[i];
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

/// Fresh normal numbers, rounded to S.
template <class S>
Doubles normal(Draws& draws, Index count, double scale = 1) {
  Doubles values(at(count));
  for (double& x : values) x = cuda::to_float(cuda::from_float<S>(static_cast<float>(scale * draws.normal())));
  return values;
}

/// A matrix on the device, `gap` elements between its rows and before the first; elements outside hold NaN.
template <class S>
class OnDevice {
 public:
  OnDevice() = default;
  /// NaN everywhere.
  OnDevice(Index rows, Index width, Index gap) : rows_(rows), width_(width), gap_(gap), array_(gap + rows * (width + gap)) {
    if (rows > 0) COYOTE_CUDA_CHECK(cudaMemset(array_.data(), 0xFF, array_.bytes()));
  }
  OnDevice(const Doubles& values, Index rows, Index width, Index gap) : OnDevice(rows, width, gap) {
    std::vector<S> all(at(array_.size()), cuda::from_float<S>(std::numeric_limits<float>::quiet_NaN()));
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < width; ++c) all[at(place(i, c))] = cuda::from_float<S>(static_cast<float>(values[at(i * width + c)]));
    }
    if (rows > 0) array_.upload(all.data());
  }
  Rows<S> view() { return rows_ == 0 ? Rows<S>() : Rows<S>(array_.data() + gap_, rows_, width_, width_ + gap_); }
  Rows<const S> read() { return view(); }
  /// What it holds now; empty if an element outside was written.
  Doubles now() const {
    std::vector<S> all(at(array_.size()));
    array_.download(all.data());
    Doubles values(at(rows_ * width_));
    Index untouched = 0;
    for (const S x : all) untouched += std::isnan(cuda::to_float(x)) ? 1 : 0;
    for (Index i = 0; i < rows_; ++i) {
      for (Index c = 0; c < width_; ++c) {
        values[at(i * width_ + c)] = cuda::to_float(all[at(place(i, c))]);
        untouched -= std::isnan(values[at(i * width_ + c)]) ? 1 : 0;
      }
    }
    return untouched == array_.size() - rows_ * width_ ? values : Doubles{};
  }

 private:
  Index place(Index i, Index c) const { return gap_ + i * (width_ + gap_) + c; }
  Index rows_ = 0, width_ = 0, gap_ = 0;
  cuda::DeviceArray<S> array_;
};

/// Sequences of the given sizes, packed if they differ or if `packed` says so.
struct Sizes {
  std::vector<Index> offsets{0};
  Batch batch;
  explicit Sizes(const std::vector<Index>& sizes, bool packed = false) {
    for (const Index size : sizes) {
      packed = packed || size != sizes[0];
      batch.length = std::max(batch.length, size);
      offsets.push_back(offsets.back() + size);
    }
    batch.sequences = static_cast<Index>(sizes.size());
    if (packed) batch.offsets = offsets;
  }
  Sizes(const Sizes&) = delete;
};

}  // namespace coyote_test

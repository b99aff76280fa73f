// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the tests of attention on Cuda share: fresh inputs, the definition as plain loops in double, comparisons that NaN
// fails.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "coyote/mixers/patterns.hpp"
#include "coyote/operations/cuda/attention.cuh"
#include "coyote/operations/reference/attention.hpp"

namespace test {

using namespace coyote;
namespace cuda = coyote::cuda;  // not the toolkit's

/// A batch of sequences of the given lengths with tokens, on the host and on the device.
class Sequences {
 public:
  Sequences(const std::vector<Index>& lengths, Token symbols, bool packed = true) {
    const Stream draws(Seed{21}, Purpose::test, lengths.size());
    offsets_.push_back(0);
    for (const Index n : lengths) {
      for (Index i = 0; i < n; ++i) positions_.push_back(static_cast<std::int32_t>(i));
      offsets_.push_back(offsets_.back() + n);
      longest_ = std::max(longest_, n);
    }
    for (Index i = 0; i < offsets_.back(); ++i) {
      tokens_.push_back(static_cast<Token>(draws.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(symbols))));
    }
    const std::vector<std::int32_t> narrow(offsets_.begin(), offsets_.end());
    device_offsets_ = cuda::DeviceArray<std::int32_t>(narrow.data(), static_cast<Index>(narrow.size()));
    device_positions_ = cuda::DeviceArray<std::int32_t>(positions_.data(), static_cast<Index>(positions_.size()));
    device_tokens_ = cuda::DeviceArray<Token>(tokens_.data(), static_cast<Index>(tokens_.size()));
    device_.tokens = device_tokens_.data();
    batch_ = {.sequences = static_cast<Index>(lengths.size()), .length = longest_, .tokens = tokens_, .device = &device_};
    if (packed) {
      batch_.offsets = offsets_;
      device_.offsets = device_offsets_.data();
      device_.positions = device_positions_.data();
    }
  }
  Sequences(const Sequences&) = delete;
  const Batch& batch() const { return batch_; }

 private:
  std::vector<Index> offsets_;
  std::vector<std::int32_t> positions_;
  std::vector<Token> tokens_;
  cuda::DeviceArray<std::int32_t> device_offsets_, device_positions_;
  cuda::DeviceArray<Token> device_tokens_;
  Index longest_ = 0;
  DeviceBatch device_;
  Batch batch_;
};

template <class S>
double number(S x) {
  return static_cast<double>(cuda::to_float(x));
}

/// A strided matrix in both memories; what is not its own is NaN and stays it.
template <class S>
class Both {
 public:
  Both(Index rows, Index width, Index stride, Index offset = 0)
      : rows_(rows), width_(width), stride_(stride), offset_(offset), host_(static_cast<std::size_t>(rows * stride + offset)) {
    std::memset(static_cast<void*>(host_.data()), 0xFF, host_.size() * sizeof(S));
    device_ = cuda::DeviceArray<S>(host_.data(), static_cast<Index>(host_.size()));
  }
  S& operator()(Index i, Index c) { return host_[static_cast<std::size_t>(offset_ + i * stride_ + c)]; }
  double operator()(Index i, Index c) const { return number(host_[static_cast<std::size_t>(offset_ + i * stride_ + c)]); }
  Rows<S> view() { return {device_.data() + offset_, rows_, width_, stride_}; }
  Index rows() const { return rows_; }
  Index width() const { return width_; }
  const std::vector<S>& host() const { return host_; }

  void fill(std::uint64_t name, double size = 1) {
    const Stream draws(Seed{22}, Purpose::test, name);
    for (Index i = 0; i < rows_; ++i) {
      for (Index c = 0; c < width_; ++c) {
        (*this)(i, c) = cuda::from_float<S>(static_cast<float>(size * draws.normal(static_cast<std::uint64_t>(i * width_ + c))));
      }
    }
    device_.upload(host_.data());
  }
  void upload() { device_.upload(host_.data()); }
  void download() { device_.download(host_.data()); }
  /// Nothing was written beside the view.
  bool kept_outside() const {
    std::vector<unsigned char> bytes(sizeof(S), 0xFF);
    for (Index n = 0; n < static_cast<Index>(host_.size()); ++n) {
      if (n >= offset_ && (n - offset_) % stride_ < width_) continue;
      if (std::memcmp(&host_[static_cast<std::size_t>(n)], bytes.data(), sizeof(S)) != 0) return false;
    }
    return true;
  }

 private:
  Index rows_, width_, stride_, offset_;
  std::vector<S> host_;
  cuda::DeviceArray<S> device_;
};

using Doubles = std::vector<double>;

struct Expected {
  Doubles y, log, dq, dk, dv;
};

template <class Pattern, class S>
Expected plain(const Batch& batch, Index heads, double scale, const AttentionDropout& dropout, const Both<S>& q, const Both<S>& k,
               const Both<S>& v, const Both<S>& dy) {
  const DropoutRule rule = dropout.rule();
  const Index d = q.width(), width = d / heads, rows = batch.rows();
  const auto size = static_cast<std::size_t>(rows * d);
  Expected g{Doubles(size), Doubles(static_cast<std::size_t>(rows * heads)), Doubles(size), Doubles(size), Doubles(size)};
  const auto copied = [&](const Both<S>& m) {
    Doubles x(size);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < d; ++c) x[static_cast<std::size_t>(i * d + c)] = m(i, c);
    }
    return x;
  };
  const Doubles qs = copied(q), ks = copied(k), vs = copied(v), errors = copied(dy);
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index begin = batch.begin(s), n = batch.size(s);
    std::vector<std::int32_t> index(static_cast<std::size_t>(Pattern::index_size(n)));
    fill_index<Pattern>(index, batch.tokens_of(s), n);
    for (Index i = 0; i < n; ++i) {
      std::vector<Index> keys;
      reference::for_each_key<Pattern>(index, n, i, [&](Index j) { keys.push_back(begin + j); });
      for (Index h = 0; h < heads; ++h) {
        const auto row = [&](auto& x, Index r) { return x.data() + r * d + h * width; };
        Doubles p, kept, dp;
        double most = -INFINITY, total = 0, delta = 0;
        for (const Index j : keys) {
          double score = 0;
          for (Index c = 0; c < width; ++c) score += row(qs, begin + i)[c] * row(ks, j)[c];
          p.push_back(scale * score);
          most = std::max(most, p.back());
          const bool keep =
              !rule.active() || rule.keeps(AttentionDropout::rule_row(begin + i, h, heads), static_cast<std::uint64_t>(j));
          kept.push_back(keep ? rule.scale() : 0);
        }
        for (double& x : p) total += x = std::exp(x - most);
        g.log[static_cast<std::size_t>((begin + i) * heads + h)] = keys.empty() ? -INFINITY : most + std::log(total);
        for (std::size_t m = 0; m < keys.size(); ++m) {
          p[m] /= total;
          double sum = 0;
          for (Index c = 0; c < width; ++c) {
            const double error = row(errors, begin + i)[c], value = row(vs, keys[m])[c];
            row(g.y, begin + i)[c] += p[m] * kept[m] * value;
            row(g.dv, keys[m])[c] += p[m] * kept[m] * error;
            sum += error * value;
          }
          dp.push_back(kept[m] * sum);
          delta += p[m] * dp[m];
        }
        for (std::size_t m = 0; m < keys.size(); ++m) {
          const double slope = scale * p[m] * (dp[m] - delta);
          for (Index c = 0; c < width; ++c) {
            row(g.dq, begin + i)[c] += slope * row(ks, keys[m])[c];
            row(g.dk, keys[m])[c] += slope * row(qs, begin + i)[c];
          }
        }
      }
    }
  }
  return g;
}

inline double norm(const Doubles& x) {
  double sum = 0;
  for (const double a : x) sum += a * a;
  return std::sqrt(sum);
}
/// ||got - expected||, NaN when anything is
template <class S>
double distance(const Doubles& expected, const Both<S>& got) {
  double sum = 0;
  for (Index i = 0; i < got.rows(); ++i) {
    for (Index c = 0; c < got.width(); ++c) {
      const double x = expected[static_cast<std::size_t>(i * got.width() + c)], y = got(i, c);
      if (x != y) sum += (x - y) * (x - y);
    }
  }
  return std::sqrt(sum);
}

template <class S>
constexpr double tolerance = sizeof(S) == 2 ? 5e-3 : 1e-5;

struct Case {
  std::vector<Index> lengths;
  Index heads = 1, width = 16;
  bool packed = true;
  double rate = 0, size = 1;
  Index pad = 0, offset = 0;  ///< columns beside the packed ones; where the first begins
  Token symbols = 7;
};

template <class S>
struct Run {
  Run(Index rows, Index d, Index heads, Index pad, Index offset)
      : y(rows, d, d + pad, offset),
        log(rows, heads, heads),
        dq(rows, d, 3 * d + pad, offset),
        dk(rows, d, d + pad, offset),
        dv(rows, d, d + pad, offset) {}
  Both<S> y;
  Both<float> log;
  Both<S> dq, dk, dv;
};

inline double worst_seen = 0;  // over all checks, for the log

template <class S, class Pattern>
void check(const Case& c) {
  CAPTURE(c.lengths);
  CAPTURE(c.heads);
  CAPTURE(c.width);
  CAPTURE(c.rate);
  const Sequences sequences(c.lengths, c.symbols, c.packed);
  const Batch& batch = sequences.batch();
  const Index rows = batch.rows(), d = c.heads * c.width, stride = 3 * d + c.pad;
  Both<S> q(rows, d, stride, c.offset), k(rows, d, stride, c.offset), v(rows, d, stride, c.offset),
      dy(rows, d, d + c.pad, c.offset);
  const auto name = static_cast<std::uint64_t>(rows * 1000 + d);
  q.fill(4 * name, c.size);
  k.fill(4 * name + 1, c.size);
  v.fill(4 * name + 2, c.size);
  dy.fill(4 * name + 3);
  const double scale = 1 / std::sqrt(static_cast<double>(c.width));
  const AttentionDropout dropout{c.rate, Stream(Seed{9}, Purpose::dropout, 4, (std::uint64_t{1} << 33) + 2)};

  Context<Cuda> context;
  context.poison(true);
  const auto run = [&](Run<S>& r) {
    const auto frame = context.frame();
    const auto index = build_index<Pattern>(context, batch);
    const auto f = static_cast<float>(scale);
    attention<S, Pattern>(context, batch, index, c.heads, f, dropout, q.view(), k.view(), v.view(), r.y.view(), r.log.view());
    attention_backward<S, Pattern>(context, batch, index, c.heads, f, dropout, q.view(), k.view(), v.view(), r.y.view(),
                                   r.log.view(), dy.view(), r.dq.view(), r.dk.view(), r.dv.view());
    context.synchronise();
    r.y.download();
    r.log.download();
    for (Both<S>* m : {&r.dq, &r.dk, &r.dv}) m->download();
  };
  Run<S> got(rows, d, c.heads, c.pad, c.offset), again(rows, d, c.heads, c.pad, c.offset);
  run(got);
  run(again);
  const auto same = [](const auto& a, const auto& b) {
    return std::memcmp(a.host().data(), b.host().data(), a.host().size() * sizeof(a.host()[0])) == 0;
  };
  CHECK(same(got.y, again.y));
  CHECK(same(got.dq, again.dq));
  CHECK(same(got.dk, again.dk));
  CHECK(same(got.dv, again.dv));
  for (Both<S>* m : {&got.y, &got.dq, &got.dk, &got.dv}) CHECK(m->kept_outside());

  const Expected expected = plain<Pattern>(batch, c.heads, scale, dropout, q, k, v, dy);
  // The larger the scores, the more do their errors change the probabilities.
  const double allowed = tolerance<S> * std::max(1.0, c.size / 2);
  const auto near = [&](const Doubles& reference, const auto& part, double size) {
    const double relative = distance(reference, part) / size;
    if (!(relative <= worst_seen)) worst_seen = relative;
    return distance(reference, part) <= allowed * size;
  };
  const double tiny = 1e-30, size_y = norm(expected.y) + tiny;
  CHECK(near(expected.y, got.y, size_y));
  double logs = tiny;
  for (const double x : expected.log) logs += std::isfinite(x) ? x * x : 0;
  CHECK(distance(expected.log, got.log) <= 1e-5 * (std::sqrt(logs) + std::sqrt(static_cast<double>(rows * c.heads))));
  // With one key per row the gradients by q and k are differences of equals: they are compared with the largest of all.
  const double largest = std::max({norm(expected.dq), norm(expected.dk), norm(expected.dv)}) + tiny;
  CHECK(near(expected.dq, got.dq, largest));
  CHECK(near(expected.dk, got.dk, largest));
  CHECK(near(expected.dv, got.dv, largest));
  if (norm(expected.y) == 0) return;
  // Controls: zeros, and outputs that are slightly wrong, are refused.
  Both<S> zero(rows, d, d);
  for (Index i = 0; i < rows; ++i) {
    for (Index n = 0; n < d; ++n) zero(i, n) = cuda::from_float<S>(0.0f);
  }
  const auto refused = [&](const Doubles& reference, const Both<S>& part, double size) {
    return !(distance(reference, part) <= allowed * size);
  };
  CHECK(refused(expected.y, zero, size_y));
  CHECK(refused(expected.dv, zero, largest));
  got.y(rows - 1, 0) = cuda::from_float<S>(static_cast<float>(std::as_const(got.y)(rows - 1, 0) + 3 * allowed * size_y));
  CHECK(refused(expected.y, got.y, size_y));
}

}  // namespace test

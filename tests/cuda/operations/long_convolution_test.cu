// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/long_convolution.cuh"

#include <cstdio>

#include "long_convolution_support.cuh"

using namespace coyote_test;

namespace {

/// One problem: everything that long_convolution and its backward accept.
struct Problem {
  std::vector<Index> sizes;
  Index width = 3;
  Wrap wrap = Wrap::causal;
  Index bias_rows = 1;  ///< 0, 1, or more: one per position
  bool gated = true;
  Index gap = 1;
  Write write = Write::overwrite;
  bool packed = false;
  double taps_scale = 0.1, x_scale = 1;
};

/// Every output of the device beside its reference.
struct Outcome {
  Doubles y, convolved, dx, dgate, dtaps, dbias;
};

Doubles channel(const Doubles& values, Index width, Index first, Index n, Index c) {
  Doubles result(at(n));
  for (Index i = 0; i < n; ++i) result[at(i)] = values[at((first + i) * width + c)];
  return result;
}

struct Inputs {
  Index rows, taps_rows, bias_rows;
  Doubles x, gate, kept, dy, dx, taps, bias, dtaps, dbias;
};

template <class S>
Inputs inputs(const Problem& p, const Batch& batch, std::uint64_t seed) {
  Draws draws(Stream(Seed{seed}, Purpose::test));
  const Index rows = batch.rows(), taps_rows = batch.length + 2, bias_rows = p.bias_rows > 1 ? batch.length + 1 : p.bias_rows;
  const Index n = rows * p.width;
  return {rows,
          taps_rows,
          bias_rows,
          normal<S>(draws, n, p.x_scale),
          normal<S>(draws, n),
          normal<S>(draws, n),
          normal<S>(draws, n),
          normal<S>(draws, n),
          normal<S>(draws, taps_rows * p.width, p.taps_scale),
          normal<float>(draws, bias_rows * p.width),
          normal<float>(draws, taps_rows * p.width),
          normal<float>(draws, bias_rows * p.width, 30)};  // sums of either sign may be small: beside these it does not matter
}

Outcome reference(const Problem& p, const Batch& batch, const Inputs& in) {
  const Index width = p.width;
  Outcome out{.y = Doubles(in.x.size()),
              .convolved = Doubles(in.x.size()),
              .dx = p.write == Write::add ? in.dx : Doubles(in.x.size(), 0.0),
              .dgate = Doubles(in.x.size()),
              .dtaps = in.dtaps,
              .dbias = in.dbias};
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index first = batch.begin(s), n = batch.size(s);
    for (Index c = 0; c < width; ++c) {
      const Doubles taps = channel(in.taps, width, 0, n, c), x = channel(in.x, width, first, n, c);
      Doubles d = channel(in.dy, width, first, n, c);
      const Doubles sums = convolution(p.wrap, taps, x);
      for (Index i = 0; i < n; ++i) {
        const std::size_t place = at((first + i) * width + c);
        const double value = sums[at(i)] + (in.bias_rows == 0 ? 0 : in.bias[at((in.bias_rows == 1 ? 0 : i) * width + c)]);
        out.convolved[place] = value;
        out.y[place] = p.gated ? value * in.gate[place] : value;
        out.dgate[place] = d[at(i)] * in.kept[place];
        if (p.gated) d[at(i)] *= in.gate[place];
        if (in.bias_rows > 0) out.dbias[at((in.bias_rows == 1 ? 0 : i) * width + c)] += d[at(i)];
      }
      const Doubles dtaps = correlation(p.wrap, d, x), dx = correlation(p.wrap, d, taps);
      for (Index i = 0; i < n; ++i) {
        out.dtaps[at(i * width + c)] += dtaps[at(i)];
        out.dx[at((first + i) * width + c)] += dx[at(i)];
      }
    }
  }
  return out;
}

/// What the device makes of the same inputs.
template <class S>
Outcome device(const Problem& p, const Batch& host, const Inputs& in) {
  Context<Cuda> context;
  context.poison(true);
  const auto frame = context.frame();
  const Resident<Cuda> resident(context, host);
  const Batch& batch = resident;
  const Index w = p.width, gap = p.gap;
  const auto load = [&]<class T>(const Doubles& values, Index rows, T) { return OnDevice<T>(values, rows, w, gap); };
  auto x = load(in.x, in.rows, S{}), gate = load(in.gate, p.gated ? in.rows : 0, S{});
  auto kept = load(in.kept, p.gated ? in.rows : 0, S{}), dy = load(in.dy, in.rows, S{});
  auto dx = p.write == Write::add ? load(in.dx, in.rows, S{}) : OnDevice<S>(in.rows, w, gap);
  auto taps = load(in.taps, in.taps_rows, 0.0f), bias = load(in.bias, in.bias_rows, 0.0f);
  auto dtaps = load(in.dtaps, in.taps_rows, 0.0f), dbias = load(in.dbias, in.bias_rows, 0.0f);
  OnDevice<S> y(in.rows, w, gap), convolved(p.gated ? in.rows : 0, w, gap), dgate(p.gated ? in.rows : 0, w, gap);
  long_convolution<S>(context, batch, p.wrap, x.read(), taps.read(), bias.read(), gate.read(), convolved.view(), y.view());
  long_convolution_backward<S>(context, batch, p.wrap, x.read(), taps.read(), gate.read(), kept.read(), dy.read(),
                               p.write == Write::none ? Rows<S>() : dx.view(), p.write, dgate.view(), dtaps.view(), dbias.view());
  context.synchronise();
  return {y.now(), convolved.now(), dx.now(), dgate.now(), dtaps.now(), dbias.now()};
}

template <class S>
inline constexpr double tolerance = sizeof(S) == 4 ? 1e-5 : 5e-3;

template <class S>
void agrees(const Problem& p, double most = tolerance<S>) {
  static std::uint64_t seed = 0;
  const Sizes sizes(p.sizes, p.packed);
  const Inputs in = inputs<S>(p, sizes.batch, ++seed);
  const Outcome wanted = reference(p, sizes.batch, in), got = device<S>(p, sizes.batch, in);
  CAPTURE(p.sizes.size());
  CAPTURE(p.sizes[0]);
  CAPTURE(p.width);
  CAPTURE(p.gap);
  CAPTURE(p.packed);
  CAPTURE(p.gated);
  CAPTURE(p.bias_rows);
  CAPTURE(static_cast<int>(p.wrap));
  CAPTURE(sizeof(S));
  CHECK(error(got.y, wanted.y) <= most);
  if (p.gated) CHECK(error(got.convolved, wanted.convolved) <= most);
  if (p.write != Write::none) CHECK(error(got.dx, wanted.dx) <= most);
  if (p.gated) CHECK(error(got.dgate, wanted.dgate) <= most);
  CHECK(error(got.dtaps, wanted.dtaps) <= most);
  CHECK(error(got.dbias, wanted.dbias) <= most);
}

TEST_CASE("the reference's two ways agree") {
  Draws draws(Stream(Seed{5}, Purpose::test));
  const Doubles a = normal<float>(draws, 301), b = normal<float>(draws, 301);
  const Doubles quick = product(a, b);
  Doubles plain(602, 0.0);
  for (std::size_t i = 0; i < 301; ++i) {
    for (std::size_t j = 0; j < 301; ++j) plain[i + j] += a[i] * b[j];
  }
  CHECK(error(quick, plain) <= 1e-12);
  CHECK_FALSE(error(Doubles(602, 0.0), plain) <= 1e-2);
  Doubles wrong = plain;
  for (double& x : wrong) x *= 1 + 2e-5;
  CHECK_FALSE(error(wrong, plain) <= 1e-5);
  wrong[7] = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(error(wrong, plain) <= 1);
}

TEST_CASE_TEMPLATE("any length, causal and cyclic", S, float, bf16) {
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    for (const Index n :
         {1, 2, 3, 31, 63, 64, 65, 127, 128, 129, 255, 256, 257, 509, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049}) {
      agrees<S>({.sizes = {n, n}, .wrap = wrap});
    }
  }
}

TEST_CASE_TEMPLATE("longer sequences", S, float, bf16) {
  for (const Index n : {3001, 4096, 4099, 8192, 8193, 16384, 16385, 32768, 40000, 65536})
    agrees<S>({.sizes = {n, n}, .width = 2});
  agrees<S>({.sizes = {5000, 5000}, .width = 2, .wrap = Wrap::cyclic});
}

TEST_CASE("up to a million rows") {
  for (const Index n : {65537, 131072, 262145, 524288, 1 << 20}) {
    agrees<float>({.sizes = {n}, .width = 1, .bias_rows = 0, .gated = false}, 3e-5);
  }
  agrees<bf16>({.sizes = {524288}, .width = 2, .gated = false});
}

TEST_CASE_TEMPLATE("packed sequences, biases, gates, strides, widths", S, float, bf16) {
  const std::vector<Index> shorts{5, 64, 1, 33}, middle{100, 7, 256, 1, 300, 77}, longs{5000, 3, 9000, 4096, 900};
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    for (const std::vector<Index>& sizes : {shorts, middle, longs}) {
      for (const Index bias : {0, 1, 2}) {
        for (const bool gated : {false, true})
          agrees<S>({.sizes = sizes, .width = 5, .wrap = wrap, .bias_rows = bias, .gated = gated});
      }
    }
  }
  for (const Index width : {1, 2, 8, 31, 64, 65, 100}) {
    for (const Index gap : {0, 8}) {
      agrees<S>({.sizes = {50, 50}, .width = width, .gap = gap, .write = Write::add});
      agrees<S>({.sizes = {300, 300, 300}, .width = width, .gap = gap, .write = Write::add});
      agrees<S>({.sizes = {130, 300, 20}, .width = width, .gap = gap, .write = Write::add});
      agrees<S>({.sizes = {130, 130}, .width = width, .gap = gap, .write = Write::none, .packed = true});
    }
  }
  agrees<S>({.sizes = std::vector<Index>(70, 100), .width = 40});
  agrees<S>({.sizes = std::vector<Index>(300, 20), .width = 40});
  agrees<S>({.sizes = std::vector<Index>(200, 200), .width = 40, .packed = true});
}

TEST_CASE("many equal sequences") {
  for (const Index n : {129, 250, 256, 300, 512, 640, 1000, 1024, 1100, 2047, 2048})
    agrees<bf16>({.sizes = std::vector<Index>(64, n)});
  agrees<bf16>({.sizes = std::vector<Index>(33, 520), .width = 9});
  agrees<bf16>({.sizes = std::vector<Index>(130, 400), .width = 20, .write = Write::add});
  agrees<bf16>({.sizes = std::vector<Index>(9, 70), .width = 150, .write = Write::add});
  agrees<bf16>({.sizes = std::vector<Index>(64, 260), .width = 272});  // more than two blocks of row tiles a multiprocessor
  agrees<bf16>({.sizes = std::vector<Index>(130, 64), .width = 40, .write = Write::add});
  agrees<bf16>({.sizes = std::vector<Index>(20, 128), .width = 33, .bias_rows = 0, .gated = false});
  agrees<bf16>({.sizes = std::vector<Index>(40, 500), .width = 2, .wrap = Wrap::cyclic});
  agrees<bf16>({.sizes = std::vector<Index>(40, 4500), .width = 1});
  agrees<float>({.sizes = std::vector<Index>(40, 300), .width = 70});
}

template <class S>
void channel_major_agrees(Index batch, Index width, Index length) {
  CAPTURE(batch);
  CAPTURE(width);
  CAPTURE(length);
  Draws draws(Stream(Seed{static_cast<std::uint64_t>(length)}, Purpose::test));
  const Index size = batch * width * length;
  const Doubles x = normal<S>(draws, size), d = normal<S>(draws, size), taps = normal<float>(draws, width * length, 0.1),
                before = normal<float>(draws, width * length);
  Doubles y, dx, dtaps = before;
  for (Index b = 0; b < batch; ++b) {
    for (Index c = 0; c < width; ++c) {
      const auto line = [&](const Doubles& from, Index row) {
        return Doubles(from.begin() + row * length, from.begin() + (row + 1) * length);
      };
      const Doubles h = line(taps, c), u = line(x, b * width + c), g = line(d, b * width + c);
      const Doubles sums = convolution(Wrap::causal, h, u), back = correlation(Wrap::causal, g, h),
                    lags = correlation(Wrap::causal, g, u);
      y.insert(y.end(), sums.begin(), sums.end());
      dx.insert(dx.end(), back.begin(), back.end());
      for (Index t = 0; t < length; ++t) dtaps[at(c * length + t)] += lags[at(t)];
    }
  }
  Context<Cuda> context;
  context.poison(true);
  OnDevice<S> x_(x, 1, size, 0), d_(d, 1, size, 0), y_(1, size, 0), dx_(1, size, 0);
  OnDevice<float> taps_(taps, 1, width * length, 0), dtaps_(before, 1, width * length, 0);
  cuda::long_convolution_channel_major<S>(context, batch, width, length, x_.view().data, taps_.view().data, y_.view().data);
  cuda::long_convolution_channel_major_backward<S>(context, batch, width, length, x_.view().data, taps_.view().data,
                                                   d_.view().data, dx_.view().data, dtaps_.view().data);
  context.synchronise();
  CHECK(error(y_.now(), y) <= tolerance<S>);
  CHECK(error(dx_.now(), dx) <= tolerance<S>);
  CHECK(error(dtaps_.now(), dtaps) <= tolerance<S>);
}

TEST_CASE_TEMPLATE("channel-major", S, float, bf16) {
  for (const Index batch : {1, 3, 20, 64, 70}) {
    for (const Index length : {1, 7, 64, 100, 128, 129, 200, 511, 512, 1000}) channel_major_agrees<S>(batch, 3, length);
  }
  for (const Index length : {1024, 1500, 2048, 3000, 20000, 70000}) channel_major_agrees<S>(2, 3, length);
  channel_major_agrees<S>(64, 2, 2048);
  channel_major_agrees<S>(5, 40, 17000);
}

TEST_CASE("extreme values") {
  for (const Index n : {40, 1000, 5000}) {
    agrees<float>({.sizes = {n, n}, .taps_scale = 1e15, .x_scale = 1e15});
    agrees<float>({.sizes = {n, n}, .bias_rows = 0, .gated = false, .taps_scale = 1e-12, .x_scale = 1e-12});
    agrees<bf16>({.sizes = {n, n}, .bias_rows = 0, .gated = false, .taps_scale = 1e15, .x_scale = 1e15});
  }
}

TEST_CASE_TEMPLATE("runs agree bit by bit", S, float, bf16) {
  for (const std::vector<Index>& sizes :
       {std::vector<Index>(50, 30), std::vector<Index>(50, 500), std::vector<Index>{6000, 6000, 17, 900}}) {
    const Problem p{.sizes = sizes, .width = 33};
    const Sizes s(p.sizes);
    const Inputs in = inputs<S>(p, s.batch, 99);
    const Outcome one = device<S>(p, s.batch, in), two = device<S>(p, s.batch, in);
    CHECK(error(one.y, two.y) == 0);
    CHECK(error(one.dx, two.dx) == 0);
    CHECK(error(one.dtaps, two.dtaps) == 0);
    CHECK(error(one.dbias, two.dbias) == 0);
  }
}

// Every kernel once at shapes just beyond an edge: for compute-sanitizer, with -tc="small shapes*".
TEST_CASE("small shapes of every kernel") {
  for (const Wrap wrap : {Wrap::causal, Wrap::cyclic}) {
    agrees<float>({.sizes = {3, 9}, .wrap = wrap, .bias_rows = 2});
    agrees<bf16>({.sizes = {3, 9}, .wrap = wrap});
    agrees<float>({.sizes = {65, 3}, .width = 1, .wrap = wrap, .bias_rows = 2});
    agrees<bf16>({.sizes = {65, 3}, .width = 9, .wrap = wrap});
  }
  for (const Index n : {129, 257, 513, 1025, 2049, 4097}) agrees<float>({.sizes = {n}, .width = 1});
  agrees<float>({.sizes = {8193}, .width = 1, .gated = false});
  agrees<float>({.sizes = {16385}, .width = 1, .gated = false});
  agrees<bf16>({.sizes = {260, 1}, .width = 9});
  agrees<bf16>({.sizes = {513, 1}, .width = 1});
  agrees<bf16>({.sizes = std::vector<Index>(33, 513), .width = 1, .gated = false});
  agrees<bf16>({.sizes = std::vector<Index>(33, 1030), .width = 1, .gated = false});
  agrees<bf16>({.sizes = std::vector<Index>(33, 200), .width = 1, .wrap = Wrap::cyclic, .gated = false});
  channel_major_agrees<bf16>(33, 1, 130);
}

}  // namespace

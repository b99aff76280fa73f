// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "coyote/operations/cpu/long_convolution.hpp"
#include "coyote/operations/cpu/short_convolution.hpp"

namespace {

namespace cy = coyote;
using cy::Batch;
using cy::Index;
using cy::Rows;
using cy::Wrap;
using cy::Write;

/// A matrix whose rows stand `padding` elements further apart than they are wide; the gaps keep a mark that nobody may touch.
template <class S>
struct Strided {
  static constexpr S mark = S(-77);
  std::vector<S> data;
  Index rows = 0, width = 0, stride = 0;

  Strided() = default;
  Strided(Index rows_, Index width_, Index padding, S value = S(0))
      : data(static_cast<std::size_t>(rows_ * (width_ + padding)), mark), rows(rows_), width(width_), stride(width_ + padding) {
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < width; ++c) at(i, c) = value;
    }
  }
  S& at(Index i, Index c) { return data[static_cast<std::size_t>(i * stride + c)]; }
  Rows<S> view() { return {data.data(), rows, width, stride}; }
  Rows<const S> read() { return view(); }
  bool gaps_untouched() {
    for (Index i = 0; i < rows; ++i) {
      for (Index c = width; c < stride; ++c) {
        if (!(at(i, c) == mark)) return false;
      }
    }
    return true;
  }
};

struct Random {
  unsigned long long state;
  double operator()() {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<double>(state >> 40) / static_cast<double>(1ULL << 23) - 1;
  }
  template <class S>
  Strided<S> matrix(Index rows, Index width, Index padding) {
    Strided<S> m(rows, width, padding);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < width; ++c) m.at(i, c) = static_cast<S>((*this)());
    }
    return m;
  }
};

using Reference = std::vector<double>;

struct Results {
  Reference convolved, y, dx, dgate, dtaps, dbias;
};

struct Problem {
  bool is_long = false;
  Wrap wrap = Wrap::causal;
  std::vector<Index> sizes;
  bool packed = false;
  Index width = 1, taps = 1;
  Index bias_rows = 0;
  bool gated = false;
  Write write = Write::overwrite;
  Index padding = 0;
  Index threads = 2;
};

template <class S>
struct Data {
  Strided<S> x, taps, bias, gate, dy;
};

/// The definition, in plain double loops.
template <class S>
Results expect(const Problem& p, const Batch& batch, Data<S>& d) {
  const Index rows = batch.rows(), w = p.width;
  const auto size = [&](Index r) { return static_cast<std::size_t>(r * w); };
  Results out{Reference(size(rows)), Reference(size(rows)),   Reference(size(rows)),
              Reference(size(rows)), Reference(size(p.taps)), Reference(size(p.bias_rows))};
  for (Index s = 0; s < batch.sequences; ++s) {
    const Index n = batch.size(s), first = batch.begin(s);
    for (Index i = 0; i < n; ++i) {
      for (Index c = 0; c < w; ++c) {
        const std::size_t at = static_cast<std::size_t>((first + i) * w + c);
        const double gate = p.gated ? static_cast<double>(d.gate.at(first + i, c)) : 1.0;
        const double dy = static_cast<double>(d.dy.at(first + i, c));
        const Index b = p.bias_rows > 1 ? i : 0;
        double sum = p.bias_rows > 0 ? static_cast<double>(d.bias.at(b, c)) : 0.0;
        const Index count = p.wrap == Wrap::cyclic ? n : std::min(i + 1, p.taps);
        for (Index t = 0; t < count; ++t) {
          const Index j = (i - t + n) % n;
          sum += static_cast<double>(d.taps.at(t, c)) * static_cast<double>(d.x.at(first + j, c));
          out.dx[static_cast<std::size_t>((first + j) * w + c)] += static_cast<double>(d.taps.at(t, c)) * dy * gate;
          out.dtaps[static_cast<std::size_t>(t * w + c)] += static_cast<double>(d.x.at(first + j, c)) * dy * gate;
        }
        out.convolved[at] = sum;
        out.y[at] = sum * gate;
        out.dgate[at] = sum * dy;
        if (p.bias_rows > 0) out.dbias[static_cast<std::size_t>(b * w + c)] += dy * gate;
      }
    }
  }
  return out;
}

/// ||got - (base + expected)|| / ||(base, expected)||; NaN where something is NaN.
template <class S>
double error(Strided<S>& got, const Reference& expected, double base = 0) {
  double difference = 0, size = 0;
  for (Index i = 0; i < got.rows; ++i) {
    for (Index c = 0; c < got.width; ++c) {
      const double e = expected[static_cast<std::size_t>(i * got.width + c)];
      const double g = static_cast<double>(got.at(i, c)) - base;
      difference += (g - e) * (g - e);
      size += e * e + base * base;
    }
  }
  return std::sqrt(difference / (size + 1e-300));
}

template <class S>
constexpr double tolerance = sizeof(S) == 4 ? 2e-6 : 1e-13;

template <class S>
struct Outputs {
  Strided<S> convolved, y, dx, dgate, dtaps, dbias;
  friend bool operator==(const Outputs& a, const Outputs& b) {
    return a.convolved.data == b.convolved.data && a.y.data == b.y.data && a.dx.data == b.dx.data &&
           a.dgate.data == b.dgate.data && a.dtaps.data == b.dtaps.data && a.dbias.data == b.dbias.data;
  }
};

/// What additive outputs hold before the call.
constexpr double base = 0.25;

template <class S>
Outputs<S> run(const Problem& p, const Batch& batch, Data<S>& d, Index threads) {
  cy::Context<cy::Cpu> ctx(threads);
  ctx.poison(true);
  const Index rows = batch.rows(), w = p.width;
  const Index gate_rows = p.gated ? rows : 0;
  Outputs<S> out{
      Strided<S>(p.is_long && p.gated ? rows : 0, w, p.padding), Strided<S>(rows, w, p.padding),
      Strided<S>(rows, w, p.padding, static_cast<S>(base)),      Strided<S>(gate_rows, w, p.padding),
      Strided<S>(p.taps, w, p.padding, static_cast<S>(base)),    Strided<S>(p.bias_rows, w, p.padding, static_cast<S>(base))};
  if (p.is_long) {
    cy::long_convolution<S>(ctx, batch, p.wrap, d.x.read(), d.taps.read(), d.bias.read(), d.gate.read(), out.convolved.view(),
                            out.y.view());
    cy::long_convolution_backward<S>(ctx, batch, p.wrap, d.x.read(), d.taps.read(), d.gate.read(), out.convolved.read(),
                                     d.dy.read(), out.dx.view(), p.write, out.dgate.view(), out.dtaps.view(), out.dbias.view());
  } else {
    cy::short_convolution<S>(ctx, batch, d.x.read(), d.taps.read(), d.bias.read(), d.gate.read(), out.y.view());
    cy::short_convolution_backward<S>(ctx, batch, d.x.read(), d.taps.read(), d.bias.read(), d.gate.read(), d.dy.read(),
                                      out.dx.view(), p.write, out.dgate.view(), out.dtaps.view(), out.dbias.view());
  }
  return out;
}

std::string describe(const Problem& p) {
  std::string text = p.is_long ? (p.wrap == Wrap::cyclic ? "long cyclic" : "long causal") : "short";
  text += " width " + std::to_string(p.width) + " taps " + std::to_string(p.taps) + " bias " + std::to_string(p.bias_rows);
  text += p.gated ? " gated" : "";
  text += " write " + std::to_string(static_cast<int>(p.write)) + " lengths";
  for (const Index n : p.sizes) text += " " + std::to_string(n);
  return text;
}

template <class S>
void check(const Problem& p) {
  std::vector<Index> offsets{0};
  Batch batch;
  for (const Index n : p.sizes) {
    offsets.push_back(offsets.back() + n);
    batch.length = std::max(batch.length, n);
  }
  batch.sequences = static_cast<Index>(p.sizes.size());
  if (p.packed) batch.offsets = offsets;
  Random random{static_cast<unsigned long long>(p.width * 1000 + batch.length)};
  const Index rows = batch.rows();
  Data<S> d{random.matrix<S>(rows, p.width, p.padding), random.matrix<S>(p.taps, p.width, p.padding),
            random.matrix<S>(p.bias_rows, p.width, p.padding), random.matrix<S>(p.gated ? rows : 0, p.width, p.padding),
            random.matrix<S>(rows, p.width, p.padding)};
  const std::string text = describe(p);
  INFO(text);
  const Results want = expect(p, batch, d);
  Outputs<S> got = run(p, batch, d, 1);
  CHECK(error(got.y, want.y) <= tolerance<S>);
  if (p.is_long && p.gated) CHECK(error(got.convolved, want.convolved) <= tolerance<S>);
  if (p.write == Write::none) {
    CHECK(error(got.dx, Reference(want.dx.size(), 1.0), base - 1) <= 0);  // as it was
  } else {
    CHECK(error(got.dx, want.dx, p.write == Write::add ? base : 0) <= tolerance<S>);
  }
  if (p.gated) CHECK(error(got.dgate, want.dgate) <= tolerance<S>);
  CHECK(error(got.dtaps, want.dtaps, base) <= 4 * tolerance<S>);
  if (p.bias_rows > 0) CHECK(error(got.dbias, want.dbias, base) <= 4 * tolerance<S>);
  for (Strided<S>* m : {&got.y, &got.convolved, &got.dx, &got.dgate, &got.dtaps, &got.dbias}) CHECK(m->gaps_untouched());
  CHECK(got == run(p, batch, d, 3));
  // The comparison must reject zeros and a slightly wrong row.
  Strided<S> zero(rows, p.width, 0);
  CHECK_FALSE(error(zero, want.y) <= tolerance<S>);
  got.y.at(rows / 2, 0) += static_cast<S>(0.05) * (1 + std::abs(got.y.at(rows / 2, 0)));
  CHECK_FALSE(error(got.y, want.y) <= tolerance<S>);
}

const Index widths[] = {1, 3, 16, 17, 64, 70};

/// Bias, gate and write vary with the case's number, so that all values meet all lengths and widths.
Problem vary(Problem p, int number) {
  Index longest = 1;
  for (const Index n : p.sizes) longest = std::max(longest, n);
  p.bias_rows = number % 3 == 0 ? 0 : (number % 3 == 1 ? 1 : longest);
  p.gated = number % 2 == 1;
  p.write = number / 2 % 5 == 4 ? Write::none : (number / 2 % 2 == 0 ? Write::overwrite : Write::add);
  p.padding = number % 4 == 3 ? 5 : 0;
  return p;
}

TEST_CASE_TEMPLATE("short convolution agrees with its definition", S, float, double) {
  int number = 0;
  for (const Index width : widths) {
    for (const Index taps : {1, 2, 3, 4, 5}) {
      for (const Index length : {Index{1}, Index{2}, taps, taps + 1, Index{17}, Index{300}}) {
        Problem p;
        p.width = width;
        p.taps = taps;
        p.sizes = std::vector<Index>(length < 100 ? 5 : 2, length);
        check<S>(vary(p, number++));
        p.packed = true;
        p.sizes = {1, length, 3, 1, 257, 2, length};
        check<S>(vary(p, number++));
      }
    }
  }
}

TEST_CASE_TEMPLATE("long causal convolution agrees with its definition", S, float, double) {
  int number = 0;
  for (const Index length : {1, 2, 3, 5, 8, 17, 31, 64, 65, 100, 127, 128, 129, 257, 600, 1000, 1024, 1536}) {
    for (const Index width : widths) {
      if (length > 300 && width != 17 && (length != 600 || width != 3)) continue;
      Problem p;
      p.is_long = true;
      p.width = width;
      p.taps = length + (number % 2) * 3;  // taps beyond the longest sequence are not used
      p.sizes = std::vector<Index>(length < 100 ? 5 : (length < 600 ? 3 : 1), length);
      check<S>(vary(p, number++));
      p.packed = true;
      p.sizes = {1, length, std::min<Index>(3, length), std::max<Index>(1, length / 2), length, (length + 2) / 3};
      check<S>(vary(p, number++));
    }
  }
}

TEST_CASE_TEMPLATE("long cyclic convolution agrees with its definition", S, float, double) {
  int number = 0;
  for (const Index length : {1, 2, 3, 5, 17, 31, 64, 65, 100, 128, 129, 257}) {
    for (const Index width : {1, 16, 19}) {
      Problem p;
      p.is_long = true;
      p.wrap = Wrap::cyclic;
      p.width = width;
      p.taps = length;
      p.sizes = {length, length};
      check<S>(vary(p, number++));
      p.packed = true;
      p.sizes = {1, length, std::min<Index>(3, length), std::max<Index>(1, length / 2), length};
      check<S>(vary(p, number++));
    }
  }
}

TEST_CASE("gradients that nobody wants are left out") {
  cy::Context<cy::Cpu> ctx(2);
  ctx.poison(true);
  Random random{5};
  for (const Index n : {20, 200}) {
    Batch batch;
    batch.sequences = 2;
    batch.length = n;
    Strided<float> x = random.matrix<float>(2 * n, 20, 0), taps = random.matrix<float>(n, 20, 0),
                   dy = random.matrix<float>(2 * n, 20, 0);
    Strided<float> all(2 * n, 20, 0), dx(2 * n, 20, 0), dtaps(n, 20, 0), some(n, 20, 0);
    const Rows<float> none;
    cy::long_convolution_backward<float>(ctx, batch, Wrap::causal, x.read(), taps.read(), {}, {}, dy.read(), all.view(),
                                         Write::overwrite, none, dtaps.view(), none);
    cy::long_convolution_backward<float>(ctx, batch, Wrap::causal, x.read(), taps.read(), {}, {}, dy.read(), dx.view(),
                                         Write::overwrite, none, none, none);
    cy::long_convolution_backward<float>(ctx, batch, Wrap::causal, x.read(), taps.read(), {}, {}, dy.read(), none, Write::none,
                                         none, some.view(), none);
    CHECK(dx.data == all.data);
    CHECK(some.data == dtaps.data);
  }
}

TEST_CASE("a plan has room for the length and wastes little") {
  for (Index n = 1; n < 100000; n += 1 + n / 50) {
    const cy::cpu::FftPlan plan = cy::cpu::fft_plan(n);
    Index points = plan.q;
    for (Index k = 0; k < plan.k; ++k) points *= 8;
    CHECK(points == plan.points);
    CHECK(plan.points >= n);
    if (n >= 64) CHECK(plan.points < 2 * n);
  }
}

TEST_CASE_TEMPLATE("long sequences keep their precision", S, float, double) {
  // One impulse in x: the output is the taps, shifted; an error of the transform shows against 65536 rows.
  cy::Context<cy::Cpu> ctx(2);
  const Index n = 65536, w = 2, at = 12345;
  Random random{9};
  Strided<S> x(n, w, 0), taps = random.matrix<S>(n, w, 0), y(n, w, 0);
  x.at(at, 0) = S(1);
  x.at(0, 1) = S(-2);
  Batch batch;
  batch.length = n;
  cy::long_convolution<S>(ctx, batch, Wrap::causal, x.read(), taps.read(), {}, {}, {}, y.view());
  Reference want(static_cast<std::size_t>(n * w));
  for (Index i = 0; i < n; ++i) {
    want[static_cast<std::size_t>(2 * i)] = i >= at ? static_cast<double>(taps.at(i - at, 0)) : 0;
    want[static_cast<std::size_t>(2 * i + 1)] = -2 * static_cast<double>(taps.at(i, 1));
  }
  CHECK(error(y, want) <= (sizeof(S) == 4 ? 1e-5 : 1e-12));
}

}  // namespace

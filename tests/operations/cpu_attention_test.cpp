// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/operations/cpu/attention.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/worst_error.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

struct All {
  static constexpr bool uses_tokens = false;
  static constexpr Index index_size(Index) { return 0; }
  static constexpr void append(std::span<std::int32_t>, std::span<const Token>, Index) {}
  static constexpr Index first_key(std::span<const std::int32_t>, Index, Index) { return 0; }
};
template <Index Width>
struct Latest : All {
  static constexpr Index first_key(std::span<const std::int32_t>, Index, Index i) { return std::max<Index>(0, i - Width + 1); }
};
/// Rows with an odd token have no key, the others a window that depends on the token.
struct Gaps {
  static constexpr bool uses_tokens = true;
  static constexpr Index index_size(Index capacity) { return capacity; }
  static constexpr void append(std::span<std::int32_t> index, std::span<const Token> tokens, Index i) {
    index[static_cast<std::size_t>(i)] = tokens[static_cast<std::size_t>(i)];
  }
  static constexpr Index first_key(std::span<const std::int32_t> index, Index, Index i) {
    const Index token = index[static_cast<std::size_t>(i)];
    return token % 2 == 1 ? i + 1 : std::max<Index>(0, i - 10 * token);
  }
};
/// Keys whose token equals the query's, latest first, as a chain of positions.
struct SameToken {
  static constexpr bool uses_tokens = true;
  static constexpr Index index_size(Index capacity) { return capacity + 8; }
  static constexpr void append(std::span<std::int32_t> index, std::span<const Token> tokens, Index i) {
    const std::size_t capacity = index.size() - 8, token = static_cast<std::size_t>(tokens[static_cast<std::size_t>(i)]);
    index[static_cast<std::size_t>(i)] = index[capacity + token];
    index[capacity + token] = static_cast<std::int32_t>(i);
  }
  template <class F>
  static constexpr void for_each_key(std::span<const std::int32_t> index, Index, Index i, F&& f) {
    for (Index j = index[static_cast<std::size_t>(i)]; j >= 0; j = index[static_cast<std::size_t>(j)]) f(j);
  }
};
/// The same keys as All, walked.
struct Every : SameToken {
  static constexpr bool uses_tokens = false;
  static constexpr Index index_size(Index) { return 0; }
  static constexpr void append(std::span<std::int32_t>, std::span<const Token>, Index) {}
  template <class F>
  static constexpr void for_each_key(std::span<const std::int32_t>, Index, Index i, F&& f) {
    for (Index j = 0; j <= i; ++j) f(j);
  }
};
static_assert(IntervalPattern<All> && !WalkedPattern<All> && WalkedPattern<SameToken> && !IntervalPattern<SameToken>);
static_assert(!AttentionPattern<int>);

/// The pairs of a test pattern, told a second time from the tokens.
bool uses(All, std::span<const Token>, Index, Index) { return true; }
bool uses(Every, std::span<const Token>, Index, Index) { return true; }
template <Index Width>
bool uses(Latest<Width>, std::span<const Token>, Index i, Index j) {
  return i - j < Width;
}
bool uses(Gaps, std::span<const Token> tokens, Index i, Index j) {
  const Index token = tokens[static_cast<std::size_t>(i)];
  return token % 2 == 0 && i - j <= 10 * token;
}
bool uses(SameToken, std::span<const Token> tokens, Index i, Index j) {
  return j < i && tokens[static_cast<std::size_t>(i)] == tokens[static_cast<std::size_t>(j)];
}

template <class S>
struct Data {
  Data(const Batch& batch, Index heads, Index width, double size = 1)
      : rows(batch.rows()), d(heads * width), packed(rows, 3 * d + 5), dy(rows, d) {
    const Stream stream(Seed{3}, Purpose::test, 1);
    std::uint64_t n = 0;
    for (S& x : packed) x = static_cast<S>(size * stream.normal(n++));
    for (S& x : dy) x = static_cast<S>(stream.normal(n++));
  }
  Rows<const S> part(Index p) const { return packed.view().columns(p * d, d); }
  Index rows, d;
  Matrix<S> packed, dy;  // q, k, v side by side
};

struct Gradients {
  std::vector<double> y, dq, dk, dv;
};

/// Attention and its gradient as plain loops in double, head by head and pair by pair.
template <class Pattern, class S>
Gradients plain(const Batch& batch, Index heads, double scale, const AttentionDropout& dropout, const Data<S>& data) {
  const DropoutRule rule = dropout.rule();
  const Index d = data.d, width = d / heads;
  const auto size = static_cast<std::size_t>(data.rows * d);
  Gradients g{std::vector<double>(size), std::vector<double>(size), std::vector<double>(size), std::vector<double>(size)};
  const auto at = [&](Index i, Index h, Index c) { return static_cast<std::size_t>(i * d + h * width + c); };
  const auto in = [&](Index p, Index i, Index h, Index c) { return static_cast<double>(data.part(p)(i, h * width + c)); };
  for (Index s = 0; s < batch.sequences; ++s) {
    for (Index h = 0; h < heads; ++h) {
      for (Index i = 0; i < batch.size(s); ++i) {
        const Index row = batch.begin(s) + i;
        std::vector<Index> keys;
        std::vector<double> p, kept;
        double most = -std::numeric_limits<double>::infinity(), total = 0;
        for (Index j = 0; j <= i; ++j) {
          if (!uses(Pattern{}, batch.tokens.empty() ? batch.tokens : batch.tokens_of(s), i, j)) continue;
          keys.push_back(batch.begin(s) + j);
          double score = 0;
          for (Index c = 0; c < width; ++c) score += in(0, row, h, c) * in(1, keys.back(), h, c);
          p.push_back(scale * score);
          most = std::max(most, p.back());
          const bool keep = rule.keeps(static_cast<std::uint64_t>(row * heads + h), static_cast<std::uint64_t>(keys.back()));
          kept.push_back(keep ? rule.scale() : 0);
        }
        for (double& x : p) total += x = std::exp(x - most);
        double delta = 0;
        std::vector<double> dp;
        for (std::size_t n = 0; n < keys.size(); ++n) {
          p[n] /= total;
          double sum = 0;
          for (Index c = 0; c < width; ++c) {
            const double error = static_cast<double>(data.dy(row, h * width + c));
            g.y[at(row, h, c)] += p[n] * kept[n] * in(2, keys[n], h, c);
            g.dv[at(keys[n], h, c)] += p[n] * kept[n] * error;
            sum += error * in(2, keys[n], h, c);
          }
          dp.push_back(kept[n] * sum);
          delta += p[n] * dp[n];
        }
        for (std::size_t n = 0; n < keys.size(); ++n) {
          const double slope = scale * p[n] * (dp[n] - delta);
          for (Index c = 0; c < width; ++c) {
            g.dq[at(row, h, c)] += slope * in(1, keys[n], h, c);
            g.dk[at(keys[n], h, c)] += slope * in(0, row, h, c);
          }
        }
      }
    }
  }
  return g;
}

template <class S>
constexpr double tolerance = sizeof(S) == 4 ? 1e-5 : 2e-14;

template <class S>
struct Run {
  Run(Index rows, Index d, Index heads) : y(rows, d), lse(rows, heads), dpacked(rows, 3 * d + 2) {}
  Rows<S> part(Index p) { return dpacked.view().columns(p * y.width(), y.width()); }
  Matrix<S> y, lse, dpacked;
};

template <class S, class Pattern>
Run<S> run(Context<Cpu>& ctx, const Batch& batch, Index heads, double scale, const AttentionDropout& dropout,
           const Data<S>& data) {
  Run<S> r(data.rows, data.d, heads);
  for (Matrix<S>* m : {&r.y, &r.lse, &r.dpacked}) std::fill(m->begin(), m->end(), S(77));
  const auto frame = ctx.frame();
  const PatternIndex index = build_index<Pattern>(ctx, batch);
  attention<S, Pattern>(ctx, batch, index, heads, static_cast<S>(scale), dropout, data.part(0), data.part(1), data.part(2), r.y,
                        r.lse);
  attention_backward<S, Pattern>(ctx, batch, index, heads, static_cast<S>(scale), dropout, data.part(0), data.part(1),
                                 data.part(2), std::as_const(r.y).view(), std::as_const(r.lse).view(), data.dy, r.part(0),
                                 r.part(1), r.part(2));
  for (Index i = 0; i < data.rows; ++i) {
    for (Index g = 0; g < 2; ++g) REQUIRE(r.dpacked(i, 3 * data.d + g) == S(77));  // nothing beside the views
  }
  return r;
}

template <class S, class Pattern>
void check(const Batch& batch, Index heads, Index width, double rate = 0, double size = 1) {
  CAPTURE(batch.length);
  CAPTURE(heads);
  CAPTURE(width);
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  const AttentionDropout dropout{rate, Stream(Seed{9}, Purpose::dropout, 4, 2)};
  const Data<S> data(batch, heads, width, size);
  Context<Cpu> ctx(2);
  ctx.poison(true);
  Run<S> got = run<S, Pattern>(ctx, batch, heads, scale, dropout, data);
  const Gradients expected = plain<Pattern>(batch, heads, scale, dropout, data);
  const double allowed = tolerance<S>;
  CHECK(worst_error<S>(expected.y, got.y.view()) <= allowed);
  // Gradients are compared with the largest of all three: with one key per row dq and dk are differences of equals.
  double largest = 0;
  for (const auto* g : {&expected.dq, &expected.dk, &expected.dv}) {
    for (const double x : *g) largest = std::max(largest, std::abs(x));
  }
  const auto near = [&](const std::vector<double>& reference, Rows<const S> part) {
    double worst = 0;
    for (Index i = 0; i < part.rows; ++i) {
      for (Index c = 0; c < part.width; ++c) {
        const double e = std::abs(reference[static_cast<std::size_t>(i * part.width + c)] - static_cast<double>(part(i, c)));
        if (worst == worst && !(e <= worst)) worst = e;
      }
    }
    return worst <= 2 * allowed * std::max(1.0, largest);
  };
  CHECK(near(expected.dq, got.part(0)));
  CHECK(near(expected.dk, got.part(1)));
  CHECK(near(expected.dv, got.part(2)));
  // Controls: zero and slightly wrong results are refused.
  if (largest > 0) {
    const Matrix<S> zero(data.rows, data.d);
    CHECK_FALSE(worst_error<S>(expected.y, zero) <= allowed);
    CHECK_FALSE(near(expected.dv, zero));
    got.y(data.rows - 1, 0) += S(0.01) * static_cast<S>(std::max(1.0, size));
    got.part(2)(data.rows - 1, 0) += static_cast<S>(0.01 * std::max(1.0, largest));
    CHECK_FALSE(worst_error<S>(expected.y, got.y.view()) <= allowed);
    CHECK_FALSE(near(expected.dv, got.part(2)));
  }
}

std::vector<Token> some_tokens(Index rows) {
  std::vector<Token> tokens;
  const Stream stream(Seed{5}, Purpose::test, 2);
  for (Index i = 0; i < rows; ++i) tokens.push_back(static_cast<Token>(stream.below(static_cast<std::uint64_t>(i), 7)));
  return tokens;
}

TEST_CASE_TEMPLATE("attention equals plain loops for odd widths and lengths", S, float, double) {
  for (const Index length : {1, 2, 3, 17, 63, 64, 65, 130, 257}) {
    const std::vector<Token> tokens = some_tokens(2 * length);
    const Batch batch{.sequences = 2, .length = length, .tokens = tokens};
    const Index width = length == 64 || length == 257 ? 64 : length % 3 == 0 ? 17 : length % 2 == 0 ? 3 : 1;
    check<S, All>(batch, length > 64 ? 1 : 3, width);
    check<S, Latest<5>>(batch, 2, width);
    check<S, Gaps>(batch, 2, width);
    check<S, SameToken>(batch, 2, width);
    check<S, Every>(batch, 1, width);
  }
  check<S, All>(Batch{.sequences = 1, .length = 70}, 2, 80);
  check<S, All>(Batch{.sequences = 1, .length = 600}, 1, 16);  // several parts of one head
  check<S, Latest<130>>(Batch{.sequences = 1, .length = 600}, 1, 16);
}

TEST_CASE_TEMPLATE("packed sequences do not see each other", S, float, double) {
  const std::vector<Index> offsets = {0, 1, 40, 41, 340};
  const std::vector<Token> tokens = some_tokens(340);
  const Batch batch{.sequences = 4, .length = 299, .offsets = offsets, .tokens = tokens};
  check<S, All>(batch, 2, 24);
  check<S, Gaps>(batch, 1, 24);
  check<S, SameToken>(batch, 2, 24);
  // Other numbers in sequence 1 change no bit outside it.
  Data<S> data(batch, 2, 8);
  Context<Cpu> ctx(2);
  Run<S> before = run<S, All>(ctx, batch, 2, 0.3, {}, data);
  for (Index i = 1; i < 40; ++i) {
    for (Index c = 0; c < data.packed.width(); ++c) data.packed(i, c) += S(1);
  }
  Run<S> after = run<S, All>(ctx, batch, 2, 0.3, {}, data);
  Index inside = 0;
  for (Index i = 0; i < data.rows; ++i) {
    for (Index c = 0; c < data.d; ++c) {
      const bool same = before.y(i, c) == after.y(i, c) && before.part(1)(i, c) == after.part(1)(i, c);
      if (i >= 1 && i < 40) {
        inside += same ? 0 : 1;
      } else {
        REQUIRE(same);
      }
    }
  }
  CHECK(inside > 0);
}

TEST_CASE_TEMPLATE("dropout uses the mask of its rule", S, float, double) {
  const std::vector<Token> tokens = some_tokens(300);
  const std::vector<Index> offsets = {0, 101, 103, 300};
  const Batch batch{.sequences = 3, .length = 197, .offsets = offsets, .tokens = tokens};
  for (const double rate : {0.1, 0.5}) {
    check<S, All>(batch, 2, 16, rate);
    check<S, Latest<9>>(batch, 2, 5, rate);
    check<S, SameToken>(batch, 2, 16, rate);
  }
  // The rule keeps its share, and other seeds keep others.
  const DropoutRule rule(0.25, Stream(Seed{1}, Purpose::dropout)), other(0.25, Stream(Seed{2}, Purpose::dropout));
  Index kept = 0, agree = 0;
  for (std::uint64_t n = 0; n < 40000; ++n) {
    kept += rule.keeps(n / 200, n % 200) ? 1 : 0;
    agree += rule.keeps(n / 200, n % 200) == other.keeps(n / 200, n % 200) ? 1 : 0;
  }
  CHECK(std::abs(static_cast<double>(kept) / 40000 - 0.75) < 0.01);
  CHECK(std::abs(static_cast<double>(agree) / 40000 - 0.625) < 0.015);
  CHECK_THROWS_AS(DropoutRule(1.0, Stream(Seed{1}, Purpose::dropout)), Error);
  CHECK_THROWS_AS(DropoutRule(std::nan(""), Stream(Seed{1}, Purpose::dropout)), Error);
}

TEST_CASE_TEMPLATE("extreme scores give no NaN", S, float, double) {
  const Batch batch{.sequences = 1, .length = 70};
  for (const double size : {100.0, 1000.0}) {
    const Data<S> data(batch, 1, 8, size);
    Context<Cpu> ctx(1);
    for (const double scale : {1.0, -1.0, 0.01}) {
      Run<S> walked = run<S, Every>(ctx, batch, 1, scale, {}, data), blocks = run<S, All>(ctx, batch, 1, scale, {}, data);
      bool finite = true, bounded = true;
      for (Run<S>* r : {&walked, &blocks}) {
        for (const S x : r->y) bounded = bounded && std::abs(x) <= S(6 * size);
        for (const S x : r->dpacked) finite = finite && std::isfinite(x);
      }
      CHECK(finite);
      CHECK(bounded);
    }
  }
  // A NaN in a key reaches every row that uses it, and no other.
  Data<S> data(batch, 1, 8);
  data.packed(40, 8) = std::numeric_limits<S>::quiet_NaN();
  Context<Cpu> ctx(1);
  Run<S> r = run<S, All>(ctx, batch, 1, 1, {}, data);
  for (Index i = 0; i < 70; ++i) CHECK(std::isnan(r.y(i, 0)) == (i >= 40));
}

TEST_CASE("attention does not depend on the number of threads") {
  const std::vector<Token> tokens = some_tokens(1400);
  const Batch batch{.sequences = 2, .length = 700, .tokens = tokens};
  const Data<float> data(batch, 2, 16);
  const auto all = [&](Index threads) {
    Context<Cpu> ctx(threads);
    std::vector<float> bits;
    for (Run<float>& r :
         std::vector<Run<float>>{run<float, All>(ctx, batch, 2, 0.25, {0.1, Stream(Seed{1}, Purpose::dropout)}, data),
                                 run<float, SameToken>(ctx, batch, 2, 0.25, {}, data)}) {
      for (const Matrix<float>* m : {&r.y, &r.lse, &r.dpacked}) bits.insert(bits.end(), m->begin(), m->end());
    }
    return bits;
  };
  const std::vector<float> one = all(1);
  std::vector<float> three = all(3);
  CHECK(one == three);
  three[5] = std::nextafter(three[5], 100.0f);
  CHECK(one != three);
}

template <class S, class Pattern>
void check_steps(const Batch& batch, Index heads, Index width) {
  const Data<S> data(batch, heads, width);
  Context<Cpu> ctx(2);
  const auto frame = ctx.frame();
  Run<S> whole = run<S, Pattern>(ctx, batch, heads, 0.5, {}, data);
  const Index n = batch.length, capacity = n + 3;
  Matrix<S> keys(batch.sequences * capacity, data.d), values(batch.sequences * capacity, data.d), q(batch.sequences, data.d),
      y(batch.sequences, data.d);
  const Index entries = Pattern::index_size(capacity);
  std::vector<std::int32_t> index(static_cast<std::size_t>(batch.sequences * entries), -1);
  std::vector<Index> starts;
  for (Index s = 0; s <= batch.sequences; ++s) starts.push_back(s * entries);
  for (Index i = 0; i < n; ++i) {
    for (Index s = 0; s < batch.sequences; ++s) {
      Pattern::append(std::span(index).subspan(static_cast<std::size_t>(s * entries), static_cast<std::size_t>(entries)),
                      batch.tokens_of(s), i);
      for (Index c = 0; c < data.d; ++c) {
        q(s, c) = data.part(0)(s * n + i, c);
        keys(s * capacity + i, c) = data.part(1)(s * n + i, c);
        values(s * capacity + i, c) = data.part(2)(s * n + i, c);
      }
    }
    attention_step<S, Pattern>(ctx, {index.data(), starts.data()}, capacity, i, heads, S(0.5), q, keys, values, y);
    for (Index s = 0; s < batch.sequences; ++s) {
      for (Index c = 0; c < data.d; ++c) {
        REQUIRE(std::abs(static_cast<double>(y(s, c) - whole.y(s * n + i, c))) <= 10 * tolerance<S>);
      }
    }
  }
}

TEST_CASE_TEMPLATE("decoding step by step equals the whole sequence", S, float, double) {
  const std::vector<Token> tokens = some_tokens(3 * 90);
  const Batch batch{.sequences = 3, .length = 90, .tokens = tokens};
  check_steps<S, All>(batch, 2, 20);
  check_steps<S, Latest<7>>(batch, 1, 3);
  check_steps<S, SameToken>(batch, 2, 64);
}

TEST_CASE("a pattern over tokens asks for tokens") {
  Context<Cpu> ctx(1);
  CHECK_THROWS_AS(build_index<SameToken>(ctx, Batch{.sequences = 1, .length = 3}), Error);
  CHECK(build_index<All>(ctx, Batch{.sequences = 1, .length = 3}).starts == nullptr);
}

template <class S, class F, class G>
double worst_ulp(double low, double high, F vectorised, G exact) {
  double worst = 0;
  for (Index n = 0; n < 20000; ++n) {
    alignas(64) S x[cpu::lanes<S>], y[cpu::lanes<S>];
    for (Index l = 0; l < cpu::lanes<S>; ++l) {
      x[l] = static_cast<S>(low + (high - low) * static_cast<double>(n * cpu::lanes<S> + l) /
                                      (20000.0 * static_cast<double>(cpu::lanes<S>)));
    }
    cpu::store<S>(y, vectorised(cpu::load(x)));
    for (Index l = 0; l < cpu::lanes<S>; ++l) {
      const long double r = exact(static_cast<long double>(x[l]));
      const S rounded = static_cast<S>(r);
      const S unit = std::nextafter(std::abs(rounded), std::numeric_limits<S>::infinity()) - std::abs(rounded);
      const auto e = static_cast<double>(std::abs(static_cast<long double>(y[l]) - r) / static_cast<long double>(unit));
      if (worst == worst && !(e <= worst)) worst = e;
    }
  }
  return worst;
}

TEST_CASE_TEMPLATE("exp, sigmoid and tanh are precise and saturate", S, float, double) {
  const double end = sizeof(S) == 4 ? 87 : 708;
  const auto e = [](long double x) { return std::exp(x); };
  CHECK(worst_ulp<S>(
            -end, end, [](auto x) { return cpu::vector_exp<S>(x); }, e) <= 2);
  CHECK(worst_ulp<S>(
            -1, 1, [](auto x) { return cpu::vector_exp<S>(x); }, e) <= 2);
  CHECK(worst_ulp<S>(
            -end, 0, [](auto x) { return cpu::vector_exp_negative<S>(x); }, e) <= 2);
  CHECK(worst_ulp<S>(
            -10, 10, [](auto x) { return cpu::vector_sigmoid<S>(x); }, [](long double x) { return 1 / (1 + std::exp(-x)); }) <=
        4);
  CHECK(worst_ulp<S>(
            -10, 10, [](auto x) { return cpu::vector_tanh<S>(x); }, [](long double x) { return std::tanh(x); }) <= 6);
  CHECK(worst_ulp<S>(
            -0.01, 0.01, [](auto x) { return cpu::vector_tanh<S>(x); }, [](long double x) { return std::tanh(x); }) <= 6);
  // A control: a slightly different function is refused.
  CHECK_FALSE(worst_ulp<S>(
                  -1, 1, [](auto x) { return cpu::vector_exp<S>(x) * S(1 + 8 * std::numeric_limits<S>::epsilon()); }, e) <= 2);
  const S inf = std::numeric_limits<S>::infinity();
  const auto at = [](S x) { return cpu::vector_exp<S>(cpu::broadcast<S>(x))[0]; };
  CHECK(at(-inf) == 0);
  CHECK(at(S(-1e6)) == 0);
  CHECK(at(inf) == inf);
  CHECK(at(S(1e6)) == inf);
  CHECK(at(0) == 1);
  CHECK(std::isnan(at(std::numeric_limits<S>::quiet_NaN())));
  CHECK(cpu::vector_exp_negative<S>(cpu::broadcast<S>(-inf))[0] == 0);
  CHECK(std::isnan(cpu::vector_exp_negative<S>(cpu::broadcast<S>(std::numeric_limits<S>::quiet_NaN()))[0]));
  CHECK(cpu::vector_sigmoid<S>(cpu::broadcast<S>(-inf))[0] == 0);
  CHECK(cpu::vector_sigmoid<S>(cpu::broadcast<S>(inf))[0] == 1);
  CHECK(cpu::vector_tanh<S>(cpu::broadcast<S>(inf))[0] == 1);
  CHECK(std::isnan(cpu::vector_tanh<S>(cpu::broadcast<S>(std::numeric_limits<S>::quiet_NaN()))[0]));
}

}  // namespace

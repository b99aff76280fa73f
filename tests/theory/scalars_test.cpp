// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <limits>
#include <random>
#include <vector>

#include "coyote/core/scalar.hpp"
#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/rational.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;

static_assert(Ring<Rational> && Ring<Field> && Ring<PrimeField<7>> && Ring<long>);

constexpr long long most = std::numeric_limits<std::int64_t>::max(), least = std::numeric_limits<std::int64_t>::min();

// Both exact scalars compute at compile time.
static_assert(Rational(1, 2) + Rational(1, 3) == Rational(5, 6));
static_assert(Rational(6, -4).numerator() == -3 && Rational(6, -4).denominator() == 2);
static_assert(Rational(0, -5) == Rational() && Rational(0, -5).denominator() == 1);
static_assert(Rational(-1, 2) < Rational(-1, 3) && !(Rational(1, 3) < Rational(2, 6)));
static_assert(Field(-1) * Field(-1) == Field(1) && Field(2) * Field(2).inverse() == Field(1));
static_assert(Field(-3).centred() == -3 && PrimeField<7>(3).pow(6) == 1);
static_assert([] {
  Field x[4] = {1, 2, 3, 4};
  transform(x, 4, false);
  if (!(x[0] == Field(10))) return false;
  transform(x, 4, true);
  return x[0] == Field(1) && x[1] == Field(2) && x[2] == Field(3) && x[3] == Field(4);
}());

/// The axioms of a field on all triples of a sample.
template <class S>
void check_axioms(const std::vector<S>& sample) {
  const S zero{}, one(1);
  CHECK(!(zero == one));
  for (const S& a : sample) {
    CHECK(a + zero == a);
    CHECK(a * one == a);
    CHECK(a + (-a) == zero);
    CHECK(a - a == zero);
    if (!(a == zero)) {
      CHECK(a * a.inverse() == one);
      CHECK(one / a == a.inverse());
    }
    for (const S& b : sample) {
      CHECK(a + b == b + a);
      CHECK(a * b == b * a);
      CHECK(a - b == a + (-b));
      S c = a;
      CHECK((c += b) == a + b);
      CHECK((c -= b) == a);
      CHECK((c *= b) == a * b);
      for (const S& d : sample) {
        CHECK((a + b) + d == a + (b + d));
        CHECK((a * b) * d == a * (b * d));
        CHECK(a * (b + d) == a * b + a * d);
      }
    }
  }
}

TEST_CASE("axioms of a field") {
  std::mt19937 random(1);
  std::vector<Rational> fractions{0, 1, -1, Rational(1, 2), Rational(-7, 3)};
  std::vector<Field> residues{0, 1, -1, 2, 998244352, 499122177};
  std::vector<PrimeField<7>> all;
  for (int i = 0; i < 6; ++i) {
    fractions.emplace_back(static_cast<long long>(random() % 199) - 99, static_cast<long long>(random() % 99) + 1);
    residues.emplace_back(static_cast<long long>(random()));
  }
  for (int i = 0; i < 7; ++i) all.emplace_back(i);
  check_axioms(fractions);
  check_axioms(residues);
  check_axioms(all);
}

TEST_CASE("a fraction is in lowest terms") {
  for (long long n = -30; n <= 30; ++n) {
    for (long long d = 1; d <= 30; ++d) {
      const Rational r(n, d), negative(n, -d);
      CHECK(r.numerator() * d == n * r.denominator());
      CHECK(r.denominator() >= 1);
      for (long long p = 2; p <= r.denominator(); ++p) CHECK(!(r.numerator() % p == 0 && r.denominator() % p == 0));
      CHECK(negative == -r);
      CHECK(static_cast<double>(r) == static_cast<double>(n) / static_cast<double>(d));
    }
  }
}

TEST_CASE("a fraction that does not fit is an error, and only then") {
  const Rational big(most), small(least), tiny(1, most);
  CHECK_THROWS_AS(big + Rational(1), Error);
  CHECK_THROWS_AS(small - Rational(1), Error);
  CHECK_THROWS_AS(-small, Error);
  CHECK_THROWS_AS(small * Rational(-1), Error);
  CHECK_THROWS_AS(big * Rational(2), Error);
  CHECK_THROWS_AS(tiny * Rational(1, 2), Error);
  CHECK_THROWS_AS(tiny + Rational(1, 2), Error);
  CHECK_THROWS_AS(small.inverse(), Error);
  CHECK_THROWS_AS(Rational(1, least), Error);
  CHECK_THROWS_AS(Rational(1, 0), Error);
  CHECK_THROWS_AS(Rational(1) / Rational(0), Error);
  CHECK_THROWS_AS(Rational(0).inverse(), Error);
  CHECK_THROWS_AS(Field(0).inverse(), Error);
  // These pass through more than 64 bits on the way.
  CHECK(big * tiny == Rational(1));
  CHECK(big * Rational(2, most) == Rational(2));
  CHECK(Rational(1, 2) * small == Rational(least / 2));
  CHECK(tiny - tiny == Rational(0));
  CHECK(big.inverse() == tiny);
  CHECK(big - big == Rational(0));
  CHECK(small + big == Rational(-1));
  CHECK(Rational(least, least) == Rational(1));
  CHECK(Rational(most - 1, 2) + Rational(most - 1, 2) == Rational(most - 1));
  CHECK(Rational(-1) / tiny == Rational(-most));
}

TEST_CASE("convolution by transforms is the sum over lags, with both ends") {
  std::mt19937 random(3);
  for (const Index n : {1, 2, 3, 17, 64, 100}) {
    for (const Index count : {Index{1}, (n + 1) / 2, n}) {
      Array<Field> taps(count), x(n);
      for (Field& t : taps) t = static_cast<long long>(random());
      for (Field& v : x) v = static_cast<long long>(random());
      for (const bool cyclic : {false, true}) {
        Array<Field> y(n);
        for (Field& v : y) v = 5;  // it adds
        convolve_by_transform(taps.data(), count, x.data(), n, cyclic, y.data());
        bool right = true, slightly_wrong = true;
        for (Index i = 0; i < n; ++i) {
          Field sum = 5;
          for (Index t = 0; t < count; ++t) {
            if (i >= t || cyclic) sum += taps[t] * x[(i - t + n) % n];
          }
          right = right && y[i] == sum;
          slightly_wrong = slightly_wrong && y[i] == sum + Field(i == n / 2 ? 1 : 0);
        }
        CHECK(right);
        CHECK(!slightly_wrong);
      }
    }
  }
}

TEST_CASE("the transform turns convolution into products") {
  std::mt19937 random(2);
  for (Index n : {1, 2, 4, 8, 64, 256}) {
    std::vector<Field> a, b;
    for (Index i = 0; i < n; ++i) {
      a.emplace_back(static_cast<long long>(random()));
      b.emplace_back(static_cast<long long>(random()));
    }
    std::vector<Field> cyclic(static_cast<std::size_t>(n)), x = a, y = b;
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < n; ++j)
        cyclic[static_cast<std::size_t>((i + j) % n)] += a[static_cast<std::size_t>(i)] * b[static_cast<std::size_t>(j)];
    }
    transform(x.data(), n, false);
    transform(y.data(), n, false);
    for (std::size_t k = 0; k < x.size(); ++k) x[k] *= y[k];
    transform(x.data(), n, true);
    CHECK(x == cyclic);
    x[0] += 1;
    CHECK(!(x == cyclic));
  }
  Field x[4];
  CHECK_THROWS_AS(transform(x, 3, false), Error);
  CHECK_THROWS_AS(transform(x, 0, false), Error);
  CHECK_THROWS_AS(transform(x, Index{1} << 24, false), Error);
}

}  // namespace

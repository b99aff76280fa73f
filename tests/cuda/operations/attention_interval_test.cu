// SPDX-License-Identifier: Apache-2.0
#include "attention_support.cuh"

namespace test {

/// Rows with an odd token have no key, the others a window that depends on the token.
struct Gaps {
  static constexpr bool uses_tokens = true;
  COYOTE_HOST_DEVICE static constexpr Index index_size(Index capacity) { return capacity; }
  COYOTE_HOST_DEVICE static constexpr void append(Entries<std::int32_t> index, Entries<const Token> tokens, Index i) {
    index[i] = tokens[i];
  }
  COYOTE_HOST_DEVICE static constexpr Index first_key(Entries<const std::int32_t> index, Index, Index i) {
    const Index token = index[i];
    return token % 2 == 1 ? i + 1 : i < 10 * token ? 0 : i - 10 * token;
  }
};

}  // namespace test

namespace {

using namespace test;

TEST_CASE_TEMPLATE("dense attention equals plain loops for every length and head size", S, float, bf16) {
  for (const Index length : {1, 2, 3, 17, 31, 63, 64, 65, 127, 128, 129, 200, 257}) {
    check<S, Dense>({.lengths = {length, length}, .heads = 2, .width = 64, .packed = false});
    check<S, Dense>({.lengths = {length}, .heads = 1, .width = 128, .packed = false});
  }
  for (const Index width :
       {1, 2, 3, 7, 8, 16, 24, 31, 32, 33, 40, 48, 65, 72, 80, 96, 100, 120, 160, 192, 256, 264, 300, 512, 520}) {
    check<S, Dense>({.lengths = {70, 70}, .heads = width < 100 ? 3 : 1, .width = width, .packed = false});
  }
  check<S, Dense>({.lengths = {600}, .heads = 1, .width = 64});
  check<S, Dense>({.lengths = {513}, .heads = 2, .width = 128});
  check<S, Dense>({.lengths = {130}, .heads = 2, .width = 256});
  check<S, Dense>({.lengths = {257}, .heads = 1, .width = 512});
}

TEST_CASE_TEMPLATE("strides, offsets and packed sequences of different lengths", S, float, bf16) {
  for (const Index pad : {0, 1, 2, 5, 8}) {
    for (const Index offset : {0, 1, 2, 8}) {
      check<S, Dense>({.lengths = {5, 70, 1, 33}, .heads = 2, .width = 64, .pad = pad, .offset = offset});
    }
  }
  check<S, Dense>({.lengths = {128, 1, 64, 200, 3, 65, 127}, .heads = 2, .width = 64});
  check<S, Dense>({.lengths = {128, 1, 64, 200, 3, 65, 127}, .heads = 1, .width = 128});
  check<S, Dense>({.lengths = {100, 1, 64}, .heads = 3, .width = 20, .pad = 3});
}

TEST_CASE_TEMPLATE("windows, repeated tokens and patterns of a user's", S, float, bf16) {
  for (const Index length : {1, 2, 17, 65, 130, 300}) {
    for (const Index width : {Index{64}, Index{128}, Index{20}}) {
      const Case c{.lengths = {length, 40}, .heads = 2, .width = width};
      check<S, Window<1>>(c);
      check<S, Window<5>>(c);
      check<S, Window<100>>(c);
      check<S, RepeatedTokens>(c);
      check<S, Gaps>(c);
    }
  }
  check<S, RepeatedTokens>({.lengths = {90}, .heads = 1, .width = 32, .symbols = 1000});  // almost no repeats
}

TEST_CASE_TEMPLATE("dropout keeps what the rule keeps", S, float, bf16) {
  for (const double rate : {0.1, 0.5}) {
    check<S, Dense>({.lengths = {70, 3, 130}, .heads = 2, .width = 64, .rate = rate});
    check<S, Dense>({.lengths = {129}, .heads = 1, .width = 128, .packed = false, .rate = rate});
    check<S, Dense>({.lengths = {67}, .heads = 1, .width = 256, .rate = rate});
    check<S, Dense>({.lengths = {67}, .heads = 1, .width = 512, .rate = rate});
    check<S, Window<9>>({.lengths = {70}, .heads = 3, .width = 20, .rate = rate});
    for (const Index width : {8, 40, 64, 128}) {
      for (const Index heads : {1, 3}) {
        check<S, Dense>({.lengths = {1, 5, 63, 64}, .heads = heads, .width = width, .rate = rate});
        check<S, Dense>({.lengths = {65, 100, 3, 128, 129}, .heads = heads, .width = width, .rate = rate});
      }
      for (const Index length : {1, 5, 63, 64, 65, 100, 128, 129, 256}) {
        check<S, Dense>({.lengths = {length, length, length}, .heads = 1, .width = width, .packed = false, .rate = rate});
      }
      check<S, Window<40>>({.lengths = {150, 3, 64}, .heads = 2, .width = width, .rate = rate, .pad = 1, .offset = 1});
    }
  }
}

TEST_CASE_TEMPLATE("large scores keep the softmax finite", S, float, bf16) {
  // In double the softmax of such scores is almost a maximum; in bf16 and float it must be the same one.
  for (const double size : {1e-3, 4.0}) {
    check<S, Dense>({.lengths = {100}, .heads = 2, .width = 64, .size = size});
    check<S, Dense>({.lengths = {100}, .heads = 1, .width = 128, .size = size});
  }
}

template <class S>
void check_small(Index width) {
  check<S, Dense>({.lengths = {65, 1, 7}, .heads = 2, .width = width, .rate = 0.1});
  check<S, Window<5>>({.lengths = {65, 1, 7}, .heads = 2, .width = width});
}

TEST_CASE_TEMPLATE("intervals at small shapes", S, float, bf16) {
  for (const Index width : {1, 20, 64, 128}) check_small<S>(width);
  check<S, Dense>({.lengths = {130, 130}, .heads = 1, .width = 64, .packed = false});
  check<S, RepeatedTokens>({.lengths = {17, 3}, .heads = 2, .width = 64});
  check<S, Gaps>({.lengths = {17, 3}, .heads = 2, .width = 64});
}

TEST_CASE_TEMPLATE("intervals at small shapes, heads that several warps share", S, float, bf16) { check_small<S>(256); }

TEST_CASE("worst relative error") { MESSAGE("worst relative error of this program: ", worst_seen); }

}  // namespace

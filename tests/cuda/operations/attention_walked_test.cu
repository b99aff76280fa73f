// SPDX-License-Identifier: Apache-2.0
#include "attention_support.cuh"

namespace test {

/// Keys whose token equals the query's, latest first, as a chain of positions over an index of its own.
struct SameToken {
  static constexpr bool uses_tokens = true;
  COYOTE_HOST_DEVICE static constexpr Index index_size(Index capacity) { return capacity + 8; }
  COYOTE_HOST_DEVICE static constexpr void append(Entries<std::int32_t> index, Entries<const Token> tokens, Index i) {
    const Index capacity = index.size() - 8, token = tokens[i];
    index[i] = index[capacity + token];
    index[capacity + token] = static_cast<std::int32_t>(i);
  }
  COYOTE_CALLS_BACK
  template <class F>
  COYOTE_HOST_DEVICE static constexpr void for_each_key(Entries<const std::int32_t> index, Index, Index i, F&& f) {
    for (Index j = index[i]; j >= 0; j = index[j]) f(j);
  }
};

}  // namespace test

namespace {

using namespace test;

TEST_CASE_TEMPLATE("walked patterns equal plain loops", S, float, bf16) {
  for (const Index length : {1, 2, 3, 17, 64, 65, 130, 300}) {
    for (const Index width : {Index{1}, Index{20}, Index{64}, Index{128}}) {
      const Case c{.lengths = {length, 40, length}, .heads = 2, .width = width};
      check<S, RepeatedBigrams<0>>(c);
      check<S, RepeatedBigrams<1>>(c);
      check<S, RepeatedBigrams<4>>(c);
      check<S, RandomEdges<3>>(c);
      check<S, SameToken>(c);
    }
  }
}

TEST_CASE_TEMPLATE("wide heads, strides, dropout, many heads", S, float, bf16) {
  for (const Index width : {Index{96}, Index{128}, Index{256}, Index{512}, Index{600}}) {
    const Case c{.lengths = {100}, .heads = 1, .width = width, .rate = 0.2, .pad = 3, .offset = 1};
    check<S, RepeatedBigrams<0>>(c);
    check<S, RepeatedBigrams<4>>(c);
    check<S, RandomEdges<3>>(c);
    check<S, SameToken>(c);
  }
  check<S, RepeatedBigrams<4>>({.lengths = {64, 64, 64}, .heads = 16, .width = 128, .packed = false});
  check<S, RepeatedBigrams<4>>({.lengths = {64, 64, 64}, .heads = 16, .width = 64, .packed = false, .rate = 0.1});
}

TEST_CASE_TEMPLATE("long sequences are linked by a sort", S, float, bf16) {
  check<S, RepeatedBigrams<4>>({.lengths = {2000, 1, 1500}, .heads = 1, .width = 128, .symbols = 100});
  check<S, RepeatedBigrams<0>>({.lengths = {2000, 2000}, .heads = 1, .width = 8, .packed = false, .symbols = 300});
  check<S, RepeatedBigrams<4>>({.lengths = {1025}, .heads = 2, .width = 64, .packed = false, .rate = 0.1, .symbols = 1});
  check<S, RandomEdges<3>>({.lengths = {1500}, .heads = 1, .width = 16});
}

TEST_CASE_TEMPLATE("walked patterns at small shapes", S, float, bf16) {
  for (const Index width : {1, 20, 64, 128}) {
    const Case c{.lengths = {17, 1, 33}, .heads = 2, .width = width, .rate = 0.1};
    check<S, RepeatedBigrams<0>>(c);
    check<S, RepeatedBigrams<4>>(c);
    check<S, RandomEdges<3>>(c);
    check<S, SameToken>(c);
  }
  check<S, RepeatedBigrams<4>>({.lengths = {1025, 2}, .heads = 1, .width = 8, .symbols = 100});
}

TEST_CASE("worst relative error") { MESSAGE("worst relative error of this program: ", worst_seen); }

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/lags.cuh"

#include "coyote/mixers/input_conv.hpp"
#include "support/cuda.cuh"

namespace lags_test {

using namespace coyote;

/// The token before the latest change, as a lag: a source that nothing but its own `append` knows.
struct SinceChange {
  static constexpr Index count = 2;
  static constexpr bool is_causal = true, uses_tokens = true;
  static constexpr Index max_pairs(Index length) { return 2 * length; }
  static constexpr Cost cost(Dimensions) { return {}; }
  COYOTE_HOST_DEVICE static constexpr Index index_size(Index) { return 1; }
  COYOTE_HOST_DEVICE static constexpr void append(Entries<std::int32_t> index, Entries<const Token> tokens, Index i,
                                                  Entries<std::int32_t> lags) {
    if (i > 0 && tokens[i] != tokens[i - 1]) index[0] = static_cast<std::int32_t>(i - 1);
    lags[0] = index[0] < 0 ? -1 : static_cast<std::int32_t>(i - index[0]);
    lags[1] = index[0] <= 0 ? -1 : static_cast<std::int32_t>(i - index[0] + 1);
  }
};

}  // namespace lags_test

namespace {

using namespace coyote;
using namespace coyote::test;
using lags_test::SinceChange;
namespace cuda = coyote::cuda;  // not the toolkit's

static_assert(!LinkedLags<SinceChange> && LinkedLags<TokenLags<2>> && AutocorrelationLags<Autocorrelation<2>>);

template <class S, class L>
std::vector<std::int32_t> lags_on_device(const Batch& batch, const Matrix<float>& q, const Matrix<float>& k) {
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  const DeviceMatrix<S> queries(q), keys(k);
  cuda::DeviceArray<std::int32_t> lags(batch.rows() * L::count);
  const auto frame = context.frame();
  const Resident<Cuda> here(context, batch);
  find_all_lags<S, L>(context, here, queries.view(), keys.view(), {lags.data(), batch.rows(), L::count});
  std::vector<std::int32_t> result(static_cast<std::size_t>(lags.size()));
  lags.download(result.data());
  return result;
}

/// The definition's lags, also with a wrong entry, on sequences of these lengths with so many tokens.
template <class S, class L>
void agrees(const std::vector<Index>& lengths, Token vocabulary, Index width = 1) {
  const Packed packed(lengths, vocabulary);
  const Batch batch = packed.view();
  // Small integers: sums of products are exact in every order.
  Matrix<float> q(batch.rows(), width), k(batch.rows(), width);
  const Stream draws(Seed{9}, Purpose::test, 1);
  for (Index i = 0; i < q.size(); ++i) {
    q.data()[i] = static_cast<float>(draws.below(static_cast<std::uint64_t>(2 * i), 7)) - 3;
    k.data()[i] = static_cast<float>(draws.below(static_cast<std::uint64_t>(2 * i + 1), 7)) - 3;
  }
  Context<Reference> host;
  Matrix<std::int32_t> expected(batch.rows(), L::count);
  find_all_lags<float, L>(host, batch, q, k, expected);
  const auto lags = lags_on_device<S, L>(batch, q, k);
  Index wrong = 0;
  for (Index n = 0; n < expected.size(); ++n) wrong += lags[static_cast<std::size_t>(n)] != expected.data()[n] ? 1 : 0;
  CAPTURE(batch.rows());
  CAPTURE(vocabulary);
  CHECK(wrong == 0);
  CHECK(lags == lags_on_device<S, L>(batch, q, k));
}

TEST_CASE("token lags on Cuda, smallest") {
  agrees<float, TokenLags<3>>({1}, 3);
  agrees<float, TokenLags<1>>({5, 1, 33, 2}, 3);
  agrees<float, SinceChange>({5, 1, 33, 2}, 3);
}

TEST_CASE("token lags on Cuda follow the definition") {
  for (const Token vocabulary : {1, 2, 3, 40, 1000}) {
    agrees<float, TokenLags<1>>({65, 1, 256, 257, 7}, vocabulary);
    agrees<float, TokenLags<4>>({1, 2, 3, 300, 1000, 31}, vocabulary);
    agrees<float, TokenLags<4>>({64, 64, 64}, vocabulary);
    agrees<float, TokenLags<17>>({1024, 513}, vocabulary);
    agrees<float, TokenLags<100>>({700, 40, 1}, vocabulary);
    agrees<float, TokenLags<4>>({5000, 3, 1025}, vocabulary);  // links by sorting
    agrees<float, SinceChange>({5, 1, 130, 2}, vocabulary);
  }
}

TEST_CASE("autocorrelation's lags on Cuda, smallest") {
  agrees<float, Autocorrelation<3>>({1}, 3);
  agrees<bf16, Autocorrelation<3>>({7, 2, 65, 1}, 3, 3);
}

TEST_CASE("autocorrelation's lags on Cuda follow the definition, the smaller of equal ones first") {
  for (const Index width : {1, 3, 16, 40}) {
    agrees<float, Autocorrelation<1>>({63, 64, 65, 127, 128, 129, 2}, 3, width);
    agrees<bf16, Autocorrelation<5>>({1, 2, 3, 4, 700, 257}, 3, width);
    agrees<float, Autocorrelation<40>>({1000, 30}, 3, width);
  }
  // Of equal ones the smallest; a larger one before them; NaN is not passed over.
  const Packed packed({300});
  const auto last_row = [&](const Matrix<float>& q, const Matrix<float>& k) {
    const auto lags = lags_on_device<float, Autocorrelation<3>>(packed.view(), q, k);
    return std::vector<std::int32_t>(lags.end() - 3, lags.end());
  };
  Matrix<float> q(300, 4), k(300, 4);
  CHECK(last_row(q, k) == std::vector<std::int32_t>{1, 2, 3});
  q(299, 0) = k(289, 0) = 1;
  CHECK(last_row(q, k) == std::vector<std::int32_t>{10, 1, 2});
  q(200, 1) = NAN;
  CHECK(last_row(q, k) == std::vector<std::int32_t>{1, 2, 3});
}

}  // namespace

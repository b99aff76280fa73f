// SPDX-License-Identifier: Apache-2.0
#include "coyote/cuda.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

using Net = Chain<Block<Coyote<ShortConv<3>>>, Block<Attention<Heads<2>, RepeatedBigrams<2>>>>;

TEST_CASE("decoding, captured as a graph, gives the logits of a forward pass at every position") {
  const Index n = 20, sequences = 3, vocabulary = 7;
  Context<Cuda> context;
  const LanguageModel<Net, Cuda, float, Learned> model({.vocabulary = vocabulary, .width = 16, .length = n}, Seed{3});
  const Packed even(std::vector<Index>(sequences, n), vocabulary);
  const Batch batch{.sequences = sequences, .length = n, .tokens = even.tokens};
  DeviceMatrix<float> all(sequences * n, vocabulary);
  model.logits(context, batch, all);
  const Matrix<float> expected = all.read();
  Context<Cuda> own;
  Decoder decoder(model, own, {.sequences = sequences, .capacity = n});
  double worst = 0;
  for (Index i = 0; i < n; ++i) {
    std::vector<Token> tokens;
    for (Index s = 0; s < sequences; ++s) tokens.push_back(even.tokens[static_cast<std::size_t>(s * n + i)]);
    const Rows<const float> logits = decoder.step(tokens);
    own.synchronise();
    Matrix<float> found(sequences, vocabulary), wanted(sequences, vocabulary);
    COYOTE_CUDA_CHECK(
        cudaMemcpy(found.data(), logits.data, static_cast<std::size_t>(found.size()) * sizeof(float), cudaMemcpyDeviceToHost));
    for (Index s = 0; s < sequences; ++s) {
      for (Index v = 0; v < vocabulary; ++v) wanted(s, v) = expected(s * n + i, v);
    }
    worst = std::max(worst, relative_error(found, wanted));
    CHECK(relative_error(found, wanted) <= 1e-5);
    CHECK_FALSE(relative_error(Matrix<float>(sequences, vocabulary), wanted) <= 1e-5);
  }
  MESSAGE("worst relative error: " << worst);
  const std::vector<Token> one(sequences, 1);
  CHECK_THROWS_AS(decoder.step(one), Error);  // full
  CHECK_THROWS_AS(decoder.step(std::vector<Token>{1}), Error);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include "coyote/cuda.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

/// Every kind of step that takes in the norm before it, and some that do not.
using Net = Chain<Block<Coyote<ShortConv<3>>, RmsNorm>, Block<Rwkv>, Block<Attention<Heads<1>, RepeatedBigrams<2>>>,
                  Block<Attention<Heads<2>, RepeatedBigrams<2>>>, Block<Coyote<ShortConv<2, PositionBias>>>,
                  Block<Mlp<2>, RmsNorm>, Block<LinearWith<PositionBias>>, Block<Gate<Chain<Linear, ShortConv<3>>, Linear>>,
                  Block<Chain<Sum<Linear, Linear>, Linear>, RmsNorm>>;

Matrix<float> read(Rows<const float> from) {
  Matrix<float> host(from.rows, from.width);
  COYOTE_CUDA_CHECK(cudaMemcpy(host.data(), from.data, static_cast<std::size_t>(host.size()) * sizeof(float), cudaMemcpyDefault));
  return host;
}

/// A captured decoding step, whose kernels read what is settled before their input is there, gives the same bits as one of the
/// model's own; and both what a forward pass gives, but for roundings.
void decodes(Index width, Index sequences) {
  CAPTURE(width);
  CAPTURE(sequences);
  const Index n = 9, vocabulary = 7;
  Context<Cuda> context, own;
  context.poison(true);
  own.poison(true);
  const LanguageModel<Net, Cuda, bf16> model({.vocabulary = vocabulary, .width = width, .length = n}, Seed{3});
  const Packed even(std::vector<Index>(static_cast<std::size_t>(sequences), n), vocabulary);
  DeviceMatrix<float> all(sequences * n, vocabulary), stepped(sequences, vocabulary);
  model.logits(context, {.sequences = sequences, .length = n, .tokens = even.tokens}, all);
  const Matrix<float> expected = all.read();
  auto state = model.make_state({.sequences = sequences, .capacity = n});
  Decoder decoder(model, own, {.sequences = sequences, .capacity = n});
  Matrix<float> before(sequences, vocabulary);
  double worst = 0;
  for (Index i = 0; i < n; ++i) {
    std::vector<Token> tokens;
    Matrix<float> wanted(sequences, vocabulary);
    for (Index s = 0; s < sequences; ++s) {
      tokens.push_back(even.tokens[static_cast<std::size_t>(s * n + i)]);
      for (Index v = 0; v < vocabulary; ++v) wanted(s, v) = expected(s * n + i, v);
    }
    model.step(context, state, tokens, stepped);
    const Rows<const float> logits = decoder.step(tokens);
    own.synchronise();
    const Matrix<float> found = read(logits), plain = stepped.read();
    CHECK(relative_error(found, plain) == 0);
    const double error = relative_error(found, wanted);
    worst = std::max(worst, error);
    CHECK(error <= 4e-2);
    CHECK_FALSE(relative_error(Matrix<float>(sequences, vocabulary), wanted) <= 4e-2);
    CHECK_FALSE(relative_error(before, wanted) <= 4e-2);  // the row before would be refused
    before = found;
  }
  MESSAGE("width " << width << ", " << sequences << " sequences: worst relative error " << worst);
}

TEST_CASE("bf16 steps give a forward pass's logits") {
  for (const Index sequences : {1, 8, 20, 64, 70}) decodes(64, sequences);
  for (const Index sequences : {1, 20}) decodes(512, sequences);
  decodes(1048, 3);  // more than the warps of a block take at a time
  decodes(36, 2);    // not whole chunks of 16 bytes
}

TEST_CASE("bf16 steps at small shapes") { decodes(40, 2); }

}  // namespace

// SPDX-License-Identifier: Apache-2.0
// Decoding on a GPU: one token for each of 1 or 64 sequences, two pre-norm blocks of width 512, embedding and head over 256
// symbols included; every step is one launch of a captured graph. Peer: peers/torch_decoding_cuda.py.

#include <chrono>
#include <coyote/cuda.hpp>
#include <cstdio>
#include <vector>

namespace {

using namespace coyote;

constexpr Index width = 512, vocabulary = 256, measured = 2000;

/// Microseconds a token, in the mean over `measured` steps that nobody waits for, from `position` on.
template <class M>
void decode(const char* name, Index sequences, Index position) {
  using Two = Chain<Block<M>, Block<M>>;
  const Index capacity = position + measured + 16;
  Context<Cuda> context;
  const LanguageModel<Two, Cuda, bf16> model({.vocabulary = vocabulary, .width = width, .length = capacity}, Seed{1});
  Decoder decoder(model, context, {.sequences = sequences, .capacity = capacity});
  const Stream draws(Seed{2}, Purpose::test);
  std::vector<Token> tokens(static_cast<std::size_t>(sequences));
  const auto step = [&] {
    for (std::size_t s = 0; s < tokens.size(); ++s) {
      tokens[s] = static_cast<Token>(draws.below(static_cast<std::uint64_t>(decoder.position()) * tokens.size() + s, vocabulary));
    }
    decoder.step(tokens);
  };
  while (decoder.position() < position + 8) step();
  context.synchronise();
  const auto begin = std::chrono::steady_clock::now();
  for (Index n = 0; n < measured; ++n) step();
  context.synchronise();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("decoding %s sequences=%td,position=%td %.2f us\n", name, sequences, position, seconds / measured * 1e6);
  std::fflush(stdout);
}

}  // namespace

int main() {
  for (const Index sequences : {1, 64}) {
    for (const Index position : {0, 65536}) {
      decode<Coyote<ShortConv<3>>>("coyote", sequences, sequences == 1 ? position : position / 16);
      decode<Rwkv>("rwkv", sequences, sequences == 1 ? position : position / 16);
      decode<Attention<Heads<1>, RepeatedBigrams<4>>>("bigrams", sequences, sequences == 1 ? position : position / 16);
    }
  }
}

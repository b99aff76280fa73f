// SPDX-License-Identifier: Apache-2.0
#include <coyote/coyote.hpp>

#include "train.hpp"

// The public experiment's models with their quirks: every block ends with r <- r + LN(r) (a state mixer that is the identity
// keeps its norm and its residual), and a Coyote mixer adds its own normed input.
namespace solve_mqar {
namespace {

using namespace coyote;

template <class M>
using PaperBlock = Chain<Block<M>, Residual<LayerNorm>>;

using PaperAttention = Chain<PaperBlock<Attention<>>, PaperBlock<Attention<>>>;
using PaperShort = Residual<Coyote<ShortConv<3>>>;
using PaperLong = Residual<Coyote<Sum<LongConv<ImplicitFilter, Causal, NoBias>, Identity>>>;
using PaperCoyote = Chain<PaperBlock<PaperShort>, PaperBlock<PaperLong>>;
using PaperHyena = Chain<PaperBlock<HyenaPublic<2>>, PaperBlock<HyenaPublic<2>>>;
using PaperH3 = Chain<PaperBlock<H3Public>, PaperBlock<H3Public>>;
using PaperRwkv = Chain<PaperBlock<Rwkv>, PaperBlock<Rwkv>>;

}  // namespace

bool train_paper(const std::string& name, const Settings& s, std::uint64_t steps, const Monitor& monitor, Outcome& out) {
  const Init rescaled = Init::normal(0.01);  // 0.02 / sqrt(2 * layers), for parameters called out_proj in the reference
  if (name == "attention") {
    PaperAttention::Options options;
    Attention<>::Options each{.dropout = s.attention_dropout, .out = rescaled};
    std::get<0>(std::get<0>(options.parts).parts).mixer = each;
    std::get<0>(std::get<1>(options.parts).parts).mixer = each;
    train<PaperAttention, Learned>(name, "two attention blocks, learned positions", s, steps, monitor, out, options);
  } else if (name == "coyote") {
    train<PaperCoyote>(name, "BaseConv with 3 taps, BaseConv with an implicit filter", s, steps, monitor, out);
  } else if (name == "hyena") {
    PaperHyena::Options options;
    std::get<1>(std::get<0>(std::get<0>(options.parts).parts).mixer.parts).weight = rescaled;
    std::get<1>(std::get<0>(std::get<1>(options.parts).parts).mixer.parts).weight = rescaled;
    train<PaperHyena>(name, "two Hyena blocks of order 2, as coded", s, steps, monitor, out, options);
  } else if (name == "h3") {
    train<PaperH3>(name, "two H3 blocks with heads of 2", s, steps, monitor, out);
  } else if (name == "rwkv") {
    PaperRwkv::Options options;
    std::get<0>(std::get<0>(options.parts).parts).mixer = rwkv_options(0, 12);
    std::get<0>(std::get<1>(options.parts).parts).mixer = rwkv_options(1, 12);
    train<PaperRwkv>(name, "two RWKV-4 time mixes", s, steps, monitor, out, options);
  } else {
    return false;
  }
  return true;
}

}  // namespace solve_mqar

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "train.hpp"

/// The public experiment's models with their quirks: every block ends with r <- r + LN(r) (a state mixer that is the identity
/// keeps its norm and its residual), and a Coyote mixer adds its own normed input.
namespace solve_mqar {

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

/// The mixer's options of block I in two paper blocks.
template <std::size_t I, class Options>
auto& paper_mixer(Options& options) {
  return std::get<0>(std::get<I>(options.parts).parts).mixer;
}

/// Weights of what the reference calls out_proj: 0.02 / sqrt(2 * layers).
inline Init rescaled() { return Init::normal(0.01); }

template <class Backend>
bool train_paper_attention(const Job& job) {
  if (job.name != "attention") return false;
  PaperAttention::Options options;
  paper_mixer<0>(options) = paper_mixer<1>(options) = {.dropout = job.settings.attention_dropout, .out = rescaled()};
  train<Backend, PaperAttention, Learned>(job, "two attention blocks, learned positions", options);
  return true;
}

template <class Backend>
bool train_paper_coyote(const Job& job) {
  if (job.name != "coyote") return false;
  train<Backend, PaperCoyote>(job, "BaseConv with 3 taps, BaseConv with an implicit filter");
  return true;
}

template <class Backend>
bool train_paper_hyena(const Job& job) {
  if (job.name != "hyena") return false;
  PaperHyena::Options options;
  std::get<1>(paper_mixer<0>(options).parts).weight = rescaled();
  std::get<1>(paper_mixer<1>(options).parts).weight = rescaled();
  train<Backend, PaperHyena>(job, "two Hyena blocks of order 2, as coded", options);
  return true;
}

template <class Backend>
bool train_paper_h3(const Job& job) {
  if (job.name != "h3") return false;
  train<Backend, PaperH3>(job, "two H3 blocks with heads of 2");
  return true;
}

template <class Backend>
bool train_paper_rwkv(const Job& job) {
  if (job.name != "rwkv") return false;
  PaperRwkv::Options options;
  paper_mixer<0>(options) = rwkv_options(0, 12);
  paper_mixer<1>(options) = rwkv_options(1, 12);
  train<Backend, PaperRwkv>(job, "two RWKV-4 time mixes", options);
  return true;
}

}  // namespace solve_mqar

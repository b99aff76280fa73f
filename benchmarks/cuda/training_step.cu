// SPDX-License-Identifier: Apache-2.0
// One training step of MQAR models on a GPU, over the lengths and widths of the public experiment: forward, backward and
// update, captured as one graph. benchmarks/peers/torch_mqar.py times the same models in PyTorch.
// Usage: training_step [attention|coyote|hybrid] [width]        (all when none is named)

#include <algorithm>
#include <chrono>
#include <coyote/cuda.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

using namespace coyote;

// The models of the peer: its coyote adds each mixer's own input, like the public experiment's.
using AttentionModel = Chain<Block<Attention<>>, Block<Attention<>>>;
using Short = Block<Residual<Coyote<ShortConv<3>>>>;
using Long = Block<Residual<Coyote<Sum<LongConv<ImplicitFilter, Causal, NoBias>, Identity>>>>;
using CoyoteModel = Chain<Short, Long>;
using HybridModel = Chain<Short, Block<Attention<Heads<1>, RepeatedBigrams<4>>>>;

struct Size {
  Index length, batch, pairs;
};
constexpr Size grid[] = {{64, 512, 4}, {128, 512, 8}, {256, 256, 16}, {512, 128, 64}};

template <class M, class Positions>
void time_steps(const char* name, Index width, const typename M::Options& layers) {
  for (const Size& size : grid) {
    const Mqar task({.vocabulary = 8192, .length = size.length, .pairs = size.pairs, .power = 0.01}, Seed{1});
    Context<Cuda> context;
    LanguageModel<M, Cuda, bf16, Positions> model(
        {.vocabulary = 8192, .width = width, .length = size.length, .dropout = 0.1, .layers = layers}, Seed{1});
    Trainer trainer(model, context, {.adamw = {.rate = 1e-3}, .schedule = {.steps = 1000}});
    LabelledBatch data;
    fill(task, Split::training, 0, size.batch, data);
    for (int warm = 0; warm < 8; ++warm) trainer.step(data.view());
    // The whole step as a user sees it, the batch's copy to the device and the report's way back included.
    double steps[30];
    for (double& ms : steps) {
      const auto begin = std::chrono::steady_clock::now();
      trainer.step(data.view());
      ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    }
    std::sort(std::begin(steps), std::end(steps));
    // What the context used for activations and scratch, and parameters, their gradients and two moments.
    const double memory =
        static_cast<double>(context.peak_memory()) + 16.0 * static_cast<double>(model.parameters().values().size());
    std::printf("training_step %s L=%td,B=%td,D=%td %.4f ms; device memory %.0f MB\n", name, size.length, size.batch, width,
                steps[15], memory / 1e6);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string which = argc > 1 ? argv[1] : "";
  const Index only = argc > 2 ? std::atoi(argv[2]) : 0;
  for (const Index width : {64, 128, 256, 512}) {
    if (only != 0 && width != only) continue;
    if (which.empty() || which == "attention") {
      Attention<>::Options each;
      each.dropout = 0.1;
      AttentionModel::Options options;
      std::get<0>(options.parts).mixer = std::get<1>(options.parts).mixer = each;
      time_steps<AttentionModel, Learned>("attention", width, options);
    }
    if (which.empty() || which == "coyote") time_steps<CoyoteModel, NoPositions>("coyote", width, {});
    if (which.empty() || which == "hybrid") time_steps<HybridModel, NoPositions>("hybrid", width, {});
  }
}

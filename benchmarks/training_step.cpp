// SPDX-License-Identifier: Apache-2.0
// One training step of an MQAR model (batch 512 of 64 tokens, 4 pairs, width 64, vocabulary 8192, dropout 0.1): forward,
// backward, AdamW. The models are those of the public experiment that peers/torch_training_step.py trains.
// With an argument --memory=NAME it trains three steps and prints the process's peak memory above its level before the model.

#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstring>

#include "coyote/coyote.hpp"

namespace {

using namespace coyote;

using TwoAttentions = Chain<Block<Attention<>>, Block<Attention<>>>;
using Short = Residual<Coyote<ShortConv<3>>>;
using Long = Residual<Coyote<Sum<LongConv<ImplicitFilter, Causal, NoBias>, Identity>>>;
using TwoCoyotes = Chain<Block<Short>, Block<Long>>;

template <class M, class Positions>
struct Run {
  using Lm = LanguageModel<M, Cpu, float, Positions>;

  Context<Cpu> context{2};
  Mqar task;
  LabelledBatch data;
  Lm model;
  Trainer<Lm> trainer;

  explicit Run(const typename M::Options& layers)
      : model({.vocabulary = 8192, .width = 64, .length = 64, .dropout = 0.1, .layers = layers}, Seed{1}),
        trainer(model, context, {.adamw = {.rate = 1e-3}}) {
    fill(task, Split::training, 0, 512, data);
  }
  void step() { benchmark::DoNotOptimize(trainer.step(data.view()).loss); }
};

TwoAttentions::Options with_dropout() {
  const BlockOptions<Norm<NormKind::layer>::Options, Attention<>::Options> block{{}, {.dropout = 0.1}};
  return {{block, block}};
}
using AttentionRun = Run<TwoAttentions, Learned>;
using CoyoteRun = Run<TwoCoyotes, NoPositions>;

template <class R>
void measure(benchmark::State& state, R& run) {
  for (int i = 0; i < 3; ++i) run.step();
  for (auto _ : state) run.step();
  state.counters["activations_MB"] = static_cast<double>(run.context.peak_memory()) / 1e6;
}
void attention_step(benchmark::State& state) {
  AttentionRun run(with_dropout());
  measure(state, run);
}
void coyote_step(benchmark::State& state) {
  CoyoteRun run({});
  measure(state, run);
}
BENCHMARK(attention_step)->Name("training_step/attention")->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(coyote_step)->Name("training_step/coyote")->Unit(benchmark::kMillisecond)->UseRealTime();

long peak_kilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strncmp(argv[1], "--memory=", 9) == 0) {
    const long before = peak_kilobytes();
    if (std::strcmp(argv[1] + 9, "attention") == 0) {
      AttentionRun run(with_dropout());
      for (int i = 0; i < 3; ++i) run.step();
    } else {
      CoyoteRun run({});
      for (int i = 0; i < 3; ++i) run.step();
    }
    std::printf("{\"work\": \"training_memory/%s\", \"megabytes\": %.1f}\n", argv[1] + 9,
                static_cast<double>(peak_kilobytes() - before) / 1e3);
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <coyote/cuda.hpp>
#include <cstdio>
#include <cstdlib>

/// One training step of MQAR models on a GPU, over the lengths and widths of the public experiment: forward, backward and
/// update, captured as one graph. benchmarks/peers/torch_mqar.py times the same models in PyTorch. Each model is a program of its
/// own: training_step_MODEL [WIDTH] (all widths when none is named).
namespace coyote_benchmark {

using namespace coyote;

struct Size {
  Index length, batch, pairs;
};
inline constexpr Size grid[] = {{64, 512, 4}, {128, 512, 8}, {256, 256, 16}, {512, 128, 64}};

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
    const auto median = [](auto&& step) {
      double times[30];
      for (double& ms : times) {
        const auto begin = std::chrono::steady_clock::now();
        step();
        ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
      }
      std::sort(std::begin(times), std::end(times));
      return times[15];
    };
    // A round of a training loop, the batch's check, its copy to the device and the report's way back included: as in `fit`, the
    // host prepares the next batch while the device is at work.
    trainer.prepare(data.view());
    const double round = median([&] {
      trainer.begin();
      trainer.prepare(data.view());
      trainer.finish();
    });
    const double alone = median([&] { trainer.step(data.view()); });
    // What the context used for activations and scratch, and parameters, their gradients and two moments.
    const double memory =
        static_cast<double>(context.peak_memory()) + 16.0 * static_cast<double>(model.parameters().values().size());
    std::printf("training_step %s L=%td,B=%td,D=%td %.4f ms; device memory %.0f MB; prepared by itself %.4f ms\n", name,
                size.length, size.batch, width, round, memory / 1e6, alone);
    std::fflush(stdout);
  }
}

/// Calls time_all(width) for the width that the command line names, or for all.
template <class F>
int for_widths(int argc, char** argv, F&& time_all) {
  const Index only = argc > 1 ? std::atoi(argv[1]) : 0;
  for (const Index width : {64, 128, 256, 512}) {
    if (only == 0 || width == only) time_all(width);
  }
  return 0;
}

}  // namespace coyote_benchmark

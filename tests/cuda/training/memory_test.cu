// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <doctest/doctest.h>
#include "coyote/cuda.hpp"
#include "support/toy_task.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;
namespace cuda = coyote::cuda;  // not the toolkit's

using Net = LanguageModel<Block<Coyote<ShortConv<3>>>, Cuda, float>;

std::vector<float> values(Net& model) {
  std::vector<float> all(static_cast<std::size_t>(model.parameters().values().size()));
  model.parameters().values().download(all.data());
  return all;
}

/// All of the card's memory but about `left` bytes.
std::vector<cuda::DeviceArray<std::byte>> take_all_but(std::size_t left) {
  std::vector<cuda::DeviceArray<std::byte>> taken;
  for (std::size_t piece = std::size_t{1} << 37; piece >= std::size_t{1} << 21; piece /= 2) {
    for (;;) {
      std::size_t free = 0, total = 0;
      COYOTE_CUDA_CHECK(cudaMemGetInfo(&free, &total));
      if (free < left + piece) break;
      try {
        taken.emplace_back(static_cast<Index>(piece));
      } catch (const Error&) {
        break;  // in smaller pieces, then
      }
    }
  }
  return taken;
}

TEST_CASE("a training step that runs out of memory changes no parameter, and training goes on as if it had not been") {
  const PreviousToken task;
  const TrainerOptions options{.schedule = {.steps = 12}};
  std::vector<float> results[2];
  for (const bool fails : {false, true}) {
    Context<Cuda> context;
    context.seed = Seed{4};
    Net model({.vocabulary = 19, .width = 64, .length = 8, .dropout = 0.1}, Seed{2});
    Trainer trainer(model, context, options);
    LabelledBatch data, large;
    fill(task, Split::training, 0, 8192, large);
    for (std::uint64_t step = 0; step < 8; ++step) {
      if (fails && (step == 1 || step == 5)) {  // before a graph is captured, and after
        const std::vector<float> before = values(model);
        context.synchronise();
        const auto taken = take_all_but(std::size_t{16} << 20);
        CHECK_THROWS_AS(trainer.step(large.view()), Error);
        CHECK(values(model) == before);
      }
      fill(task, Split::training, 8 * step, 8, data);
      CHECK(std::isfinite(static_cast<double>(trainer.step(data.view()).loss)));
    }
    results[fails ? 1 : 0] = values(model);
  }
  CHECK(results[0] == results[1]);
}

}  // namespace

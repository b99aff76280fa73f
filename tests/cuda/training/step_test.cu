// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <filesystem>

#include "cuda/training/toy_models.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("captured steps make the same updates as those that are not, bit for bit") {
  const PreviousToken task;
  const TrainerOptions options{.schedule = {.steps = 12}, .clip = 0.5};
  std::vector<float> results[2];
  std::vector<double> accuracies[2];
  for (const bool captures : {false, true}) {
    Context<Cuda> context;
    context.seed = Seed{4};
    auto model = make<OnGpu<float>>();
    Trainer trainer(model, context, options);
    trainer.runner().captures(captures);
    LabelledBatch data;
    double last = 0;
    for (std::uint64_t step = 0; step < 12; ++step) {
      // Graphs of small batches are replayed after a larger one.
      fill(task, Split::training, 16 * step, step == 7 ? 16 : step % 5 == 4 ? 5 : 8, data);
      const StepReport report = trainer.step(data.view());
      last = report.loss;
      accuracies[captures ? 1 : 0].push_back(report.accuracy);
    }
    CHECK(std::isfinite(last));
    CHECK((trainer.runner().graphs() > 0) == captures);
    results[captures ? 1 : 0] = in_order(model);
  }
  CHECK(results[0] == results[1]);
  CHECK(accuracies[0] == accuracies[1]);
  CHECK(results[0] != in_order(*std::make_unique<OnGpu<float>>(make<OnGpu<float>>())));
}

TEST_CASE("steps whose batches are prepared ahead make the same updates, bit for bit") {
  const PreviousToken task;
  std::vector<float> results[2];
  std::vector<double> losses[2];
  for (const bool ahead : {false, true}) {
    Context<Cuda> context;
    auto model = make<OnGpu<float>>();
    Trainer trainer(model, context, {.schedule = {.steps = 40}});
    LabelledBatch data[2], other;
    fill(task, Split::validation, 0, 3, other);
    const auto prepare = [&](std::uint64_t step) {
      LabelledBatch& batch = data[step % 2];
      fill(task, Split::training, 16 * step, step == 7 ? 16 : step % 5 == 4 ? 5 : 8, batch);
      trainer.prepare(batch.view());
    };
    if (ahead) prepare(0);
    for (std::uint64_t step = 0; step < 12; ++step) {
      if (!ahead) prepare(step);
      trainer.begin();
      if (ahead) prepare(step + 1);
      losses[ahead ? 1 : 0].push_back(trainer.finish().loss);
      if (step % 3 == 0)
        losses[ahead ? 1 : 0].push_back(model.loss(context, other.view()));  // it uses the same memory to send from
    }
    // A batch prepared for the step that came next, which then became another one.
    if (!ahead) trainer.set_steps(30);
    prepare(12);
    if (ahead) trainer.set_steps(30);
    trainer.begin();
    losses[ahead ? 1 : 0].push_back(trainer.finish().loss);
    CHECK(trainer.runner().graphs() > 0);
    results[ahead ? 1 : 0] = in_order(model);
  }
  CHECK(losses[0] == losses[1]);
  CHECK(results[0] == results[1]);
}

TEST_CASE("training follows the host's, number by number") {
  const PreviousToken task;
  Context<Cuda> context;
  Context<Reference> host;
  auto model = make<OnGpu<float>>();
  auto plain = make<Plain>();
  const TrainerOptions options{
      .adamw = {.rate = 1e-2, .decay_everything = false}, .schedule = {.steps = 9, .warmup = 2}, .clip = 0.7};
  Trainer trainer(model, context, options);
  Trainer reference(plain, host, options);
  LabelledBatch data;
  for (std::uint64_t step = 0; step < 6; ++step) {
    fill(task, Split::training, 8 * step, 8, data);
    const StepReport a = trainer.step(data.view()), b = reference.step(data.view());
    CHECK(std::abs(a.loss - b.loss) <= 1e-4 * b.loss);
    CHECK(std::abs(a.gradient_norm - b.gradient_norm) <= 1e-3 * b.gradient_norm);
    CHECK(a.accuracy == doctest::Approx(b.accuracy));
  }
  CHECK(relative_error(in_order(model), in_order(plain)) <= 1e-3);
}

TEST_CASE("a run that goes on from a checkpoint makes the same updates, bit for bit") {
  const std::string path = (std::filesystem::temp_directory_path() / "coyote_cuda_step_test.safetensors").string();
  const PreviousToken task;
  Context<Cuda> context, own;
  auto model = make<OnGpu<float>>(), other = make<OnGpu<float>>();
  Trainer trainer(model, context, {.schedule = {.steps = 12}}), resumed(other, own, {.schedule = {.steps = 12}});
  LabelledBatch data;
  for (std::uint64_t step = 0; step < 8; ++step) {
    if (step == 4) {
      save_checkpoint(trainer, path);
      CHECK(in_order(other) != in_order(model));
      load_checkpoint(resumed, path);
    }
    fill(task, Split::training, 8 * step, 8, data);
    trainer.step(data.view());
    if (step >= 4) resumed.step(data.view());
  }
  CHECK(in_order(other) == in_order(model));
  std::filesystem::remove(path);
}

TEST_CASE("a loss that is not finite stops training before anything moves") {
  const PreviousToken task;
  Context<Cuda> context;
  auto model = make<OnGpu<float>>();
  Trainer trainer(model, context, {.schedule = {.steps = 9}});
  LabelledBatch data;
  fill(task, Split::training, 0, 8, data);
  for (int n = 0; n < 4; ++n) trainer.step(data.view());
  auto spoil = [](const Path& path, Parameter<float>& p) {
    if (path.view() == "layers.0.mixer.out.weight") p.value(0, 0) = INFINITY;
  };
  model.visit(spoil);
  const std::vector<float> before = in_order(model);
  CHECK_THROWS_WITH_AS(trainer.step(data.view()), doctest::Contains("weights of layers.0.mixer.out.weight"), Error);
  CHECK(trainer.steps() == 4);
  const std::vector<float> after = in_order(model);
  CHECK(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)) == 0);
}

}  // namespace

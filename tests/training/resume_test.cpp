// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>
#include <fstream>

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/block.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "coyote/training/checkpoint.hpp"
#include "coyote/training/fit.hpp"
#include "support/toy_task.hpp"

namespace {

using namespace coyote;
using test::PreviousToken;

using Net = Chain<Block<Coyote<LongConv<>>>, Block<Attention<Heads<2>>>>;
using Model = LanguageModel<Net, Cpu, float, Learned>;

/// A model with dropout, its context and its trainer, built alike every time.
struct Run {
  Model model;
  Context<Cpu> context;
  Trainer<Model> trainer;

  explicit Run(Index threads = 1, std::uint64_t seed = 5, Index width = 12)
      : model({.vocabulary = 9, .width = width, .length = 70, .dropout = 0.2, .layers = {{{}, {.mixer = {.dropout = 0.1}}}}},
              Seed{1}),
        context(seeded(threads, seed)),
        trainer(model, context, {.adamw = {.rate = 1e-2}, .schedule = {.steps = 6}, .clip = 1}) {}
  static Context<Cpu> seeded(Index threads, std::uint64_t seed) {
    Context<Cpu> context(threads);
    context.seed = {seed};
    return context;
  }
  void train(std::uint64_t until) {
    const PreviousToken task{.symbols = 9, .rows = 70};
    LabelledBatch data;
    while (trainer.steps() < until) {
      fill(task, Split::training, 24 * trainer.steps(), 24, data);
      trainer.step(data.view());
    }
  }
  bool operator==(const Run& other) const {
    const auto &a = model.parameters().values(), &b = other.model.parameters().values();
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)) == 0;
  }
};

/// A file that goes when the test does.
struct File {
  std::string path;
  explicit File(const char* name) : path(std::string("coyote_resume_test_") + name) { std::remove(path.c_str()); }
  ~File() { std::remove(path.c_str()); }
};

TEST_CASE("any number of threads trains to the same bits") {
  Run one(1), two(2), three(3), other_seed(1, 6);
  for (Run* run : {&one, &two, &three, &other_seed}) run->train(3);
  CHECK(one == two);
  CHECK(one == three);
  CHECK_FALSE(one == other_seed);  // dropout is on
}

TEST_CASE("a run that goes on from a checkpoint is the one that never stopped, bit for bit") {
  const File file("state.safetensors");
  Run whole;
  whole.train(6);
  {
    Run first(2);
    first.train(3);
    save_checkpoint(first.trainer, file.path, {{"note", "half way"}});
    CHECK_FALSE(first == whole);
  }
  Run second;
  const Metadata metadata = load_checkpoint(second.trainer, file.path);
  CHECK(std::find(metadata.begin(), metadata.end(), std::pair<std::string, std::string>("note", "half way")) != metadata.end());
  CHECK(second.trainer.steps() == 3);
  // What was read can be written again, and says the same.
  const File again("again.safetensors");
  save_checkpoint(second.trainer, again.path, metadata);
  second.train(6);
  CHECK(second == whole);
  Run third;
  CHECK(load_checkpoint(third.trainer, again.path).size() == metadata.size());
  third.train(6);
  CHECK(third == whole);
}

TEST_CASE("parameters alone: saved by name, loaded into another model") {
  const File file("parameters.safetensors");
  Run trained;
  trained.train(1);
  save_parameters(trained.model, file.path);
  const Safetensors read = Safetensors::read(file.path);
  REQUIRE(read.find("layers.1.mixer.query.weight") != nullptr);  // not as it is packed in memory
  CHECK(read.find("layers.1.mixer.query.weight")->shape == std::vector<Index>{12, 12});
  CHECK(read.find("layers.0.mixer.right.filter.taps") != nullptr);
  Run fresh;
  CHECK_FALSE(fresh == trained);
  load_parameters(fresh.model, file.path);
  CHECK(fresh == trained);
}

TEST_CASE("a file that does not fit leaves everything as it was") {
  const File parameters("less.safetensors"), wide("wide.safetensors"), broken("broken.safetensors");
  Run run, untouched, larger(1, 5, 16);
  save_parameters(run.model, parameters.path);
  save_checkpoint(larger.trainer, wide.path);
  CHECK_THROWS_AS(load_checkpoint(run.trainer, parameters.path), Error);  // no steps, no moments
  CHECK_THROWS_AS(load_checkpoint(run.trainer, wide.path), Error);        // other shapes
  CHECK_THROWS_AS(load_parameters(run.model, wide.path), Error);
  CHECK_THROWS_AS(load_checkpoint(run.trainer, "no_such_file.safetensors"), Error);
  CHECK_THROWS_AS(save_checkpoint(run.trainer, "no_such_folder/x.safetensors"), Error);
  std::ofstream(broken.path) << "not a checkpoint";
  CHECK_THROWS_AS(load_checkpoint(run.trainer, broken.path), Error);
  CHECK(run == untouched);
  CHECK(run.trainer.steps() == 0);
  // Steps that are no number are refused before anything is copied.
  const File strange("strange.safetensors");
  {
    Run trained;
    trained.train(1);
    std::vector<TensorToWrite> tensors;
    trained.trainer.visit_state([&](std::string_view kind, const Path& name, auto matrix) {
      tensors.emplace_back(std::string(kind) + std::string(name.view()), matrix);
    });
    write_safetensors(strange.path, tensors, {{"coyote.steps", "3x"}});
  }
  CHECK_THROWS_AS(load_checkpoint(run.trainer, strange.path), Error);
  CHECK(run == untouched);
}

// ---- fit -------------------------------------------------------------------------------------------------------------

using Small = LanguageModel<Block<Coyote<ShortConv<2>>>, Cpu, float>;

struct Fit {
  Small model{{.vocabulary = 5, .width = 16, .length = 8}, Seed{1}};
  Context<Cpu> context{1};
  Trainer<Small> trainer{model, context, {.adamw = {.rate = 5e-3}, .schedule = {.steps = 400}}};
  template <class Progress>
  FitResult run(const FitOptions& options, Progress&& progress, FitResult before = {}) {
    return fit(trainer, PreviousToken(), options, progress, std::move(before));
  }
};
const auto always = [](const StepReport&, std::uint64_t, const FitResult&, bool) { return true; };
constexpr FitOptions task_options{.steps = 400, .batch = 32, .evaluate_every = 20, .validation = 50, .stop_above = 0.99};

TEST_CASE("fit learns, looks at the validation stream and stops above the goal; evaluation counts what it says") {
  Fit a;
  const Evaluation before = evaluate(a.model, a.context, PreviousToken(), Split::test, 70, 32);
  CHECK(before.labels == 70 * 7);
  CHECK(before.accuracy < 0.6);
  std::uint64_t calls = 0, looks = 0;
  FitOptions often = task_options;
  often.evaluate_every = 4;
  const FitResult result = a.run(often, [&](const StepReport& report, std::uint64_t step, const FitResult& r, bool look) {
    CHECK(std::isfinite(report.loss));
    CHECK(step == ++calls);
    looks += look ? 1u : 0u;
    CHECK(r.curve.size() == looks);
    return true;
  });
  CHECK(result.stopped_early);
  CHECK(a.trainer.steps() < 400);
  CHECK(a.trainer.steps() % 4 == 0);
  CHECK(result.curve.size() == a.trainer.steps() / 4);
  CHECK(result.curve.back().accuracy > 0.99);
  CHECK(result.curve.back().loss < result.curve.front().loss);
  const Evaluation after = evaluate(a.model, a.context, PreviousToken(), Split::test, 70, 32);
  CHECK(after.accuracy > 0.97);
  // The size of the batches does not matter, and neither does cutting the stream in two.
  const Evaluation one = evaluate(a.model, a.context, PreviousToken(), Split::test, 70, 7);
  CHECK(std::abs(one.loss - after.loss) <= 1e-5);
  CHECK(one.accuracy == doctest::Approx(after.accuracy));
}

TEST_CASE("a fit that was paused and goes on is the one that was not") {
  FitOptions options = task_options;
  options.steps = 50;
  options.stop_above = 2;
  Fit whole, parts;
  const FitResult expected = whole.run(options, always);
  const FitResult half =
      parts.run(options, [](const StepReport&, std::uint64_t step, const FitResult&, bool) { return step < 20; });
  CHECK(parts.trainer.steps() == 20);
  const FitResult result = parts.run(options, always, half);
  REQUIRE(result.curve.size() == expected.curve.size());  // steps 20, 40 and the last, 50
  REQUIRE(result.curve.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(result.curve[i].step == expected.curve[i].step);
    CHECK(result.curve[i].loss == expected.curve[i].loss);
    CHECK(result.curve[i].training_loss == expected.curve[i].training_loss);
  }
  const auto &a = whole.model.parameters().values(), &b = parts.model.parameters().values();
  CHECK(std::equal(a.begin(), a.end(), b.begin()));
  // One that has reached its goal, or its steps, trains no further.
  parts.run(options, always, result);
  CHECK(parts.trainer.steps() == 50);
}

TEST_CASE("a fixed training set is passed over in order") {
  FitOptions options = task_options;
  options.steps = 5;
  options.batch = 4;
  options.epoch = 10;  // batches of 4, 4 and 2
  Fit passes;
  std::vector<double> losses;
  passes.run(options, [&](const StepReport& r, std::uint64_t, const FitResult&, bool) { return losses.push_back(r.loss), true; });
  Fit by_hand;
  LabelledBatch data;
  for (std::size_t step = 0; step < 5; ++step) {
    const std::uint64_t first[] = {0, 4, 8, 0, 4};
    fill(PreviousToken(), Split::training, first[step], first[step] == 8 ? 2 : 4, data);
    CHECK(by_hand.trainer.step(data.view()).loss == losses[step]);
  }
}

TEST_CASE("impossible fits are refused before a step is made") {
  const auto refuses = [](auto change, const char* message) {
    Fit f;
    FitOptions options = task_options;
    change(options);
    CHECK_THROWS_WITH_AS(f.run(options, always), message, Error);
    CHECK(f.trainer.steps() == 0);
  };
  refuses([](FitOptions& o) { o.batch = 0; }, "fit: required at least one sequence per step, came 0");
  refuses([](FitOptions& o) { o.evaluate_every = 0; }, "fit: required at least one step between evaluations, came 0");
  refuses([](FitOptions& o) { o.validation = 0; }, "fit: required at least one sequence per evaluation, came 0");
  Fit f;
  CHECK_THROWS_WITH_AS(fit(f.trainer, PreviousToken{.symbols = 6}, task_options, always),
                       "fit: required a model with the task's vocabulary of 6, came 5", Error);
  CHECK_THROWS_WITH_AS(fit(f.trainer, PreviousToken{.rows = 9}, task_options, always),
                       "fit: required a model for the task's length of 9, came 8", Error);
  CHECK_THROWS_AS(evaluate(f.model, f.context, PreviousToken(), Split::test, 0, 4), Error);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <limits>

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/block.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "coyote/training/trainer.hpp"
#include "support/toy_task.hpp"

namespace {

using namespace coyote;
using test::PreviousToken;

using Model = LanguageModel<Block<Coyote<ShortConv<2>>>, Cpu, double, Learned>;

Model make() { return Model({.vocabulary = 5, .width = 6, .length = 8, .dropout = 0.1}, Seed{2}); }

std::vector<double> values(Model& model) { return {model.parameters().values().begin(), model.parameters().values().end()}; }

/// Trains and follows every number with a plain loop; gradients come from a second model of the same weights.
void follows(const TrainerOptions& options, bool clips) {
  Model model = make(), twin = make();
  Context<Cpu> context(2), other(1);
  context.seed = other.seed = Seed{5};
  Trainer<Model> trainer(model, context, options);
  twin.enable_gradients();
  const auto size = static_cast<std::size_t>(model.parameters().values().size());
  std::vector<double> w = values(model), m(size), v(size);
  std::vector<bool> decays(size, options.adamw.decay_everything);
  for (const auto& p : parameters_of<double>(twin)) {
    const bool plain = p.name.ends_with(".bias") || p.name.ends_with(".scale") || p.name.ends_with(".shift");
    if (plain) continue;
    const auto at = static_cast<std::size_t>(p.value.data - twin.parameters().values().data());
    for (std::size_t i = 0; i < static_cast<std::size_t>(p.value.rows * p.value.width); ++i) decays[at + i] = true;
  }
  const PreviousToken task;
  LabelledBatch data;
  Model::Saved saved;
  int clipped = 0;
  for (std::uint64_t step = 0; step < 5; ++step) {
    fill(task, Split::training, 8 * step, 8, data);
    std::copy(w.begin(), w.end(), twin.parameters().values().begin());
    twin.parameters().zero_gradients();
    other.step = step;
    const double loss = twin.loss_and_gradients(other, data.view(), saved);
    double norm = 0;
    for (const double g : twin.parameters().gradients()) norm += g * g;
    norm = std::sqrt(norm);
    const double scale = options.clip > 0 && norm > options.clip ? options.clip / norm : 1;
    clipped += scale < 1 ? 1 : 0;
    const double rate = options.adamw.rate * options.schedule.factor(step);
    const auto& a = options.adamw;
    for (std::size_t i = 0; i < size; ++i) {
      const double g = scale * twin.parameters().gradients()[static_cast<Index>(i)];
      m[i] = a.beta1 * m[i] + (1 - a.beta1) * g;
      v[i] = a.beta2 * v[i] + (1 - a.beta2) * g * g;
      const double first = m[i] / (1 - std::pow(a.beta1, static_cast<double>(step + 1)));
      const double second = v[i] / (1 - std::pow(a.beta2, static_cast<double>(step + 1)));
      w[i] -= rate * (decays[i] ? a.weight_decay : 0) * w[i];
      w[i] -= rate * first / (std::sqrt(second) + a.epsilon);
    }
    const StepReport report = trainer.step(data.view());
    CHECK(std::abs(report.loss - loss) <= 1e-12);
    CHECK(std::abs(report.gradient_norm - norm) <= 1e-12 * norm);
    CHECK(std::abs(report.rate - rate) <= 1e-15);
    CHECK(report.accuracy >= 0);
    CHECK(report.accuracy <= 1);
    double worst = 0, wrong = 0;
    const std::vector<double> came = values(model);
    for (std::size_t i = 0; i < size; ++i) {
      worst = std::max(worst, std::abs(came[i] - w[i]));
      wrong = std::max(wrong, std::abs(came[i] * (1 + 1e-9) - w[i]));
    }
    CHECK(worst <= 1e-11);
    CHECK_FALSE(wrong <= 1e-11);
  }
  CHECK(trainer.steps() == 5);
  CHECK((clipped > 0) == clips);
}

TEST_CASE("AdamW follows its formula, number by number") {
  follows({.schedule = {.steps = 10}}, false);
  follows({.adamw = {.rate = 1e-2, .weight_decay = 0.5, .decay_everything = false}, .schedule = {.steps = 6, .warmup = 2}},
          false);
  follows({.adamw = {.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3}, .schedule = {.steps = 5}, .clip = 1e-3}, true);
}

TEST_CASE("the schedule: a linear warm-up, half a cosine, a floor, steps that are held") {
  const CosineSchedule plain{.steps = 10};
  CHECK(plain.factor(0) == 1);
  CHECK(std::abs(plain.factor(5) - 0.5) <= 1e-15);
  CHECK(std::abs(plain.factor(1) - 0.5 * (1 + std::cos(std::numbers::pi / 10))) <= 1e-15);
  CHECK(std::abs(plain.factor(10)) <= 1e-15);
  CHECK(std::abs(plain.factor(1000)) <= 1e-15);
  const CosineSchedule warm{.steps = 13, .warmup = 3, .floor = 0.1};
  CHECK(warm.factor(0) == 0.25);
  CHECK(warm.factor(2) == 0.75);
  CHECK(warm.factor(3) == 1);
  CHECK(std::abs(warm.factor(8) - 0.55) <= 1e-15);
  CHECK(std::abs(warm.factor(13) - 0.1) <= 1e-15);
  const CosineSchedule held{.steps = 8, .hold = 4};
  for (std::uint64_t s = 0; s < 4; ++s) CHECK(held.factor(s) == 1);
  for (std::uint64_t s = 4; s < 8; ++s) CHECK(std::abs(held.factor(s) - 0.5) <= 1e-15);
  for (std::uint64_t s = 0; s < 12; ++s) CHECK(warm.factor(s + 3) >= warm.factor(s + 4));
}

template <class F>
void refuses(F&& change, const char* message) {
  Model model = make();
  Context<Cpu> context(1);
  TrainerOptions options{.schedule = {.steps = 10}};
  change(options);
  CHECK_THROWS_WITH_AS(Trainer<Model>(model, context, options), message, Error);
}

TEST_CASE("options that cannot be are refused by name") {
  refuses([](TrainerOptions& o) { o.schedule.steps = 0; }, "CosineSchedule: required at least one step, came 0");
  refuses([](TrainerOptions& o) { o.schedule.warmup = 10; },
          "CosineSchedule: required fewer warm-up steps than the 10 of the run, came 10");
  refuses([](TrainerOptions& o) { o.schedule.hold = 0; }, "CosineSchedule: required a hold of at least one step, came 0");
  refuses([](TrainerOptions& o) { o.schedule.floor = 2; }, "CosineSchedule: required a floor in 0 .. 1, came 2.000000");
  refuses([](TrainerOptions& o) { o.adamw.rate = NAN; }, "Trainer: required a learning rate of at least 0, came nan");
  refuses([](TrainerOptions& o) { o.adamw.beta1 = 1; }, "Trainer: required beta1 in [0, 1), came 1.000000");
  refuses([](TrainerOptions& o) { o.adamw.beta2 = -1; }, "Trainer: required beta2 in [0, 1), came -1.000000");
  refuses([](TrainerOptions& o) { o.adamw.epsilon = 0; }, "Trainer: required an epsilon above 0, came 0.000000");
  refuses([](TrainerOptions& o) { o.adamw.weight_decay = -1; }, "Trainer: required a weight decay of at least 0, came -1.000000");
  refuses([](TrainerOptions& o) { o.clip = -1; }, "Trainer: required a clipping norm of at least 0, came -1.000000");
}

TEST_CASE("NaN stops training, says where, and leaves the parameters as they were") {
  for (const char* name : {"embedding", "positions", "layers.norm.scale", "layers.mixer.left.weight", "norm.shift"}) {
    Model model = make();
    Context<Cpu> context(1);
    Trainer<Model> trainer(model, context, {.schedule = {.steps = 10}});
    LabelledBatch data;
    fill(PreviousToken(), Split::training, 0, 4, data);
    trainer.step(data.view());
    for (auto& p : parameters_of<double>(model)) {
      if (p.name == name) p.value(0, 2) = std::numeric_limits<double>::quiet_NaN();
    }
    const std::vector<double> before = values(model);
    try {
      trainer.step(data.view());
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.where() == "training step 2");
      CHECK(error.came() == words("NaN or infinity in the weights of ", name));
    }
    const std::vector<double> after = values(model);
    bool same = true;
    for (std::size_t i = 0; i < before.size(); ++i) {
      same = same && (before[i] == after[i] || (std::isnan(before[i]) && std::isnan(after[i])));
    }
    CHECK(same);
    CHECK(trainer.steps() == 1);
  }
}

TEST_CASE("a step in parts is the same step, and its parts come in order") {
  Model whole = make(), parts = make();
  Context<Cpu> context(1);
  Trainer<Model> a(whole, context, {.schedule = {.steps = 10}}), b(parts, context, {.schedule = {.steps = 10}});
  LabelledBatch data[2];
  fill(PreviousToken(), Split::training, 0, 4, data[0]);
  fill(PreviousToken(), Split::training, 4, 3, data[1]);
  CHECK_THROWS_WITH_AS(b.begin(), doctest::Contains("no batch"), Error);
  CHECK_THROWS_AS(b.finish(), Error);
  b.prepare(data[0].view());
  for (int step = 0; step < 4; ++step) {
    const StepReport expected = a.step(data[step % 2].view());
    b.begin();
    b.prepare(data[(step + 1) % 2].view());
    CHECK_THROWS_WITH_AS(b.begin(), doctest::Contains("a second step"), Error);
    const StepReport report = b.finish();
    CHECK(report.loss == expected.loss);
    CHECK(report.accuracy == expected.accuracy);
  }
  CHECK(values(whole) == values(parts));
  b.discard();
  CHECK_THROWS_AS(b.begin(), Error);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <coyote/training/checkpoint.hpp>
#include <filesystem>

#include "run.hpp"

namespace solve_mqar {

/// Trains LanguageModel<Architecture> as the settings say, with a checkpoint at every look at the validation stream. A unit
/// includes its backend's headers before this one.
template <class Architecture, class Positions = coyote::NoPositions, class Backend = coyote::Cpu, class Scalar = float>
void train(const std::string& name, const std::string& text, const Settings& s, std::uint64_t steps, const Monitor& monitor,
           Outcome& out, const typename Architecture::Options& layers = {}) {
  using namespace coyote;
  using Lm = LanguageModel<Architecture, Backend, Scalar, Positions>;
  Context<Backend> context = [&] {
    if constexpr (std::is_same_v<Backend, Cpu>) {
      return Context<Cpu>(s.threads);
    } else {
      return Context<Backend>();
    }
  }();
  context.seed = Seed{s.seed};
  const Mqar task(s.task, Seed{s.seed});
  Lm model({.vocabulary = s.task.vocabulary, .width = s.width, .length = s.task.length, .dropout = s.dropout, .layers = layers},
           Seed{s.seed});
  const auto batch = static_cast<std::uint64_t>(s.batch);
  const std::uint64_t hold = s.rate_per_epoch ? (s.epoch + batch - 1) / batch : 1;
  Trainer trainer(
      model, context,
      {.adamw = {.rate = s.rate, .weight_decay = s.weight_decay}, .schedule = {.steps = steps, .hold = hold}, .clip = s.clip});

  const std::string file = s.checkpoints.empty() ? "" : s.checkpoints + "/" + name + ".safetensors";
  FitResult before;
  if (s.resume && std::filesystem::exists(file)) {
    const Metadata metadata = load_checkpoint(trainer, file);
    for (const auto& [key, value] : metadata) {
      if (key == "solve_mqar.settings" && value != to_json(s).dump()) {
        throw Error(file, "the settings that its run began with, " + value, to_json(s).dump());
      }
      if (key == "solve_mqar.curve") before = fit_result_from(nlohmann::json::parse(value));
    }
  }

  const FitOptions options{.steps = steps,
                           .batch = s.batch,
                           .epoch = s.epoch,
                           .evaluate_every = s.evaluate_every,
                           .validation = s.stop_on_test ? s.test : s.validation,
                           .validation_split = s.stop_on_test ? Split::test : Split::validation,
                           .stop_above = s.stop_above};
  const auto progress = [&](const StepReport& report, std::uint64_t done, const FitResult& so_far, bool look) {
    if (look && !file.empty()) {
      save_checkpoint(trainer, file, {{"solve_mqar.settings", to_json(s).dump()}, {"solve_mqar.curve", to_json(so_far).dump()}});
    }
    return monitor(done, steps, report.loss, so_far.curve.empty() ? -1 : so_far.curve.back().accuracy);
  };
  out.name = name;
  out.architecture = text;
  out.fit = fit(trainer, task, options, progress, std::move(before));
  out.steps = trainer.steps();
  out.test = evaluate(model, context, task, Split::test, s.test, s.batch);
  out.parameters = count_parameters(model);
  const StateSize state = model.make_state({.sequences = 1, .capacity = s.task.length}).size();
  out.state_scalars = state.scalars;
  out.state_integers = state.integers;
}

}  // namespace solve_mqar

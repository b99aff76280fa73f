// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <coyote/training/checkpoint.hpp>
#include <filesystem>

#include "run.hpp"

namespace solve_mqar {

/// Activations are float on a CPU and bf16 on a GPU. A unit includes its backend's headers before this one.
template <class Backend>
struct Activations {
  using type = float;
};
#if defined(__CUDACC__)
template <>
struct Activations<coyote::Cuda> {
  using type = coyote::bf16;
};
#endif

/// Trains LanguageModel<Architecture> as the settings say, with a checkpoint at every look at the validation stream. `text` is
/// what the results call the architecture.
template <class Backend, class Architecture, class Positions = coyote::NoPositions>
void train(const Job& job, const std::string& text, const typename Architecture::Options& layers = {}) {
  using namespace coyote;
  using Lm = LanguageModel<Architecture, Backend, typename Activations<Backend>::type, Positions>;
  const Settings& s = job.settings;
  Outcome& out = job.out;
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
  Trainer trainer(model, context,
                  {.adamw = {.rate = s.rate, .weight_decay = s.weight_decay},
                   .schedule = {.steps = job.steps, .hold = hold},
                   .clip = s.clip});

  const std::string file = s.checkpoints.empty() ? "" : s.checkpoints + "/" + job.name + ".safetensors";
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

  const FitOptions options{.steps = job.steps,
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
    return job.monitor(done, job.steps, report.loss, so_far.curve.empty() ? -1 : so_far.curve.back().accuracy);
  };
  out.name = job.name;
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

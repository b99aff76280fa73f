// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <span>
#include <vector>

#include "coyote/tasks/sequences.hpp"
#include "coyote/training/trainer.hpp"

namespace coyote::inline v0 {

/// Loss and accuracy of a model on sequences first .. first + count - 1 of a task's split, `batch` of them at a time.
template <class Model, Task T>
Evaluation evaluate(const Model& model, Context<typename Model::BackendType>& context, const T& task, Split split, Index count,
                    Index batch, std::uint64_t first = 0) {
  if (count < 1 || batch < 1)
    throw Error("evaluate", "at least one sequence, in batches of at least one", words(count, " in ", batch));
  const ModeScope mode(context, Mode::inference);
  LabelledBatch data;
  Buffer<typename Model::BackendType, Token> predicted;
  Evaluation result;
  double right = 0;
  for (Index done = 0; done < count; done += batch) {
    fill(task, split, first + static_cast<std::uint64_t>(done), std::min(batch, count - done), data);
    const Batch view = data.view();
    if (predicted.size() < static_cast<Index>(view.labels.size())) {
      predicted = Buffer<typename Model::BackendType, Token>(static_cast<Index>(view.labels.size()));
    }
    const auto labels = static_cast<double>(view.labels.size());
    const auto frame = context.frame();
    const Resident<typename Model::BackendType> here(context, view);
    const std::span<Token> found(predicted.data(), view.labels.size());
    result.loss += labels * model.loss(context, here, found);
    right += count_equal(context, found, static_cast<const Batch&>(here).resident_labels());
    result.labels += static_cast<Index>(view.labels.size());
  }
  result.loss /= static_cast<double>(result.labels);
  result.accuracy = right / static_cast<double>(result.labels);
  return result;
}

struct FitOptions {
  std::uint64_t steps = 1000;         ///< updates in all, those of a resumed run included
  Index batch = 128;                  ///< sequences per update
  std::uint64_t epoch = 0;            ///< sequences of a fixed training set, passed over in order; 0: new ones in every step
  std::uint64_t evaluate_every = 50;  ///< updates between two looks at the validation stream
  Index validation = 512;             ///< sequences of each look
  Split validation_split = Split::validation;
  double stop_above = 2;  ///< stop when validation accuracy exceeds this
};

/// A look at the validation stream.
struct CurvePoint {
  std::uint64_t step = 0;
  double training_loss = 0;  ///< mean over the steps since the look before
  double loss = 0, accuracy = 0;
  double seconds = 0;  ///< of training so far, looks included
};

struct FitResult {
  std::vector<CurvePoint> curve;
  bool stopped_early = false;  ///< validation accuracy exceeded stop_above
  double seconds = 0;
};

/// Trains on a task's stream until `steps` updates are made or the validation accuracy exceeds the goal. Step t sees
/// sequences t * batch and on, so a resumed run sees what the whole run would have. `progress(step report, steps so far,
/// result so far, a look was just taken)` is called after every update; when it returns false, training pauses.
/// @param result  of the part of the run before a resume, or empty
template <class Model, Task T, class Progress>
FitResult fit(Trainer<Model>& trainer, const T& task, const FitOptions& options, Progress&& progress, FitResult result = {}) {
  if (options.batch < 1) throw Error("fit", "at least one sequence per step", words(options.batch));
  if (options.evaluate_every < 1) throw Error("fit", "at least one step between evaluations", words(options.evaluate_every));
  if (options.validation < 1) throw Error("fit", "at least one sequence per evaluation", words(options.validation));
  if (task.vocabulary() > trainer.model().options().vocabulary) {
    throw Error("fit", words("a model with the task's vocabulary of ", task.vocabulary()),
                words(trainer.model().options().vocabulary));
  }
  if (task.longest() > trainer.model().options().length) {
    throw Error("fit", words("a model for the task's length of ", task.longest()), words(trainer.model().options().length));
  }
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const double before = result.seconds;
  LabelledBatch data[2];  // of this step and of the next, which is made while a device is at work on this one
  const auto prepare = [&](std::uint64_t step) {
    if (step >= options.steps) return;
    std::uint64_t first = step * static_cast<std::uint64_t>(options.batch);
    Index count = options.batch;
    if (options.epoch > 0) {
      const auto batch = static_cast<std::uint64_t>(options.batch), per_epoch = (options.epoch + batch - 1) / batch;
      first = step % per_epoch * batch;
      count = static_cast<Index>(std::min(batch, options.epoch - first));
    }
    LabelledBatch& next = data[step % 2];
    fill(task, Split::training, first, count, next);
    trainer.prepare(next.view());
  };
  const struct Forgetting {  // a pause may come before the step of a batch that is prepared
    Trainer<Model>& trainer;
    ~Forgetting() { trainer.discard(); }
  } forgetting{trainer};
  double loss = 0;
  std::uint64_t since = 0;
  if (!result.stopped_early) prepare(trainer.steps());
  while (trainer.steps() < options.steps && !result.stopped_early) {
    trainer.begin();
    prepare(trainer.steps() + 1);
    const StepReport report = trainer.finish();
    loss += report.loss;
    ++since;
    const bool look = trainer.steps() % options.evaluate_every == 0 || trainer.steps() == options.steps;
    if (look) {
      const Evaluation e =
          evaluate(trainer.model(), trainer.context(), task, options.validation_split, options.validation, options.batch);
      result.stopped_early = e.accuracy > options.stop_above;
      result.curve.push_back({trainer.steps(), loss / static_cast<double>(since), e.loss, e.accuracy, 0});
      loss = 0;
      since = 0;
    }
    result.seconds = before + std::chrono::duration<double>(Clock::now() - begin).count();
    if (look) result.curve.back().seconds = result.seconds;
    if (!progress(report, trainer.steps(), std::as_const(result), look)) break;
  }
  return result;
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <optional>
#include <utility>

#include "coyote/models/language_model.hpp"
#include "coyote/training/adamw.hpp"
#include "coyote/training/schedule.hpp"
#include "coyote/training/step_runner.hpp"

namespace coyote::inline v0 {

struct TrainerOptions {
  AdamWOptions adamw = {};
  CosineSchedule schedule = {};
  double clip = 0;  ///< largest norm of the whole gradient; 0: no clipping
};

/// What one training step saw, before its update.
struct StepReport {
  double loss = 0, accuracy = 0;
  double auxiliary_loss = 0;
  double gradient_norm = 0;
  double rate = 0;
};

/// Trains a language model by AdamW: one step is forward, backward, clipping and update. After the first step of given
/// bounds nothing allocates. The model and the context must outlive it; step t draws the same dropout whoever runs it.
/// Errors: a loss, gradient or weight that is not finite stops training before the update, and the error says where.
template <class Model>
class Trainer {
  using Backend = typename Model::BackendType;
  using P = parameter_t<typename Model::Scalar>;

 public:
  Trainer(Model& model, Context<Backend>& context, const TrainerOptions& options)
      : model_(model), context_(context), options_(options) {
    options.schedule.check();
    const AdamWOptions& adamw = options.adamw;
    const auto fraction = [](const char* name, double beta) {
      if (!(beta >= 0 && beta < 1)) throw Error("Trainer", words(name, " in [0, 1)"), words(beta));
    };
    if (!(adamw.rate >= 0)) throw Error("Trainer", "a learning rate of at least 0", words(adamw.rate));
    fraction("beta1", adamw.beta1);
    fraction("beta2", adamw.beta2);
    if (!(adamw.epsilon > 0)) throw Error("Trainer", "an epsilon above 0", words(adamw.epsilon));
    if (!(adamw.weight_decay >= 0)) throw Error("Trainer", "a weight decay of at least 0", words(adamw.weight_decay));
    if (!(options.clip >= 0)) throw Error("Trainer", "a clipping norm of at least 0", words(options.clip));
    model.enable_gradients();
    first_ = Buffer<Backend, P>(model.parameters().values().size());
    second_ = Buffer<Backend, P>(model.parameters().values().size());
  }

  Model& model() { return model_; }
  Context<Backend>& context() { return context_; }
  const TrainerOptions& options() const { return options_; }
  /// Updates made so far.
  std::uint64_t steps() const { return steps_; }

  /// One update from a labelled batch.
  StepReport step(const Batch& batch) {
    prepare(batch);
    begin();
    return finish();
  }

  // The same in three parts, for a host that has other work while a device is at its own, the next batch for example:
  //
  //     trainer.prepare(first); for (...) { trainer.begin(); ...; trainer.prepare(next); report = trainer.finish(); }

  /// Checks the batch of the next step and brings it to the device, while a step may be under way. What the batch views stays
  /// until that step's `finish`.
  void prepare(const Batch& batch) {
    model_.check(batch);
    prepared_.reset();
    const std::uint64_t coming = steps_ + (under_way_ ? 1 : 0);
    runner_.prepare(context_, batch, coming, rate(coming));
    prepared_ = batch;
  }
  /// Begins the step of the batch that was prepared.
  void begin() {
    if (!prepared_ || under_way_) {
      throw Error("Trainer::begin", "a prepared batch, and no step under way", prepared_ ? "a second step" : "no batch");
    }
    const Batch batch = *std::exchange(prepared_, std::nullopt);
    labels_ = batch.labels.size();
    runner_.run(context_, batch, steps_, rate(steps_), [&](const Batch& here) { update(here, rate(steps_)); });
    under_way_ = true;
  }
  /// Waits for the step that was begun.
  StepReport finish() {
    if (!std::exchange(under_way_, false)) throw Error("Trainer::finish", "a step under way", "none");
    StepReport report;
    report.rate = rate(steps_);
    report.loss = numbers_->loss;
    report.auxiliary_loss = auxiliary_loss(context_);
    report.gradient_norm = std::sqrt(static_cast<double>(numbers_->squares));
    if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) fail(report);
    report.accuracy = numbers_->right / static_cast<double>(labels_);
    ++steps_;
    return report;
  }
  /// Forgets a prepared batch.
  void discard() { prepared_.reset(); }

  /// Calls visit(kind, name, matrix) for all that training carries from step to step: the parameters (kind ""), and the two
  /// moments of each ("adamw.first.", "adamw.second."). Checkpoints are made of it.
  template <class Visit>
  void visit_state(Visit&& visit) {
    HostCopy<Buffer<Backend, P>> first(first_), second(second_);
    const P* values = nullptr;  // the first parameter lies at the beginning of its buffer
    auto each = [&](const Path& path, Parameter<P>& p) {
      if (values == nullptr) values = p.value.data;
      visit("", path, p.value);
      const Index at = p.value.data - values;
      visit("adamw.first.", path, Rows<P>(first.data() + at, p.rows, p.columns, p.value.stride));
      visit("adamw.second.", path, Rows<P>(second.data() + at, p.rows, p.columns, p.value.stride));
    };
    model_.visit(each);
    first.write_back();
    second.write_back();
  }
  void set_steps(std::uint64_t steps) { steps_ = steps; }
  StepRunner<Backend>& runner() { return runner_; }

 private:
  /// What a step works out, on the host or on a device.
  struct Numbers {
    typename Context<Backend>::Value loss, right, squares;
  };

  double rate(std::uint64_t step) const { return options_.adamw.rate * options_.schedule.factor(step); }

  /// One step's work. On a device nothing in it may wait for the host, or depend on what the batch holds but its sizes.
  void update(const Batch& batch, double rate) {
    auto& store = model_.parameters();
    clear<P>(context_, Rows<P>(store.gradients().data(), ceil_div(store.gradients().size(), line), line, line));
    const auto frame = context_.frame();
    Tensor<Backend, Token> made = context_.template make<Token>(1, static_cast<Index>(batch.labels.size()));
    const std::span<Token> predicted(Rows<Token>(made).data, batch.labels.size());
    const auto loss = model_.loss_and_gradients(context_, batch, saved_, predicted);
    const auto right = count_equal(context_, predicted, batch.resident_labels());
    const auto squares = sum_of_squares(context_, store.gradients());
    adamw(context_, options_.adamw, rate, steps_ + 1, options_.clip, loss, squares, store, first_, second_);
    numbers_.emplace(Numbers{loss, right, squares});
  }

  static constexpr Index line = 16;  // the store pads every parameter to a multiple of it

  [[noreturn]] void fail(const StepReport& report) {
    std::string place = words("training step ", steps_ + 1), came;
    auto look = [&](const Path& path, Parameter<P>& p) {
      const auto bad = [](Rows<P> m) {
        for (Index r = 0; r < m.rows; ++r) {
          for (Index c = 0; c < m.width; ++c) {
            if (!std::isfinite(static_cast<double>(m(r, c)))) return true;
          }
        }
        return false;
      };
      if (!came.empty()) return;
      if (bad(p.value)) came = words("NaN or infinity in the weights of ", path.view());
    };
    model_.visit(look);
    auto look_at_gradients = [&](const Path& path, Parameter<P>& p) {
      for (Index i = 0; came.empty() && i < p.size(); ++i) {
        if (!std::isfinite(static_cast<double>(p.gradient(i / p.columns, i % p.columns)))) {
          came = words("a loss of ", report.loss, " and NaN or infinity in the gradient of ", path.view());
        }
      }
    };
    model_.visit(look_at_gradients);
    if (came.empty()) came = words("a loss of ", report.loss, " and a gradient of norm ", report.gradient_norm);
    throw Error(place, "a finite loss and gradient (a lower learning rate, clipping or other initial values may help)", came);
  }

  Model& model_;
  Context<Backend>& context_;
  TrainerOptions options_;
  Buffer<Backend, P> first_, second_;
  std::uint64_t steps_ = 0;
  std::optional<Batch> prepared_;
  std::size_t labels_ = 0;  // of the step under way
  bool under_way_ = false;
  typename Model::Saved saved_;
  StepRunner<Backend> runner_;
  std::optional<Numbers> numbers_;
};

}  // namespace coyote::inline v0

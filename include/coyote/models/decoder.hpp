// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coyote/models/language_model.hpp"

namespace coyote::inline v0 {

/// How a decoding step is carried out on a backend: at once on the host; on a device the same launches, captured as a graph.
template <class Backend>
class DecodingRunner {
 public:
  /// Calls work(step), with the step where operations read it.
  template <class Work>
  void run(Context<Backend>&, const Step& step, Work&& work) {
    work(step);
  }
};

/// Decodes with a model, one token for every sequence at a time: what LanguageModel::step does, for many steps. On a GPU a step
/// is one launch of a graph, whose time does not depend on the position where the model's state is bounded.
///
///     Decoder decoder(model, context, {.sequences = 1, .capacity = 4096});
///     Rows<const float> logits = decoder.step(token);   // of what comes next, in the backend's memory, until the next step
///
/// The model keeps its weights while the decoder lives, and the context serves nobody else.
/// Errors: those of LanguageModel::step.
template <class Model>
class Decoder {
  using Backend = typename Model::BackendType;
  using S = typename Model::Scalar;
  using P = parameter_t<S>;

 public:
  Decoder(const Model& model, Context<Backend>& context, StateBounds bounds)
      : model_(model),
        context_(context),
        frame_(context.frame()),
        rounded_(context, model.parameters()),
        state_(model.make_state(bounds)),
        logits_(bounds.sequences * model.options().vocabulary) {}
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// Appends one token to every sequence; the logits of what comes next, [sequences, vocabulary].
  Rows<const P> step(std::span<const Token> tokens) {
    model_.check_step(state_, tokens);
    const ModeScope mode(context_, Mode::inference);
    const Rows<P> logits(logits_.data(), state_.sequences, model_.options().vocabulary);
    runner_.run(context_, {state_.position, tokens}, [&](const Step& at) {
      const auto frame = context_.frame();
      model_.run_step(context_, state_, at, logits);
    });
    ++state_.position;
    return logits;
  }
  /// Tokens of each sequence so far.
  Index position() const { return state_.position; }

 private:
  const Model& model_;
  Context<Backend>& context_;
  typename Context<Backend>::Frame frame_;
  RoundedParameters<S, Backend> rounded_;
  typename Model::State state_;
  Buffer<Backend, P> logits_;
  DecodingRunner<Backend> runner_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
// docs/tutorial.md as a program: composes a hybrid, looks at its facts, trains it on associative recall and decodes.

#include <algorithm>
#include <coyote/coyote.hpp>
#include <cstdio>

// [hybrid]
namespace cy = coyote;

// An architecture is a type. Coyote<C>: y = (u W + b1) * (K * u + b2), C the convolution; a Block adds norm and residual.
using Local = cy::Block<cy::Coyote<cy::ShortConv<3>>>;
using Recall = cy::Block<cy::Attention<cy::Heads<1>, cy::RepeatedBigrams<4>>>;
using Hybrid = cy::Chain<Local, Recall>;

static_assert(cy::is_causal<Hybrid> && cy::is_input_dependent<Hybrid>);
static_assert(cy::degree<cy::Coyote<cy::ShortConv<3>>> == 2 && cy::degree<Hybrid>.is_infinite());
// [hybrid]

int main() {
  // [cost]
  std::printf("%s\n", cy::describe<Hybrid>(64, 64).c_str());  // width, length
  constexpr cy::Cost most = cy::cost<Hybrid>(64, 64);         // the same numbers, for the compiler
  constexpr cy::Cost usual = cy::cost<Hybrid>(64, 64, 8);     // of a sequence with 8 attended pairs
  static_assert(most.worst_case && !usual.worst_case && usual.multiplications < most.multiplications);
  // [cost]

  // [train]
  const cy::Mqar task({.vocabulary = 1024, .length = 64, .pairs = 4}, cy::Seed{1});
  cy::LanguageModel<Hybrid, cy::Cpu, float> model({.vocabulary = 1024, .width = 64, .length = 64}, cy::Seed{1});
  cy::Context<cy::Cpu> context;  // as many threads as the machine has; results do not depend on their number
  cy::Trainer trainer(model, context, {.adamw = {.rate = 3e-3}, .schedule = {.steps = 400}});
  const auto progress = [](const cy::StepReport&, std::uint64_t step, const cy::FitResult& so_far, bool looked) {
    if (looked) std::printf("step %llu: %.1f %%\n", static_cast<unsigned long long>(step), 100 * so_far.curve.back().accuracy);
    return true;  // false would pause
  };
  const cy::FitResult fitted = cy::fit(trainer, task, {.steps = 400, .evaluate_every = 50, .stop_above = 0.99}, progress);
  // [train]

  // [test]
  const cy::Evaluation test = cy::evaluate(model, context, task, cy::Split::test, 1000, 128);
  std::printf("%.2f %% of %td unseen queries after %.1f s of training\n", 100 * test.accuracy, test.labels, fitted.seconds);
  // [test]

  // [save]
  cy::save_parameters(model, "tutorial.safetensors");
  cy::LanguageModel<Hybrid, cy::Cpu, float> loaded({.vocabulary = 1024, .width = 64, .length = 64}, cy::Seed{2});
  cy::load_parameters(loaded, "tutorial.safetensors");
  // [save]

  // [decode]
  cy::TokenSequence sequence;
  task.generate(cy::Split::test, 0, sequence);
  cy::Matrix<float> logits(1, 1024);
  auto state = loaded.make_state({.sequences = 1, .capacity = 64});
  std::size_t query = 0, right = 0;
  for (std::size_t i = 0; i < sequence.tokens.size(); ++i) {
    loaded.step(context, state, std::span(sequence.tokens).subspan(i, 1), logits);
    if (query == sequence.labels.size() || sequence.label_rows[query] != static_cast<cy::Index>(i)) continue;
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    std::printf("row %2zu asks for %d: answer %td, label %d\n", i, sequence.tokens[i], best, sequence.labels[query]);
    right += best == sequence.labels[query++];
  }
  // [decode]

  std::remove("tutorial.safetensors");
  // What docs/tutorial.md says of this program.
  const bool holds = test.accuracy >= 0.97 && right == sequence.labels.size();
  return holds ? 0 : 1;
}

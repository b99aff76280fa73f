// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "coyote/architectures/coyote.hpp"
#include "coyote/combinators/block.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "coyote/training/fit.hpp"
#include "support/allocations.hpp"
#include "support/toy_task.hpp"

namespace {

using namespace coyote;
using namespace coyote::test;

using Net = Chain<Block<Coyote<LongConv<>>>, Repeat<Block<Coyote<ShortConv<3>>>>, Block<Attention<Heads<2>, Dense, Rotary<>>>,
                  Block<Attention<Heads<1>, RepeatedBigrams<2>>, RmsNorm>>;
using Model = LanguageModel<Net, Cpu, float, Learned>;

Model::Options options() {
  Model::Options o{.vocabulary = 50, .width = 16, .length = 100, .dropout = 0.1};
  std::get<1>(o.layers.parts).count = 3;
  std::get<2>(o.layers.parts).mixer.dropout = 0.1;
  return o;
}

TEST_CASE("the counter sees operator new, aligned or not, and malloc") {
  if (!allocations::counts) return;
  const long counted = allocations::during([] {
    void* volatile a = ::operator new(100);
    void* volatile b = ::operator new (100, std::align_val_t{64});
    void* volatile c = std::malloc(100);
    ::operator delete(a);
    ::operator delete (b, std::align_val_t{64});
    std::free(c);
  });
  CHECK(counted == 3);
}

TEST_CASE("in steady state a training step, an evaluation and a decoding step allocate nothing") {
  if (!allocations::counts) return;
  const PreviousToken task{.symbols = 50, .rows = 100};
  for (const Index threads : {1, 2}) {
    CAPTURE(threads);
    Model model(options(), Seed{1});
    Context<Cpu> context(threads);
    Trainer<Model> trainer(model, context, {.schedule = {.steps = 100}, .clip = 1});
    LabelledBatch data;
    const auto train = [&] {
      fill(task, Split::training, 8 * trainer.steps(), 8, data);
      trainer.step(data.view());
    };
    CHECK(allocations::during(train) > 0);
    train();
    for (int i = 0; i < 12; ++i) CHECK(allocations::during(train) == 0);

    const auto loss = [&] { model.loss(context, data.view()); };
    loss();
    for (int i = 0; i < 3; ++i) CHECK(allocations::during(loss) == 0);
    CHECK(allocations::during(train) == 0);

    auto state = model.make_state({.sequences = 2, .capacity = 100});
    Matrix<float> logits(2, 50);
    const auto decode = [&] {
      const Token tokens[] = {static_cast<Token>(state.position % 50), 3};
      model.step(context, state, tokens, logits);
    };
    decode();
    decode();
    for (int i = 0; i < 90; ++i) CHECK(allocations::during(decode) == 0);
  }
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
// Decoding one token of one sequence: two pre-norm blocks of width 64, no head. Peer: peers/torch_decoding.py.

#include <benchmark/benchmark.h>

#include "coyote/coyote.hpp"

namespace {

using namespace coyote;

constexpr Index width = 64, warm_up = 8192, steps = 20000;

template <class M>
void decode(benchmark::State& state) {
  using Two = Chain<Block<M>, Block<M>>;
  Context<Cpu> context(1);
  const Model<Two, Cpu, float> model({width, warm_up + steps}, Seed{1});
  auto memory = model.make_state({.sequences = 1, .capacity = warm_up + steps});
  Matrix<float> u(1, width), y(1, width);
  Draws draws(Stream(Seed{2}, Purpose::test));
  for (float& x : u) x = static_cast<float>(draws.normal());
  Index position = 0;
  const auto step = [&] {
    const Token token = static_cast<Token>(draws.below(256));
    model.step(context, memory, {position++, {&token, 1}}, u, y);
  };
  while (position < warm_up) step();
  for (auto _ : state) step();
  state.counters["tokens_per_second"] = benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["state_scalars"] = static_cast<double>(memory.size().scalars);
}
BENCHMARK(decode<Coyote<ShortConv<3>>>)->Name("decoding/coyote")->Iterations(steps);
BENCHMARK(decode<Rwkv>)->Name("decoding/rwkv")->Iterations(steps);
BENCHMARK(decode<Attention<Heads<1>, RepeatedBigrams<4>>>)->Name("decoding/bigrams")->Iterations(steps);

}  // namespace

BENCHMARK_MAIN();

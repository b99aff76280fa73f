// SPDX-License-Identifier: Apache-2.0
// Causal attention forward plus backward, float: the core operation on given q, k, v ([B * L, heads * 64] each). Inputs rotate
// over sets larger than the last-level cache. Peer: peers/torch_attention.py.

#include <benchmark/benchmark.h>

#include <vector>

#include "coyote/mixers/patterns.hpp"
#include "coyote/operations/cpu/attention.hpp"

namespace {

using namespace coyote;

constexpr Index rotated_bytes = Index{300} << 20;
constexpr Index threads = 2;
constexpr Index head_width = 64;

struct Set {
  Set(Index rows, Index d, Index heads)
      : q(rows, d),
        k(rows, d),
        v(rows, d),
        y(rows, d),
        dy(rows, d),
        dq(rows, d),
        dk(rows, d),
        dv(rows, d),
        log_sum_exp(rows, heads) {
    std::uint64_t state = 1;
    for (Matrix<float>* m : {&q, &k, &v, &dy}) {
      for (float& x : *m) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x = static_cast<float>(static_cast<std::int32_t>(state >> 32)) * 0x1p-30f;
      }
    }
    for (Index i = 0; i < rows; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      tokens.push_back(static_cast<Token>(state >> 56));
    }
  }
  Matrix<float> q, k, v, y, dy, dq, dk, dv, log_sum_exp;
  std::vector<Token> tokens;  // uniform over 256 symbols
};

template <class Pattern>
void attention_step(benchmark::State& state) {
  const Index sequences = state.range(0), length = state.range(1), heads = state.range(2);
  const bool backward = state.range(3) != 0;
  const Index rows = sequences * length, d = heads * head_width;
  Context<Cpu> ctx(threads);
  std::vector<Set> sets;
  const Index bytes = rows * d * 8 * static_cast<Index>(sizeof(float));
  for (Index n = 0; n < rotated_bytes / bytes + 1; ++n) sets.emplace_back(rows, d, heads);
  std::size_t turn = 0;
  for (auto _ : state) {
    Set& set = sets[turn++ % sets.size()];
    const Batch batch{.sequences = sequences, .length = length, .tokens = set.tokens};
    const auto frame = ctx.frame();
    const PatternIndex index = build_index<Pattern>(ctx, batch);
    coyote::attention<float, Pattern>(ctx, batch, index, heads, 0.125f, {}, set.q, set.k, set.v, set.y, set.log_sum_exp);
    if (backward) {
      attention_backward<float, Pattern>(ctx, batch, index, heads, 0.125f, {}, set.q, set.k, set.v, set.y, set.log_sum_exp,
                                         set.dy, set.dq, set.dk, set.dv);
    }
  }
  if constexpr (IntervalPattern<Pattern>) {
    // Two products forward, five backward, over the pairs at or below the diagonal.
    const double pairs = static_cast<double>(sequences * length) * static_cast<double>(length + 1) / 2;
    state.counters["GFLOP/s"] = benchmark::Counter((backward ? 14e-9 : 4e-9) * pairs * static_cast<double>(d),
                                                   benchmark::Counter::kIsIterationInvariantRate);
  }
}
BENCHMARK(attention_step<Dense>)
    ->ArgNames({"sequences", "length", "heads", "backward"})
    ->ArgsProduct({{1}, {512, 2048}, {8}, {0, 1}})
    ->Args({512, 64, 1, 0})
    ->Args({512, 64, 1, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(attention_step<RepeatedBigrams<4>>)
    ->ArgNames({"sequences", "length", "heads", "backward"})
    ->ArgsProduct({{1}, {8192}, {8}, {0, 1}})
    ->Args({512, 64, 1, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(attention_step<RepeatedBigrams<4>>)
    ->Name("curve/bigrams")
    ->ArgNames({"sequences", "length", "heads", "backward"})
    ->ArgsProduct({{1}, {1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20}, {1}, {1}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

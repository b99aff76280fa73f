// SPDX-License-Identifier: Apache-2.0
// Causal attention forward plus backward, float: the core operation on given q, k, v ([B * L, heads * 64] each). Inputs rotate
// over sets larger than the last-level cache. Peer: peers/torch_attention.py.

#include <benchmark/benchmark.h>

#include <vector>

#include "coyote/operations/cpu/attention.hpp"

namespace {

using namespace coyote;

constexpr Index rotated_bytes = Index{300} << 20;
constexpr Index threads = 2;
constexpr Index head_width = 64;

/// All keys up to the query's own row.
struct Causal {
  static constexpr bool uses_tokens = false;
  static constexpr Index index_size(Index) { return 0; }
  static constexpr void append(std::span<std::int32_t>, std::span<const Token>, Index) {}
  static constexpr Index first_key(std::span<const std::int32_t>, Index, Index) { return 0; }
};

/// The tokens that followed the latest four earlier occurrences of the query's token. The index holds, per row, the
/// previous row with the same token, and a hash table from tokens to their latest row.
struct LatestFour {
  static constexpr bool uses_tokens = true;
  static constexpr Index table(Index capacity) {
    Index size = 16;
    while (size < 2 * capacity) size *= 2;
    return size;
  }
  static constexpr Index index_size(Index capacity) { return capacity + 2 * table(capacity) + 1; }
  static constexpr void append(std::span<std::int32_t> index, std::span<const Token> tokens, Index i) {
    // [capacity previous rows][table of tokens][table of latest rows][capacity]
    std::int32_t* at = index.data();
    const auto total = static_cast<Index>(index.size());
    Index capacity = at[total - 1];
    if (capacity < 0) {
      Index size = 16;
      while (size + 2 * 2 * size + 1 <= 0 || total - 1 - 2 * size > size / 2) size *= 2;
      capacity = total - 1 - 2 * size;
      at[total - 1] = static_cast<std::int32_t>(capacity);
    }
    const Index size = (total - 1 - capacity) / 2;
    std::int32_t *keys = at + capacity, *latest = keys + size;
    const Token token = tokens[static_cast<std::size_t>(i)];
    auto slot = static_cast<Index>((static_cast<std::uint32_t>(token) * 2654435769u) & static_cast<std::uint32_t>(size - 1));
    while (keys[slot] != -1 && keys[slot] != token) slot = (slot + 1) & (size - 1);
    at[i] = keys[slot] == token ? latest[slot] : -1;
    keys[slot] = token;
    latest[slot] = static_cast<std::int32_t>(i);
  }
  template <class F>
  static constexpr void for_each_key(std::span<const std::int32_t> index, Index, Index i, F&& f) {
    Index count = 0;
    for (Index j = index[static_cast<std::size_t>(i)]; j >= 0 && count < 4; j = index[static_cast<std::size_t>(j)], ++count)
      f(j + 1);
  }
};

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
BENCHMARK(attention_step<Causal>)
    ->ArgNames({"sequences", "length", "heads", "backward"})
    ->ArgsProduct({{1}, {512, 2048}, {8}, {0, 1}})
    ->Args({512, 64, 1, 0})
    ->Args({512, 64, 1, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(attention_step<LatestFour>)
    ->ArgNames({"sequences", "length", "heads", "backward"})
    ->ArgsProduct({{1}, {8192}, {8}, {0, 1}})
    ->Args({512, 64, 1, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

// SPDX-License-Identifier: Apache-2.0
// The matrix product inside Linear and the tied head's cross entropy, forward plus backward, float. Inputs rotate over
// sets larger than the last-level cache. Peer: peers/torch_matmul.py.

#include <benchmark/benchmark.h>

#include <vector>

#include "coyote/operations/cpu/cross_entropy.hpp"
#include "coyote/operations/cpu/linear.hpp"

namespace {

using namespace coyote;

constexpr Index rotated_bytes = Index{300} << 20;
constexpr Index threads = 2;

void fill(Matrix<float>& m, std::uint64_t name) {
  std::uint64_t state = name * 0x9E3779B97F4A7C15u + 1;
  for (float& x : m) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<std::int32_t>(state >> 32)) * 0x1p-31f;
  }
}

struct LinearSet {
  LinearSet(Index rows, Index in, Index out) : x(rows, in), dy(rows, out), y(rows, out), dx(rows, in) {
    fill(x, 1);
    fill(dy, 2);
  }
  Matrix<float> x, dy, y, dx;
};

void linear_step(benchmark::State& state) {
  const Index rows = state.range(0), in = state.range(1), out = state.range(2);
  Context<Cpu> ctx(threads);
  const Index bytes = 2 * rows * (in + out) * static_cast<Index>(sizeof(float));
  std::vector<LinearSet> sets;
  for (Index n = 0; n < std::max<Index>(1, rotated_bytes / bytes + 1); ++n) sets.emplace_back(rows, in, out);
  Matrix<float> weight(in, out), bias(1, out), dweight(in, out), dbias(1, out);
  fill(weight, 3);
  fill(bias, 4);
  const Batch batch{.sequences = 1, .length = rows};
  const bool backward = state.range(3) != 0;
  std::size_t turn = 0;
  for (auto _ : state) {
    LinearSet& set = sets[turn++ % sets.size()];
    linear<float>(ctx, batch, set.x, weight, bias, set.y);
    if (backward) linear_backward<float>(ctx, batch, set.x, weight, set.dy, set.dx, Write::overwrite, dweight, dbias);
    benchmark::DoNotOptimize(set.y.data());
  }
  const double flops = (backward ? 6.0 : 2.0) * static_cast<double>(rows * in * out);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(linear_step)
    ->ArgNames({"rows", "in", "out", "backward"})
    ->ArgsProduct({{65536}, {64}, {64, 192}, {0, 1}})
    ->Args({8192, 512, 512, 0})
    ->Args({8192, 512, 512, 1})
    ->Args({1, 64, 64, 0})
    ->Args({1, 512, 512, 0})
    ->Args({16, 512, 512, 0})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void tied_head(benchmark::State& state) {
  const Index rows = state.range(0), vocabulary = state.range(1), width = state.range(2);
  Context<Cpu> ctx(threads);
  const Index bytes = (2 * rows + 2 * vocabulary) * width * static_cast<Index>(sizeof(float));
  struct Set {
    Matrix<float> hidden, embedding, dhidden, dembedding;
  };
  std::vector<Set> sets;
  for (Index n = 0; n < rotated_bytes / bytes + 1; ++n) {
    Set& set = sets.emplace_back(Set{{rows, width}, {vocabulary, width}, {rows, width}, {vocabulary, width}});
    fill(set.hidden, 1);
    fill(set.embedding, 2);
  }
  std::vector<Token> labels, predicted(static_cast<std::size_t>(rows));
  for (Index i = 0; i < rows; ++i) labels.push_back(static_cast<Token>(i * 7919 % vocabulary));
  std::size_t turn = 0;
  for (auto _ : state) {
    Set& set = sets[turn++ % sets.size()];
    benchmark::DoNotOptimize(
        cross_entropy<float>(ctx, set.hidden, set.embedding, labels, predicted, {}, set.dhidden, set.dembedding));
  }
  const double flops = 6.0 * static_cast<double>(rows * vocabulary * width);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(tied_head)
    ->ArgNames({"rows", "vocabulary", "width"})
    ->Args({2048, 8192, 64})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

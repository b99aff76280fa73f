// SPDX-License-Identifier: Apache-2.0
// Short and long convolutions on the CPU, forward and backward, as in docs/performance.md. 65536 rows of 64 channels, float,
// two threads; the inputs of successive iterations lie further apart than the last-level cache is large. Beside it:
// peers/torch_convolution.py, the same work in PyTorch.

#include <benchmark/benchmark.h>

#include <vector>

#include "coyote/operations/cpu/long_convolution.hpp"
#include "coyote/operations/cpu/short_convolution.hpp"

namespace {

namespace cy = coyote;
using cy::Index;
using cy::Rows;

constexpr Index width = 64, total_rows = 65536, threads = 2;

struct Inputs {
  std::vector<float> x, dy, y, dx;
  Inputs(Index rows, float seed) {
    const auto size = static_cast<std::size_t>(rows * width);
    x.resize(size);
    y.resize(size);
    for (std::size_t i = 0; i < size; ++i) x[i] = seed - static_cast<float>(i * 2654435761u % 1024u) / 1024;
    dy = x;
    dx = y;
  }
};

/// Enough sets of inputs and outputs that 320 MB pass before one comes round again.
std::vector<Inputs>& inputs_of(Index rows) {
  static std::vector<Inputs> sets;
  static Index made_for = 0;
  if (made_for != rows) {
    sets.clear();
    const Index bytes = 4 * rows * width * static_cast<Index>(sizeof(float));
    for (Index i = 0; i < std::max<Index>(1, cy::ceil_div(Index{320} << 20, bytes)); ++i)
      sets.emplace_back(rows, static_cast<float>(i) / 8);
    made_for = rows;
  }
  return sets;
}

enum class Pass { forward, backward, both };

template <bool Long>
void convolution(benchmark::State& state, Index length, Index rows, Pass pass) {
  cy::Context<cy::Cpu> ctx(threads);
  auto& sets = inputs_of(rows);
  const Index taps_rows = Long ? length : 3;
  std::vector<float> taps(static_cast<std::size_t>(taps_rows * width), 1.0f / static_cast<float>(taps_rows)), dtaps(taps.size());
  cy::Batch batch;
  batch.length = length;
  batch.sequences = rows / length;
  const Rows<const float> h(taps.data(), taps_rows, width), absent;
  const Rows<float> dh(dtaps.data(), taps_rows, width), none;
  std::size_t turn = 0;
  for (auto _ : state) {
    Inputs& in = sets[turn++ % sets.size()];
    const Rows<const float> x(in.x.data(), rows, width), dy(in.dy.data(), rows, width);
    const Rows<float> y(in.y.data(), rows, width), dx(in.dx.data(), rows, width);
    if constexpr (Long) {
      if (pass != Pass::backward) cy::long_convolution<float>(ctx, batch, cy::Wrap::causal, x, h, absent, absent, none, y);
      if (pass != Pass::forward) {
        cy::long_convolution_backward<float>(ctx, batch, cy::Wrap::causal, x, h, absent, absent, dy, dx, cy::Write::overwrite,
                                             none, dh, none);
      }
    } else {
      if (pass != Pass::backward) cy::short_convolution<float>(ctx, batch, x, h, absent, absent, y);
      if (pass != Pass::forward) {
        cy::short_convolution_backward<float>(ctx, batch, x, h, absent, absent, dy, dx, cy::Write::overwrite, none, dh, none);
      }
    }
    benchmark::ClobberMemory();
  }
}

void all(benchmark::State& state, bool is_long, Index rows, Pass pass) {
  is_long ? convolution<true>(state, state.range(0), rows, pass) : convolution<false>(state, state.range(0), rows, pass);
}
void lengths(benchmark::internal::Benchmark* b) {
  for (const Index n : {64, 128, 256, 512, 1024, 2048, 4096, 16384, 65536}) b->Arg(n);
  b->Unit(benchmark::kMillisecond)->UseRealTime();
}

BENCHMARK_CAPTURE(all, long_forward, true, total_rows, Pass::forward)->Apply(lengths);
BENCHMARK_CAPTURE(all, long_backward, true, total_rows, Pass::backward)->Apply(lengths);
BENCHMARK_CAPTURE(all, long_both, true, total_rows, Pass::both)->Apply(lengths);
BENCHMARK_CAPTURE(all, short_forward, false, total_rows, Pass::forward)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(all, short_backward, false, total_rows, Pass::backward)
    ->Arg(1024)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(all, short_both, false, total_rows, Pass::both)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();

/// One sequence of n rows, forward and backward: n log n for a long convolution, linear for a short one.
void curve(benchmark::State& state, bool is_long) { all(state, is_long, state.range(0), Pass::both); }
BENCHMARK_CAPTURE(curve, long, true)->RangeMultiplier(4)->Range(256, 1 << 20)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(curve, short, false)->RangeMultiplier(4)->Range(256, 1 << 20)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();

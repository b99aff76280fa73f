// SPDX-License-Identifier: Apache-2.0
// What the largest constructions of the theory cost to build and to run once, exactly, on one thread. `wrong` counts answers
// that differ from the definition, megabytes is the process's peak so far: run one benchmark at a time for it.

#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <algorithm>
#include <vector>

#include "coyote/core/random.hpp"
#include "coyote/tasks/oracle.hpp"
#include "coyote/theory/compile.hpp"
#include "coyote/theory/lanes.hpp"
#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/sort_scan.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1000;
}

struct Instance {
  std::vector<Token> keys, values, queries;
  operator Aligned() const { return {keys, values, queries}; }
};

/// M3 with 1024 rows, keys of 10 bits, values of 8, on 100 random instances; keys repeat.
template <Wrap W>
void sort_scan_1024(benchmark::State& state) {
  constexpr Index rows = 1024, l = 10, mv = 8;
  std::vector<Instance> instances(100);
  for (std::size_t s = 0; s < instances.size(); ++s) {
    Draws draws(Stream(Seed{1}, Purpose::test, s));
    for (Index i = 0; i < rows; ++i) {
      instances[s].keys.push_back(static_cast<Token>(draws.below(1 << l)));
      instances[s].values.push_back(static_cast<Token>(draws.below(1 << mv)));
      instances[s].queries.push_back(static_cast<Token>(draws.below(1 << l)));
    }
  }
  const std::vector<Aligned> views(instances.begin(), instances.end());
  Index wrong = 0;
  StackSize size;
  for (auto _ : state) {
    const auto m3 = sort_scan<Lanes<>>(rows, l, mv, W);
    size = m3.stack.size();
    const auto answers = solve_all(m3, std::span(views));
    for (std::size_t s = 0; s < instances.size(); ++s) {
      std::vector<Token> expected = mqar_aligned(instances[s].keys, instances[s].values, instances[s].queries);
      for (Token& a : expected) a = std::max(a, Token{0});
      for (Index i = 0; i < rows; ++i) {
        wrong += answers[static_cast<Index>(s)][i] == expected[static_cast<std::size_t>(i)] ? 0 : 1;
      }
    }
  }
  if (wrong > 0) state.SkipWithError("wrong answers");
  state.counters["layers"] = static_cast<double>(size.layers);
  state.counters["width"] = static_cast<double>(size.width);
  state.counters["rows"] = static_cast<double>(size.length);
  state.counters["wrong"] = static_cast<double>(wrong);
  state.counters["megabytes"] = peak_megabytes();
}
BENCHMARK(sort_scan_1024<Wrap::cyclic>)->Name("m3/cyclic")->Iterations(1)->Unit(benchmark::kSecond);
BENCHMARK(sort_scan_1024<Wrap::causal>)->Name("m3/causal")->Iterations(1)->Unit(benchmark::kSecond);

/// Compiler B on a random circuit of 32 levels of 128 gates, half of them products. Every gate reads the level before and is
/// read by the next one.
void routed_circuit(benchmark::State& state) {
  constexpr Index inputs = 64, depth = 32, gates = 128;
  Draws draws(Stream(Seed{2}, Purpose::test));
  Circuit<Field> circuit(inputs);
  Index first = 0;
  for (Index level = 0; level < depth; ++level) {
    const Index end = circuit.nodes().size();
    for (Index g = 0; g < gates; ++g) {
      const Index any = static_cast<Index>(draws.below(static_cast<std::uint64_t>(end - first)));
      const auto a = circuit.wire(first + g % (end - first)), b = circuit.wire(first + any);
      g % 2 == 0 ? a* b : a + b;
    }
    first = end;
  }
  for (Index n = first; n < circuit.nodes().size(); ++n) circuit.output(circuit.wire(n));
  List<Field> x;
  for (Index k = 0; k < inputs; ++k) x.emplace(static_cast<long long>(draws.below(Field::modulus)));
  Matrix<Field> u(inputs, 1);
  std::copy(x.begin(), x.end(), u.begin());
  const List<Field> expected = circuit.evaluate({x.begin(), static_cast<std::size_t>(x.size())});
  bool right = true;
  StackSize size;
  for (auto _ : state) {
    const auto compiled = compile_routed(circuit);
    size = compiled.stack.size();
    const List<Field> y = compiled.run(u);
    right = right && std::equal(y.begin(), y.end(), expected.begin(), expected.end());
  }
  if (!right) state.SkipWithError("a wrong output");
  state.counters["gates"] = static_cast<double>(circuit.size().gates);
  state.counters["depth"] = static_cast<double>(circuit.size().depth);
  state.counters["layers"] = static_cast<double>(size.layers);
  state.counters["rows"] = static_cast<double>(size.length);
  state.counters["megabytes"] = peak_megabytes();
}
BENCHMARK(routed_circuit)->Name("compiler_b")->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace

BENCHMARK_MAIN();

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What including coyote costs: seconds (least of three) and peak memory of g++ -O2 on one unit. The last two rows are a unit with
# the theory's headers and the same one with the theorems that tests/theory/compile_time_set.hpp has the compiler check.
# Usage: benchmarks/compile_time.sh [compiler]        (nvcc too: then the theory's rows alone)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
compiler=${1:-g++}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

echo '#include <coyote/coyote.hpp>' >"$folder/umbrella.cpp"
cat >"$folder/hybrid.cpp" <<'UNIT'
#include <coyote/coyote.hpp>
using namespace coyote;
using Custom = Chain<Block<Coyote<ShortConv<3>>>, Block<Attention<Heads<2>, RepeatedBigrams<4>>>, Block<Mlp<>>>;
int main() {
  Context<Cpu> context;
  LanguageModel<Custom, Cpu, float> model({.vocabulary = 8192, .width = 64, .length = 64}, Seed{1});
  Trainer trainer(model, context, {});
  const Mqar task;
  fit(trainer, task, {.steps = 10}, [](const StepReport&, std::uint64_t, const FitResult&, bool) { return true; });
}
UNIT

printf '#define COYOTE_WITHOUT_ASSERTIONS\n#include "theory/compile_time_set.hpp"\n' >"$folder/theory.cpp"
echo '#include "theory/compile_time_set.hpp"' >"$folder/asserted.cpp"

units=(umbrella:'coyote/coyote.hpp by itself' hybrid:'a custom hybrid with training')
flags=(-std=c++20 -O2 -Iinclude -Itests)
if [[ $(basename "$compiler") == nvcc ]]; then
  units=()
  flags=(-std=c++20 -O2 -x cu -Iinclude -Itests)
fi
units+=(theory:'the theory headers' asserted:'the same with the compile-time set')

printf '%-46s %8s %10s\n' 'one unit, '"$compiler"' -O2' seconds megabytes
for unit in "${units[@]}"; do
  least=999 memory=0
  for _ in 1 2 3; do
    /usr/bin/env time -f '%U %M' -o "$folder/time" "$compiler" "${flags[@]}" -c "$folder/${unit%%:*}.cpp" -o "$folder/unit.o"
    read -r seconds kilobytes <"$folder/time"
    least=$(awk -v a="$least" -v b="$seconds" 'BEGIN { print a < b ? a : b }')
    memory=$((kilobytes / 1000))
  done
  printf '%-46s %8.2f %10d\n' "${unit#*:}" "$least" "$memory"
done

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The compile-time set of the theory, compiled by nvcc as CUDA code within its default limits. Its answer must be trusted: the
# same unit with one false statement more must be refused for that statement. 77 (skipped) where there is no nvcc.
# Usage: nvcc.sh NVCC INCLUDE TESTS OUT
set -euo pipefail
nvcc=$1 include=$2 tests=$3 out=$4
if ! command -v "$nvcc" >/dev/null; then
  echo "no nvcc"
  exit 77
fi
mkdir -p "$out"
compile() { "$nvcc" -std=c++20 -x cu -I"$include" -I"$tests" -c "$out/$1.cu" -o "$out/$1.o"; }

echo '#include "theory/compile_time_set.hpp"' >"$out/set.cu"
compile set
cat >"$out/wrong.cu" <<'UNIT'
#include "theory/compile_time_set.hpp"
static_assert(coyote::test::compile_time::golden<long>(coyote::Wrap::causal, {7, 52, 112, 208, 350, 1135}), "one too many");
UNIT
if compile wrong >"$out/wrong.log" 2>&1; then
  echo "a false statement was accepted"
  exit 1
fi
if ! grep -q "one too many" "$out/wrong.log"; then
  cat "$out/wrong.log"
  exit 1
fi

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# solve_mqar.sh <solve_mqar> <work folder>: three short runs of the main example, and what it says to options it cannot follow.
set -euo pipefail
program=$1 work=$2
rm -rf "$work"
mkdir -p "$work/checkpoints"
cd "$work"

fail() {
  echo "solve_mqar.sh: $*"
  cat out err
  exit 1
}
small=(--steps 3 --evaluate-every 2 --patience 1 --batch 4 --validation 4 --test 4 --width 16 --vocabulary 64 --length 16
  --pairs 2)

# A run writes its table, its results and its picture.
"$program" "${small[@]}" >out 2>err || fail "a short run fails"
for model in attention hybrid coyote; do
  grep -q "^$model .*%" out || fail "no row of $model in the table"
  grep -q "\"name\": \"$model\"" results.json || fail "no $model in results.json"
done
grep -q '^<svg' mqar.svg || fail "no picture"

# A run that was stopped goes on from its checkpoints and ends with the same accuracies.
"$program" "${small[@]}" --models attention --checkpoint checkpoints --json whole.json >out 2>err || fail "a run with checkpoints fails"
[ -f checkpoints/attention.safetensors ] || fail "no checkpoint"
"$program" "${small[@]}" --models attention --checkpoint checkpoints --resume --json again.json >out 2>err || fail "resuming fails"
[ "$(grep test_accuracy whole.json)" = "$(grep test_accuracy again.json)" ] || fail "a resumed run ends elsewhere"

# From a file.
printf 'steps = 1\nwidth = 16\nbatch = 4\nvalidation = 4\ntest = 4\nmodels = ["hybrid"]\n' >short.toml
"$program" --config short.toml >out 2>err || fail "a TOML file is not read"
grep -q '"width": 16' results.json || fail "the TOML file's width is not used"
"$program" --help >out 2>err || fail "--help fails"
grep -q -- --stop-above out || fail "--help does not list the options"

# refuses <exit code> <word of the message> <options>: says why on standard error, and writes nothing.
refuses() {
  local code=$1 word=$2 came=0
  shift 2
  rm -f results.json mqar.svg
  "$program" "$@" >out 2>err || came=$?
  [ "$came" -eq "$code" ] || fail "'$*' exits with $came, not $code"
  grep -q -- "^solve_mqar: .*$word" err || fail "'$*' does not speak of '$word'"
  [ ! -e results.json ] && [ ! -e mqar.svg ] || fail "'$*' leaves files"
}
refuses 2 no-such-option --no-such-option
refuses 2 filler --filler ones
refuses 2 models --models transformer
refuses 2 resume --resume
refuses 2 steps --steps many
refuses 1 preset --preset best
# Built without CUDA, or with it on a machine without a GPU.
[ -e /dev/nvidia0 ] || refuses 1 '[Cc][Uu][Dd][Aa]' --backend cuda
refuses 1 Mqar.pairs --pairs 5000
refuses 1 Mqar.length --length 15
refuses 1 epoch --preset paper --epoch 0
refuses 1 attention-dropout --attention-dropout 0.3
refuses 1 results.json "${small[@]}" --json /no/such/folder/results.json
refuses 1 safetensors "${small[@]}" --models attention --checkpoint checkpoints --resume --rate 0.5
echo "solve_mqar runs, resumes and refuses"

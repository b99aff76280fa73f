#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# circuit_to_coyote.sh <circuit_to_coyote> <work folder>: circuits from files, and what the example says to files that are none.
set -euo pipefail
program=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
cd "$work"

fail() {
  echo "circuit_to_coyote.sh: $*"
  cat out err
  exit 1
}

# compiles <line of the table> <circuit>: a row of the table begins so.
compiles() {
  printf "$2" >circuit.txt
  "$program" circuit.txt >out 2>err || fail "this circuit fails: $2"
  grep -q "^$1 " out || fail "no row '$1' for: $2"
}
# One product: 2 * 1 + 1 layers of width 3. Depth 2 on 8 rows: 2 (10 * 3 - 1) + 1 layers of width 7.
compiles 'A, channels  *3  *3  *1' 'input x y\np = x * y  # a comment\nq = p + 7/2\noutput q\n'
compiles 'B, sequence  *59  *7  *8' 'input x y\np = x * y\nq = p + 7/2\noutput q\n'
compiles 'A, channels  *1  *1  *1' 'c = 3 - 4\noutput c\n'

# refuses <words of the message> <circuit>: says why on standard error, with exit code 2 and no table.
refuses() {
  local came=0
  printf "$2" >circuit.txt
  "$program" circuit.txt >out 2>err || came=$?
  [ "$came" -eq 2 ] || fail "exit code $came, not 2: $2"
  grep -q "^circuit_to_coyote: .*$1" err || fail "no word of '$1': $2"
  [ ! -s out ] || fail "a table all the same: $2"
}
refuses "line 2: .*unknown wire 'z'" 'input x\ny = x * z\noutput y\n'
refuses "line 2: .*a line that begins with 'y'" 'input x\ny = x *\noutput y\n'
refuses "line 3: .*'y' a second time" 'input x\ny = x * x\ny = x + 1\noutput y\n'
refuses "cycle" 'input x\ny = x * z\nz = y + x\noutput z\n'
refuses "an output" 'input x\ny = x * x\n'
refuses "plain text" ''
refuses "plain text" 'input x\000\n'

for arguments in "no_such_file" "." "circuit.txt circuit.txt"; do
  came=0
  "$program" $arguments >out 2>err || came=$?
  [ "$came" -eq 2 ] || fail "'$arguments' exits with $came, not 2"
  grep -q '^circuit_to_coyote: ' err || fail "nothing is said to '$arguments'"
done
"$program" --help >out 2>err || fail "--help fails"
grep -q '^output re im norm' out || fail "--help does not print the circuit"
echo "circuit_to_coyote compiles and refuses"

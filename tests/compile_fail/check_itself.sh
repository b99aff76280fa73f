#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_itself.sh <compiler>: check.sh accepts a good case and rejects each kind of bad one.
set -u
check=$(dirname "$0")/check.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# verdict <0 accepted | 1 rejected> <what is tried> <source>
verdict() {
  printf '%s\n' "$3" >"$folder/case.cpp"
  "$check" "$compiler" "$folder/case.cpp" >/dev/null
  if [ $? -ne "$1" ]; then
    printf 'wrong verdict: %s\n' "$2"
    failed=1
  fi
}

compiler=$1
wrong='template <class T> void f(T) {
#ifndef COYOTE_EXPECT_OK
static_assert(sizeof(T) == 100, "say so");
#endif
}
void g() { f(1); }'
verdict 0 'the message of a static_assert in a template' "// expect: say (so|it)
$wrong"
verdict 1 'another message' "// expect: say it
$wrong"
verdict 1 'one of two expectations' "// expect: say so
// expect: say it
$wrong"
verdict 1 'no expectation' "$wrong"
verdict 1 'a program that compiles' '// expect: x
int a;'
verdict 1 'a program that does not compile when corrected' '// expect: .
int a'
exit $failed

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check.sh <compiler> <source> <flags...>: the source must not compile, and the first error must read as it says itself:
#     // expect: <extended regular expression>            for every compiler
#     // expect g++: <...>  or  // expect clang++: <...>  for one of them
#     // expect near: <...>                                in the 20 lines before the first error or the 5 after it, where
#                                                          compilers print the template arguments
# With -DCOYOTE_EXPECT_OK it must compile: what is corrected there is the only thing that was wrong.
set -u
compiler=$1
source=$2
shift 2
name=$(basename "$compiler")
compile() { "$compiler" -std=c++20 -Wall -Wextra -fsyntax-only "$@" "$source" 2>&1; }

mapfile -t expected < <(sed -nE "s|^// expect( ${name//+/\\+})?: ||p" "$source")
if [ ${#expected[@]} -eq 0 ]; then
  printf '%s has no line "// expect: ..." for %s\n' "$source" "$name"
  exit 1
fi
if ! output=$(compile "$@" -DCOYOTE_EXPECT_OK); then
  printf 'the corrected program must compile with %s, but:\n%s\n' "$name" "$output"
  exit 1
fi
if output=$(compile "$@"); then
  printf 'compiles with %s, but must not\n' "$name"
  exit 1
fi
first=$(grep -m1 -E '(^|: )(fatal )?error: ' <<<"$output")
printf '%s\n' "$first"
mapfile -t expected_near < <(sed -nE 's|^// expect near: ||p' "$source")
near=$(grep -m1 -B20 -A5 -E '(^|: )(fatal )?error: ' <<<"$output")
for pattern in "${expected_near[@]}"; do
  if ! grep -qE -- "$pattern" <<<"$near"; then
    printf 'the lines around the first error do not match: %s\nthey are:\n%s\n' "$pattern" "$near"
    exit 1
  fi
done
for pattern in "${expected[@]}"; do
  if ! grep -qE -- "$pattern" <<<"$first"; then
    printf 'the first error does not match: %s\nwhole output:\n%s\n' "$pattern" "$(head -n 60 <<<"$output")"
    exit 1
  fi
done

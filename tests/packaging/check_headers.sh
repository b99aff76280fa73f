#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_headers.sh <compiler> <include folder> <flags...>: every header compiles alone, and twice in one unit.
set -u
compiler=$1
include=$2
shift 2
failed=0
count=0
while IFS= read -r header; do
  count=$((count + 1))
  if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
    "$compiler" -std=c++20 -Wall -Wextra -Wconversion -Wshadow -Werror -fsyntax-only "$@" -I"$include" -x c++ -; then
    printf 'does not compile alone: %s\n' "$header"
    failed=$((failed + 1))
  fi
done < <(cd "$include" && find . -name '*.hpp' ! -path '*/cuda/*' ! -name 'cuda.hpp' -printf '%P\n' | sort)
printf '%d headers, %d do not compile alone\n' "$count" "$failed"
[ "$count" -gt 0 ] && [ "$failed" -eq 0 ]

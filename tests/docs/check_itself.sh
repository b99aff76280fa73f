#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_itself.sh <cmake> <work folder>: the checks of the docs accept what is right and refuse what is not.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cmake=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
printf 'int before;\n// [part]\nint values[] = {1, 2};  // "a;b" \\\n// [part]\nvoid f() {\n  // [inside]\n  g();\n  if (x) {\n    h();\n  }\n  // [inside]\n}\n' >"$work/code.cpp"

snippets() { # snippets <good|bad> <block>: the block as a page's only code beside a right one
  printf 'Text.\n\n```cpp\n// from code.cpp, part\nint values[] = {1, 2};  // "a;b" \\\n```\n\n```cpp\n%b```\n\nMore.\n' "$2" >"$work/page.md"
  local came=good
  "$cmake" -DROOT="$work" -DPAGES="$work/page.md" -P "$here/check_snippets.cmake" >"$work/log" 2>&1 || came=bad
  [ "$came" = "$1" ] || { echo "the snippet check finds this $came, not $1: $2"; cat "$work/log"; exit 1; }
}
snippets good '// from code.cpp, inside\ng();\nif (x) {\n  h();\n}\n'
snippets good '// sketch\nanything;\n'
snippets bad '// from code.cpp, inside\ng();\nif (x) {\n  k();\n}\n'
snippets bad '// from code.cpp, inside\ng();\n'
snippets bad '// from code.cpp, part\nint values[] = {1, 3};\n'
snippets bad '// from code.cpp, other\nint x;\n'
snippets bad '// from elsewhere.cpp, part\nint x;\n'
snippets bad 'int x;\n'

links() { # links <good|bad> <text>
  printf '# A page\n\n## The second: heading\n\n[here](page.md)\n%b\n' "$2" >"$work/page.md"
  local came=good
  "$cmake" -DPAGES="$work/page.md" -P "$here/check_links.cmake" >"$work/log" 2>&1 || came=bad
  [ "$came" = "$1" ] || { echo "the link check finds this $came, not $1: $2"; cat "$work/log"; exit 1; }
}
links good '[a file](code.cpp), [afar](https://example.org/x), [below](#the-second-heading), `[no](link)`'
links good '<img src="code.cpp">\n\n```cpp\na[i](j);\n```'
links bad '[gone](gone.md)'
links bad '[gone](#no-such-heading)'
links bad '<img src="gone.svg">'
echo "the checks check"

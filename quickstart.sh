#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ./quickstart.sh [options of solve_mqar]   installs what is missing, builds and runs the main example
# ./quickstart.sh test                      the same for the whole test suite
# For Debian and its relatives. Needs no GPU and no CUDA; where nvcc is, the tests compile the CUDA units too, and run them if
# there is a GPU. Running it again does only what is left to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

packages=(g++ cmake ninja-build libcli11-dev nlohmann-json3-dev doctest-dev libbenchmark-dev)
if [ "${1:-}" = test ]; then
  packages+=(clang pkg-config libeigen3-dev)
fi

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf 'quickstart.sh: %s\n' "$*" >&2
  exit 1
}

install_missing() {
  local missing=() package
  for package in "${packages[@]}"; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed'; then
      missing+=("$package")
    fi
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "All Debian packages are there: ${packages[*]}"
    return
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "installing ${missing[*]} needs root or sudo; install them and run this again"
    as_root=(sudo)
  fi
  say "Installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  install_missing
else
  say "Not a Debian system: expecting the equivalents of ${packages[*]} to be installed"
fi

jobs=$(nproc)
[ "$jobs" -le 4 ] || jobs=4 # a compilation takes up to 1 GB

if [ "${1:-}" != test ]; then
  say "Configuring (cmake --preset cpu-release)"
  cmake --preset cpu-release
  say "Building solve_mqar"
  cmake --build --preset cpu-release -j "$jobs" --target solve_mqar
  say "Running solve_mqar $*"
  exec build/cpu-release/examples/solve_mqar "$@"
fi

[ $# -eq 1 ] || fail "test takes no further arguments, came: ${*:2}"
say "Configuring the tests with sanitizers (cmake --preset cpu-sanitize)"
cmake --preset cpu-sanitize
preset=cpu-release
if command -v nvcc >/dev/null; then
  preset=cuda-release
fi
say "Configuring everything else (cmake --preset $preset)"
cmake --preset "$preset" -DCOYOTE_SANITIZED_BUILD="$PWD/build/cpu-sanitize"
say "Building with clang, address and undefined-behaviour sanitizers"
cmake --build --preset cpu-sanitize -j "$jobs"
say "Building with g++ (and nvcc, with cuda-release)"
cmake --build --preset "$preset" -j "$jobs"
say "Testing"
exec ctest --preset "$preset" -j 2

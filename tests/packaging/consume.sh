#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# consume.sh <way> <source folder> <installed prefix> <build folder> <compiler>: builds the consumer project in one of the
# ways in which others include the library, and runs it.
set -euo pipefail
way=$1
source=$2
prefix=$3
build=$4
compiler=$5
consumer=$source/tests/packaging/consumer
rm -rf "$build"
mkdir -p "$build"

if [ "$way" = pkg_config ]; then
  export PKG_CONFIG_PATH
  PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name coyote.pc)")
  read -ra flags <<<"$(pkg-config --cflags --libs coyote)"
  "$compiler" -std=c++20 "$consumer/main.cpp" "${flags[@]}" -o "$build/consumer"
else
  cmake -S "$consumer" -B "$build" -G Ninja -DWAY="$way" -DCMAKE_PREFIX_PATH="$prefix" -DCOYOTE_SOURCE="$source" \
    -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug
  cmake --build "$build" -j 1
fi
"$build/consumer"

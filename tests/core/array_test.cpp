// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/array.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

namespace cy = coyote;

namespace {

constexpr bool arrays_are_values() {
  cy::Array<long> a(3);
  if (a[0] != 0 || a[1] != 0 || a[2] != 0) return false;
  a[1] = 5;
  cy::Array<long> b = a;
  b[1] = 6;
  cy::Array<long> c = std::move(b);
  a = c;
  cy::Array<long> none;
  none = cy::Array<long>(0);
  long sum = 0;
  for (const long x : a) sum += x;
  return sum == 6 && c[1] == 6 && b.size() == 0 && none.size() == 0 && none.begin() == none.end();
}
static_assert(arrays_are_values());

/// Owns memory, and has no default constructor.
struct Owner {
  cy::Array<int> data;
  constexpr explicit Owner(int value) : data(1) { data[0] = value; }
};

constexpr bool lists_grow() {
  cy::List<Owner> list;
  for (int i = 0; i < 9; ++i) list.emplace(i);
  cy::List<Owner> copy = list;
  copy[8].data[0] = 80;
  cy::List<Owner> moved = std::move(copy);
  if (list.size() != 9 || copy.size() != 0 || moved.size() != 9) return false;
  int sum = 0;
  for (const Owner& owner : list) sum += owner.data[0];
  list = moved;
  return sum == 36 && list[8].data[0] == 80 && moved[8].data[0] == 80;
}
static_assert(lists_grow());

constexpr bool ensure_keeps_what_fits() {
  cy::List<int> list;
  list.ensure(3);
  list[2] = 7;
  list.ensure(3);
  const bool kept = list[2] == 7;
  list.ensure(5);
  return kept && list.size() == 5 && list[2] == 0;
}
static_assert(ensure_keeps_what_fits());

}  // namespace

TEST_CASE("arrays lie on 64-byte boundaries at run time") {
  for (const cy::Index size : {1, 3, 17, 1000}) {
    const cy::Array<float> array(size);
    CHECK(reinterpret_cast<std::uintptr_t>(array.data()) % 64 == 0);
    for (const float x : array) CHECK(x == 0);
  }
  CHECK(arrays_are_values());
  CHECK(lists_grow());
  CHECK(ensure_keeps_what_fits());
}

TEST_CASE("elements with destructors are destroyed once") {
  cy::Array<std::string> array(3);
  array[1] = std::string(100, 'x');
  cy::Array<std::string> other = array;
  array = std::move(other);
  CHECK(array[1].size() == 100);
  cy::List<std::string> list;
  for (int i = 0; i < 20; ++i) list.emplace(std::string(50, static_cast<char>('a' + i)));
  CHECK(list[19] == std::string(50, 't'));
}

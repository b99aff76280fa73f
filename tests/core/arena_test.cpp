// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/arena.hpp"

#include <doctest/doctest.h>

#include <cstdint>

#include "coyote/core/context.hpp"

namespace cy = coyote;

namespace {
std::vector<void*> step(cy::Arena& arena) {
  std::vector<void*> addresses;
  const cy::Arena::Mark mark = arena.mark();
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{100000}, std::size_t{64}, std::size_t{3000000}, std::size_t{65}}) {
    void* at = arena.allocate(bytes);
    std::memset(at, 0x5A, bytes);
    addresses.push_back(at);
  }
  arena.release(mark);
  return addresses;
}
}  // namespace

TEST_CASE("addresses are aligned, apart, and the same in every step after the arena has grown") {
  cy::Arena arena;
  step(arena);
  const std::vector<void*> second = step(arena);
  for (int i = 0; i < 3; ++i) CHECK(step(arena) == second);
  const std::size_t sizes[] = {1, 100000, 64, 3000000, 65};
  for (std::size_t i = 0; i < second.size(); ++i) {
    const auto begin = reinterpret_cast<std::uintptr_t>(second[i]);
    CHECK(begin % 64 == 0);
    if (i + 1 < second.size()) CHECK(begin + sizes[i] <= reinterpret_cast<std::uintptr_t>(second[i + 1]));
  }
  CHECK(arena.peak() >= 3100130);
}

TEST_CASE("what was allocated before growth stays where it is") {
  cy::Arena arena;
  auto* first = static_cast<int*>(arena.allocate(sizeof(int)));
  *first = 42;
  for (int i = 0; i < 20; ++i) std::memset(arena.allocate(100000), 1, 100000);
  CHECK(*first == 42);
}

/// Memory that has no large blocks.
struct Scarce : cy::HostMemory {
  void* allocate(std::size_t bytes) {
    if (bytes > std::size_t{1} << 20) throw std::bad_alloc();
    return cy::HostMemory::allocate(bytes);
  }
};

TEST_CASE("a request that fails changes nothing") {
  cy::BasicArena<Scarce> arena;
  auto* first = static_cast<std::byte*>(arena.allocate(100));
  const std::size_t peak = arena.peak();
  const std::uint64_t generation = arena.generation();
  CHECK_THROWS_AS(arena.allocate(std::size_t{2} << 20), std::bad_alloc);
  CHECK(arena.peak() == peak);
  CHECK(arena.generation() == generation);
  CHECK(arena.allocate(1) == first + 128);
}

TEST_CASE("poisoned memory reads as NaN") {
  cy::Arena arena;
  arena.poison(true);
  const auto* values = static_cast<const float*>(arena.allocate(40));
  for (int i = 0; i < 10; ++i) CHECK(values[i] != values[i]);
  const auto* doubles = static_cast<const double*>(arena.allocate(40));
  for (int i = 0; i < 5; ++i) CHECK(doubles[i] != doubles[i]);
}

TEST_CASE("a context's frame gives back what was made in it") {
  cy::Context<cy::Cpu> ctx(2);
  float* first = nullptr;
  for (int i = 0; i < 3; ++i) {
    const auto frame = ctx.frame();
    const auto a = ctx.make<float>(3, 5), b = ctx.make<float>(1, 1);
    CHECK(a.rows == 3);
    CHECK(a.stride == 5);
    CHECK(a.data != b.data);
    if (first == nullptr) first = a.data;
    CHECK(a.data == first);
    const auto inner = ctx.frame();
    CHECK(ctx.make<double>(2, 2).data != nullptr);
  }
  ctx.poison(true);
  ctx.parallel(8, [](cy::Index, cy::Arena& scratch) {
    const auto* value = static_cast<const float*>(scratch.allocate(4));
    if (*value == *value) throw cy::Error("scratch", "NaN", "a number");
  });
  CHECK(ctx.peak_memory() > 0);
}

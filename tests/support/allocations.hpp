// SPDX-License-Identifier: Apache-2.0
#pragma once

// Counts calls of malloc and its relatives from any thread, below operator new and whatever else allocates. Include it in one
// unit of a program, after what the standard and vector headers declare. With a sanitizer, whose own allocator must stay in
// place, nothing is counted and `counts` is false.

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COYOTE_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define COYOTE_TEST_SANITIZED 1
#endif
#endif

namespace coyote::test::allocations {

inline std::atomic<long> calls{0};

#if defined(COYOTE_TEST_SANITIZED) || !defined(__GLIBC__)
inline constexpr bool counts = false;
#else
inline constexpr bool counts = true;
#endif

/// The number of allocations while f runs.
template <class F>
long during(F&& f) {
  const long before = calls.load();
  f();
  return calls.load() - before;
}

}  // namespace coyote::test::allocations

#if !defined(COYOTE_TEST_SANITIZED) && defined(__GLIBC__)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) noexcept {
  ++coyote::test::allocations::calls;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
  ++coyote::test::allocations::calls;
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) noexcept {
  ++coyote::test::allocations::calls;
  return __libc_realloc(old, size);
}
void* memalign(std::size_t alignment, std::size_t size) noexcept {
  ++coyote::test::allocations::calls;
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  ++coyote::test::allocations::calls;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) noexcept {
  ++coyote::test::allocations::calls;
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? ENOMEM : 0;
}
}
#endif

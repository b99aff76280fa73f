// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include <doctest/doctest.h>
#include "coyote/core/cuda/resident.cuh"
#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/cuda/rowwise.cuh"

namespace {

using namespace coyote;
namespace cuda = coyote::cuda;  // not the toolkit's

constexpr Index too_many = Index{1} << 42;  // bytes: more than any card has

/// What work() throws; fails if nothing.
template <class Work>
Error thrown_by(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error;
  }
  FAIL("nothing was thrown");
  return {"", "", ""};
}
bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A kernel still runs, in this context and its stream, and no error of before is left behind.
void check_works(Context<Cuda>& context) {
  CHECK(cudaPeekAtLastError() == cudaSuccess);
  const auto frame = context.frame();
  const Rows<float> x = context.make<float>(3, 5), y = context.make<float>(3, 5);
  clear<float>(context, x);
  add<float>(context, x, x, y);
  std::vector<float> host(15, 1);
  COYOTE_CUDA_CHECK(cudaMemcpyAsync(host.data(), y.data, 15 * sizeof(float), cudaMemcpyDeviceToHost, context.stream()));
  context.synchronise();
  CHECK(host == std::vector<float>(15, 0.0f));
}

TEST_CASE("a device too old is refused by its number") {
  const Error error = thrown_by([] { cuda::require_capability({.major = 7, .minor = 5}); });
  CHECK(says(error.required(), "8.0"));
  CHECK(error.came() == "7.5");
  CHECK_NOTHROW(cuda::require_capability({.major = 8, .minor = 0}));
  CHECK_NOTHROW(cuda::require_capability({.major = 12, .minor = 1}));
}

TEST_CASE("a device that is not there is refused, and the others still serve") {
  int count = 0;
  COYOTE_CUDA_CHECK(cudaGetDeviceCount(&count));
  for (const int number : {-1, count, 1000}) {
    const Error error = thrown_by([&] { Context<Cuda> context(DeviceNumber{number}); });
    CHECK(says(error.required(), "a device number below"));
    CHECK(error.came() == words(number));
  }
  Context<Cuda> context;
  check_works(context);
}

TEST_CASE("more memory than the card has: the error says so, and the context is as before") {
  Context<Cuda> context;
  const auto outer = context.frame();
  const Rows<float> kept = context.make<float>(1, 100);
  const std::size_t peak = context.peak_memory();
  const std::uint64_t generation = context.arena().generation();
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto frame = context.frame();
    const Error error = thrown_by([&] { context.make<std::byte>(1, too_many); });
    CHECK(error.where() == "cudaMalloc");
    CHECK(says(error.required(), words(too_many)));
    CHECK(says(error.came(), "cudaErrorMemoryAllocation"));
    CHECK(says(error.came(), "are free"));
  }
  CHECK(context.peak_memory() == peak);
  CHECK(context.arena().generation() == generation);
  // The next tensor lies behind the one before, in the same block.
  CHECK(context.make<float>(1, 1).data == kept.data + 128);
  check_works(context);

  const Error error = thrown_by([] { cuda::DeviceArray<float> array(too_many / 4); });
  CHECK(error.where() == "cudaMalloc");
  check_works(context);
}

__global__ void uses_shared_memory(float* to) {
  cuda::follow();
  extern __shared__ float shared[];
  shared[threadIdx.x] = 1;
  if (to != nullptr) *to = shared[0];
}

TEST_CASE("a launch that fails names its kernel and leaves nothing behind") {
  Context<Cuda> context;
  const auto bytes = static_cast<std::size_t>(context.limits().shared_memory) + 1024;
  Error error = thrown_by([&] {
    cuda::launch_following(context, uses_shared_memory, "launch of uses_shared_memory", 1, 32, bytes,
                           static_cast<float*>(nullptr));
  });
  CHECK(says(error.where(), "launch of uses_shared_memory"));
  CHECK(says(error.came(), "cudaErrorInvalidValue"));
  check_works(context);
  error = thrown_by([&] {
    uses_shared_memory<<<1, 4096, 0, context.stream()>>>(nullptr);
    COYOTE_CUDA_CHECK_LAUNCH("uses_shared_memory");
  });
  CHECK(says(error.where(), "launch of uses_shared_memory"));
  CHECK(says(error.where(), "errors_test.cu"));
  CHECK(says(error.came(), "cudaErrorInvalid"));
  check_works(context);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublasLt.h>

#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "coyote/core/context.hpp"
#include "coyote/core/cuda/bf16.cuh"
#include "coyote/core/cuda/memory.cuh"
#include "coyote/core/cuda/product_plans.cuh"
#include "coyote/core/mixer.hpp"

namespace coyote::inline v0 {

template <class S>
inline constexpr bool computes_in<Cuda, S> = std::is_same_v<S, float> || std::is_same_v<S, bf16>;

/// Which GPU: its number as the CUDA runtime counts.
struct DeviceNumber {
  int value = 0;
};

namespace cuda {

/// What kernels and their tuning ask of a device.
struct DeviceLimits {
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  int shared_memory = 0;  ///< bytes that a block can have at most
  std::size_t l2 = 0;     ///< bytes of the second-level cache

  bool has_hopper_code = false;  ///< the kernels that run on it were compiled for 9.0a

  /// Hopper's own instructions (wgmma, bulk copies) run on 9.0 exactly, in code compiled for 9.0a.
  constexpr bool is_hopper() const { return major == 9 && minor == 0 && has_hopper_code; }
};

inline namespace COYOTE_CUDA_ARCHITECTURES {

inline constexpr std::size_t hopper_code_mark = 2048;

/// Its shared memory tells which code of a program runs on the current device: only what is compiled for 9.0a has any.
template <int = 0>
__global__ void mark_hopper_code_kernel([[maybe_unused]] int* to) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ int marks[hopper_code_mark / sizeof(int)];
  marks[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  to[threadIdx.x] = marks[threadIdx.x ^ 1];
#endif
}
inline bool has_hopper_code() {
  cudaFuncAttributes attributes{};
  COYOTE_CUDA_CHECK(cudaFuncGetAttributes(&attributes, mark_hopper_code_kernel<0>));
  return attributes.sharedSizeBytes >= hopper_code_mark;
}

}  // namespace COYOTE_CUDA_ARCHITECTURES

/// Throws unless the kernels run on such a device.
inline void require_capability(const DeviceLimits& limits) {
  if (limits.major < 8) {
    throw Error("Context<Cuda>", "a device of compute capability 8.0 or later", words(limits.major, ".", limits.minor));
  }
}

/// The sequences of a batch, as kernels see them.
struct Sequences {
  const std::int32_t* offsets = nullptr;    // [sequences + 1], or absent: all have `length` rows
  const std::int32_t* positions = nullptr;  // [rows], or absent
  std::int32_t sequences = 0;
  std::int32_t length = 0;  // of the longest
  std::int64_t rows = 0;

  __host__ __device__ std::int64_t begin(std::int32_t s) const {
    return offsets != nullptr ? offsets[s] : static_cast<std::int64_t>(s) * length;
  }
  __host__ __device__ std::int32_t size(std::int32_t s) const {
    return offsets != nullptr ? offsets[s + 1] - offsets[s] : length;
  }
  __host__ __device__ std::int32_t position(std::int64_t row) const {
    return positions != nullptr ? positions[row]
                                : static_cast<std::int32_t>(static_cast<std::uint32_t>(row) % static_cast<std::uint32_t>(length));
  }
};

}  // namespace cuda

namespace cuda {

/// Numbers that operations sum up to, each in a place of its own on the device.
enum class Slot : int { loss, right, squares, auxiliary, count };

/// Partial sums for gradients of parameters, of which every block of a kernel leaves a row.
struct PartialSums {
  Rows<float> rows;
  bool waits = false;  ///< they stay until the pass ends, see GatheredSums
};
/// The columns of partial sums that belong to the elements of a gradient, row by row.
struct WaitingSum {
  Rows<const float> partial;
  Rows<float> target;
};

/// A number that the device works out: reading it waits for that. It holds until the same operation runs again.
class Result {
 public:
  Result(Context<Cuda>& context, Slot slot) : context_(&context), slot_(slot) {}
  operator double() const;
  /// Where kernels find it.
  double* data() const;

 private:
  Context<Cuda>* context_;
  Slot slot_;
};

/// What differs from one training step to the next, for kernels in a captured graph.
struct StepNumbers {
  std::uint64_t step = 0;  ///< names the dropout draws; AdamW's t is one more
  double rate = 0;         ///< learning rate
  friend bool operator==(const StepNumbers&, const StepNumbers&) = default;
};

}  // namespace cuda

/// A stream of work on one GPU, with the memory for it. Tensors are views into the device's memory; they live until the frame
/// in which they were made ends. Kernels run in order, later than the calls that launch them: nothing of a forward or backward
/// pass waits for the host. One context serves one thread of the host at a time.
/// Errors: no device of that number; a device older than compute capability 8.0; out of memory, with what was asked.
template <>
class Context<Cuda> : public ContextBase {
 public:
  using Value = cuda::Result;
  template <class T>
  using Tensor = Rows<T>;
  using DeviceArena = BasicArena<cuda::DeviceMemory>;

  /// Gives back, when it goes, all tensors made since it came: later work of the same stream may then reuse their memory.
  class Frame {
   public:
    explicit Frame(DeviceArena& arena) : arena_(arena), mark_(arena.mark()) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { arena_.release(mark_); }

   private:
    DeviceArena& arena_;
    DeviceArena::Mark mark_;
  };

  explicit Context(DeviceNumber device = {})
      : resources_(std::make_unique<Resources>(device)), arena_(resources_->memory()), sums_arena_(resources_->memory()) {}
  Context(Context&&) noexcept = default;

  /// An uninitialised activation or scratch matrix in the device's memory, its data on a boundary of 256 bytes. Rows are
  /// contiguous.
  template <class T>
  Rows<T> make(Index rows, Index width) {
    return {static_cast<T*>(arena_.allocate(static_cast<std::size_t>(rows * width) * sizeof(T))), rows, width};
  }
  [[nodiscard]] Frame frame() { return Frame(arena_); }

  /// The stream in which work given now runs.
  cudaStream_t stream() const { return is_beside_ ? resources_->side : resources_->stream; }
  cublasLtHandle_t blas() const { return resources_->blas; }
  cuda::ProductPlans& product_plans() { return resources_->product_plans; }
  const cuda::DeviceLimits& limits() const { return resources_->limits; }
  /// Waits until all work given so far is done, and throws what went wrong with it.
  void synchronise() const { COYOTE_CUDA_CHECK(cudaStreamSynchronize(stream())); }

  /// Gives work() to a second stream, where it runs beside what follows until `meet`. It starts when all that was given so far is
  /// done; the memory that it uses must stay its own until then, so work() makes no tensors.
  template <class Work>
  void beside(Work&& work) {
    const Resources& r = *resources_;
    COYOTE_CUDA_CHECK(cudaEventRecord(r.forked, r.stream));
    COYOTE_CUDA_CHECK(cudaStreamWaitEvent(r.side, r.forked));
    struct Scope {
      bool& flag;
      explicit Scope(bool& f) : flag(f) { flag = true; }
      ~Scope() { flag = false; }
    };
    {
      const Scope scope(is_beside_);
      work();
    }
    COYOTE_CUDA_CHECK(cudaEventRecord(r.joined, r.side));
  }
  /// What follows waits for all work beside.
  void meet() noexcept { static_cast<void>(cudaStreamWaitEvent(stream(), resources_->joined)); }

  /// Copies bytes of the host's to the device in stream order; the host may change its own when the call returns.
  void upload(const void* host, void* device, std::size_t bytes) {
    std::byte* staged = stage(bytes);
    std::memcpy(staged, host, bytes);
    send(staged, device, bytes);
  }
  /// Page-locked memory to fill before `send`: it waits until what was sent before has left.
  std::byte* stage(std::size_t bytes) {
    Resources& r = *resources_;
    COYOTE_CUDA_CHECK(cudaEventSynchronize(r.sent));
    if (static_cast<std::size_t>(r.staging.size()) < bytes)
      r.staging = cuda::PinnedArray<std::byte>(static_cast<Index>(2 * bytes));
    return r.staging.data();
  }
  void send(const std::byte* staged, void* device, std::size_t bytes) {
    COYOTE_CUDA_CHECK(cudaMemcpyAsync(device, staged, bytes, cudaMemcpyHostToDevice, stream()));
    COYOTE_CUDA_CHECK(cudaEventRecord(resources_->sent, stream()));
  }

  /// `send`, beside the work given so far, to where only `take_ahead` reads.
  void send_ahead(const std::byte* staged, void* device, std::size_t bytes) {
    const Resources& r = *resources_;
    COYOTE_CUDA_CHECK(cudaStreamWaitEvent(r.ahead, r.taken));
    COYOTE_CUDA_CHECK(cudaMemcpyAsync(device, staged, bytes, cudaMemcpyHostToDevice, r.ahead));
    COYOTE_CUDA_CHECK(cudaEventRecord(r.sent, r.ahead));
    COYOTE_CUDA_CHECK(cudaEventRecord(r.landed, r.ahead));
  }
  /// What follows finds a copy of what was sent ahead at `to`.
  void take_ahead(const void* from, void* to, std::size_t bytes) {
    const Resources& r = *resources_;
    COYOTE_CUDA_CHECK(cudaStreamWaitEvent(r.stream, r.landed));
    COYOTE_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, r.stream));
    COYOTE_CUDA_CHECK(cudaEventRecord(r.taken, r.stream));
  }

  /// The place of a number that an operation is about to work out.
  cuda::Result value(cuda::Slot slot) {
    fetched_ = coming_ = false;
    return {*this, slot};
  }
  /// Sends all these numbers to the host, behind the work so far.
  void send_values() {
    COYOTE_CUDA_CHECK(cudaMemcpyAsync(resources_->host_slots.data(), resources_->slots.data(), resources_->slots.bytes(),
                                      cudaMemcpyDeviceToHost, stream()));
    expect_values();
  }
  /// Says that the work so far, a graph's, has sent them.
  void expect_values() { coming_ = true; }
  double* slot(cuda::Slot slot) { return resources_->slots.data() + static_cast<int>(slot); }
  double fetch(cuda::Slot slot) {
    if (!fetched_) {
      if (!coming_) send_values();
      synchronise();
      coming_ = false;
      fetched_ = true;
    }
    return resources_->host_slots[static_cast<int>(slot)];
  }

  /// While a training step is captured or replayed, its numbers are read from the device, elsewhere from the host: then these
  /// are absent.
  const cuda::StepNumbers* device_numbers() const { return step_numbers_; }
  const std::uint64_t* device_step() const { return step_numbers_ != nullptr ? &step_numbers_->step : nullptr; }
  /// Says that a step begins whose numbers kernels find at `numbers`, on the device; nullptr: that it has ended.
  void use_numbers(const cuda::StepNumbers* numbers) {
    if (numbers != nullptr) fetched_ = coming_ = false;
    step_numbers_ = numbers;
  }

  /// Says that `copy` holds the `size` parameters at `values` rounded to bf16, until it says otherwise.
  void use_rounded(const float* values, Index size, const bf16* copy) { rounded_ = {values, size, copy}; }
  /// The rounded copy of a matrix of parameters; no data when there is none, or its rows do not lie on 16 bytes.
  Rows<const bf16> rounded(Rows<const float> m) const {
    const Index at = m.data - rounded_.values;
    const bool known = rounded_.copy != nullptr && at >= 0 && at < rounded_.size && at % 8 == 0 && m.stride % 8 == 0;
    return known ? Rows<const bf16>(rounded_.copy + at, m.rows, m.width, m.stride) : Rows<const bf16>();
  }

  /// While it lives, what a decoding step begins with is settled: all work given before (parameters, their rounded copy, the
  /// step's numbers, the states) ends before the step's first kernel starts, and nothing but the step's own kernels writes. A
  /// kernel that starts early may then read these ahead of the kernels before it.
  class Settled {
   public:
    explicit Settled(Context& context) : context_(context) {
      context_.settled_ = true;
      context_.resources_->starts_late = true;
    }
    Settled(const Settled&) = delete;
    Settled& operator=(const Settled&) = delete;
    ~Settled() { context_.settled_ = false; }

   private:
    Context& context_;
  };
  bool is_settled() const { return settled_; }
  /// Must the kernel about to be launched wait until all before it has ended? The first one of a settled step does.
  bool starts_late() const { return std::exchange(resources_->starts_late, false); }
  /// Is all of this settled that is there? Parameters and their rounded copy are; what lies elsewhere may come from a step's
  /// kernels.
  template <class... Data>
  bool is_settled(const Data*... data) const {
    return settled_ && ((data == nullptr || is_parameter(data)) && ...);
  }

  /// Memory for partial sums: in the current frame, or until the end of the pass while it gathers them.
  cuda::PartialSums make_partial_sums(Index rows, Index width) {
    if (!gathers_sums_) return {make<float>(rows, width), false};
    const auto bytes = static_cast<std::size_t>(rows * width) * sizeof(float);
    return {{static_cast<float*>(sums_arena_.allocate(bytes)), rows, width}, true};
  }
  DeviceArena& sums_arena() { return sums_arena_; }
  std::vector<cuda::WaitingSum>& waiting_sums() { return waiting_sums_; }
  void gather_sums(bool on) { gathers_sums_ = on; }

  DeviceArena& arena() { return arena_; }
  /// Changes whenever memory comes or goes: with an equal one, a pass of the same sizes finds its tensors at the same addresses.
  std::uint64_t generation() const { return arena_.generation() + sums_arena_.generation(); }

  /// The largest number of bytes of activations and scratch in use so far.
  std::size_t peak_memory() const { return arena_.peak() + sums_arena_.peak(); }
  /// See BasicArena::poison.
  void poison(bool on) {
    arena_.poison(on);
    sums_arena_.poison(on);
  }

 private:
  /// Is this one of the parameters of which there is a rounded copy, or in the copy?
  bool is_parameter(const void* data) const {
    const auto within = [&](const auto* begin) {
      const void *first = begin, *last = begin + rounded_.size;
      return std::greater_equal<>{}(data, first) && std::less<>{}(data, last);
    };
    return within(rounded_.values) || within(rounded_.copy);
  }

  struct Resources {
    cudaStream_t stream = nullptr, side = nullptr, ahead = nullptr;
    cublasLtHandle_t blas = nullptr;
    cudaEvent_t sent = nullptr, forked = nullptr, joined = nullptr, landed = nullptr, taken = nullptr;
    cuda::DeviceLimits limits;
    cuda::ProductPlans product_plans;
    cuda::PinnedArray<std::byte> staging;
    cuda::PinnedArray<double> host_slots;
    cuda::DeviceArray<double> slots;
    bool starts_late = false;

    explicit Resources(DeviceNumber device) {
      int count = 0;
      const cudaError_t status = cudaGetDeviceCount(&count);
      if (status != cudaSuccess || count == 0) {
        static_cast<void>(cudaGetLastError());
        throw Error("Context<Cuda>", "an NVIDIA GPU and its driver",
                    status == cudaSuccess ? words("no device") : words(cudaGetErrorString(status)));
      }
      if (device.value < 0 || device.value >= count) {
        throw Error("Context<Cuda>", words("a device number below ", count), words(device.value));
      }
      COYOTE_CUDA_CHECK(cudaSetDevice(device.value));
      const auto attribute = [&](cudaDeviceAttr name) {
        int value = 0;
        COYOTE_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, device.value));
        return value;
      };
      limits = {.major = attribute(cudaDevAttrComputeCapabilityMajor),
                .minor = attribute(cudaDevAttrComputeCapabilityMinor),
                .multiprocessors = attribute(cudaDevAttrMultiProcessorCount),
                .shared_memory = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                .l2 = static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize))};
      cuda::require_capability(limits);
      limits.has_hopper_code = cuda::has_hopper_code();
      host_slots = cuda::PinnedArray<double>(static_cast<Index>(cuda::Slot::count));
      slots = cuda::DeviceArray<double>(static_cast<Index>(cuda::Slot::count));
      for (cudaEvent_t* event : {&sent, &forked, &joined, &landed, &taken}) {
        COYOTE_CUDA_CHECK(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
      }
      for (cudaStream_t* made : {&stream, &side, &ahead})
        COYOTE_CUDA_CHECK(cudaStreamCreateWithFlags(made, cudaStreamNonBlocking));
      if (const cublasStatus_t made = cublasLtCreate(&blas); made != CUBLAS_STATUS_SUCCESS) {
        blas = nullptr;
        release();
        throw Error("Context<Cuda>", "a cuBLASLt handle", words(cublasLtGetStatusString(made)));
      }
    }
    Resources(const Resources&) = delete;
    Resources& operator=(const Resources&) = delete;
    ~Resources() { release(); }
    void release() noexcept {
      cudaStreamSynchronize(ahead);
      cudaStreamSynchronize(side);
      cudaStreamSynchronize(stream);
      if (blas != nullptr) cublasLtDestroy(blas);
      for (const cudaEvent_t event : {sent, forked, joined, landed, taken}) cudaEventDestroy(event);
      for (const cudaStream_t made : {ahead, side, stream}) cudaStreamDestroy(made);
    }
    cuda::DeviceMemory memory() const { return {stream}; }
  };

  std::unique_ptr<Resources> resources_;
  DeviceArena arena_, sums_arena_;  // they go before the stream
  std::vector<cuda::WaitingSum> waiting_sums_;
  const cuda::StepNumbers* step_numbers_ = nullptr;
  bool gathers_sums_ = false, fetched_ = false, coming_ = false, is_beside_ = false, settled_ = false;
  struct {
    const float* values = nullptr;
    Index size = 0;
    const bf16* copy = nullptr;
  } rounded_;
};

/// On the device that is current.
template <>
inline Context<Cuda> make_context<Cuda>() {
  DeviceNumber device;
  COYOTE_CUDA_CHECK(cudaGetDevice(&device.value));
  return Context<Cuda>(device);
}

inline cuda::Result::operator double() const { return context_->fetch(slot_); }
inline double* cuda::Result::data() const { return context_->slot(slot_); }

namespace cuda {

/// The sequences of a batch for kernels. Packed sequences need the batch's arrays on the device (see `resident`).
inline Sequences sequences_of(const Batch& batch) {
  Sequences result{.sequences = static_cast<std::int32_t>(batch.sequences),
                   .length = static_cast<std::int32_t>(batch.length),
                   .rows = batch.rows()};
  if (!batch.offsets.empty()) {
    if (batch.device == nullptr) throw Error("Cuda", "a packed batch made resident on the device", "one on the host");
    result.offsets = batch.device->offsets;
    result.positions = batch.device->positions;
  }
  return result;
}

}  // namespace cuda
}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/context.cuh"

namespace coyote::inline v0::cuda {

/// A sequence of launches that is replayed as one.
class Graph {
 public:
  /// Captures what work() gives to the context's stream, which runs none of it yet.
  template <class Work>
  Graph(Context<Cuda>& context, Work&& work) {
    COYOTE_CUDA_CHECK(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal));
    try {
      work();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(context.stream(), &graph_));
      static_cast<void>(cudaGetLastError());
      destroy();
      throw;
    }
    COYOTE_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &graph_));
    if (const cudaError_t made = cudaGraphInstantiate(&executable_, graph_, 0); made != cudaSuccess) {
      destroy();
      COYOTE_CUDA_CHECK(made);
    }
  }
  Graph(Graph&& other) noexcept
      : graph_(std::exchange(other.graph_, nullptr)), executable_(std::exchange(other.executable_, nullptr)) {}
  Graph& operator=(Graph&&) = delete;
  ~Graph() { destroy(); }

  /// Gives the kernel with which the graph begins other arguments, from the next launch on.
  template <class... Arguments>
  void begin_with(Arguments... arguments) const {
    cudaGraphNode_t first = nullptr;
    std::size_t count = 1;
    cudaKernelNodeParams kernel{};
    COYOTE_CUDA_CHECK(cudaGraphGetRootNodes(graph_, &first, &count));
    COYOTE_CUDA_CHECK(cudaGraphKernelNodeGetParams(first, &kernel));
    void* pointers[] = {&arguments...};
    kernel.kernelParams = pointers;
    COYOTE_CUDA_CHECK(cudaGraphExecKernelNodeSetParams(executable_, first, &kernel));
  }
  void launch(Context<Cuda>& context) const { COYOTE_CUDA_CHECK(cudaGraphLaunch(executable_, context.stream())); }

 private:
  void destroy() noexcept {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
  }

  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace coyote::inline v0::cuda

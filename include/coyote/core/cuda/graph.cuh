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
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(context.stream(), &graph));
      static_cast<void>(cudaGetLastError());
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    COYOTE_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &graph));
    const cudaError_t made = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    COYOTE_CUDA_CHECK(made);
  }
  Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
  Graph& operator=(Graph&&) = delete;
  ~Graph() {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }

  void launch(Context<Cuda>& context) const { COYOTE_CUDA_CHECK(cudaGraphLaunch(executable_, context.stream())); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace coyote::inline v0::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublasLt.h>

#include <vector>

#include "coyote/core/types.hpp"

namespace coyote::inline v0::cuda {

/// Everything that cuBLASLt's choice of an algorithm for a product depends on; see operations/cuda/product.cuh.
struct ProductKey {
  Index rows, columns, depth, a_stride, b_stride, c_stride, added_stride;
  bool a_across, b_across, adds, biased;
  cudaDataType in, out;
  friend bool operator==(const ProductKey&, const ProductKey&) = default;
};

/// The algorithms found so far: asking takes longer than a small product.
class ProductPlans {
 public:
  /// The algorithm for products of this shape, by find(algorithm) when they come for the first time; absent when it said that
  /// there is none. Valid until the next call.
  template <class Find>
  const cublasLtMatmulAlgo_t* get(const ProductKey& key, Find&& find) {
    for (const Plan& plan : plans_) {
      if (plan.key == key) return plan.exists ? &plan.algorithm : nullptr;
    }
    Plan plan{key, {}, false};
    plan.exists = find(plan.algorithm);
    plans_.push_back(plan);
    return plan.exists ? &plans_.back().algorithm : nullptr;
  }

 private:
  struct Plan {
    ProductKey key;
    cublasLtMatmulAlgo_t algorithm;
    bool exists;
  };
  std::vector<Plan> plans_;
};

}  // namespace coyote::inline v0::cuda

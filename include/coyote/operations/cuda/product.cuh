// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <type_traits>

#include "coyote/core/cuda/context.cuh"

namespace coyote::inline v0::cuda {

/// A matrix as a product sees it: element (i, j) at data[i * down + j * across], where one of the two steps is 1.
template <class T>
struct Operand {
  const T* data;
  Index down, across;

  /// The matrix of a view, and its transpose.
  static Operand of(Rows<const T> m) { return {m.data, m.stride, 1}; }
  static Operand transposed(Rows<const T> m) { return {m.data, 1, m.stride}; }
  Index stride() const { return down == 1 ? across : down; }
};

/// Throws what a call of cuBLASLt reports.
inline void check_blas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(call, "success", words(cublasLtGetStatusString(status)));
}

template <class T>
inline constexpr cudaDataType blas_type = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

inline namespace COYOTE_CUDA_ARCHITECTURES {

/// c (=|+=) a b by plain tiles of shared memory: for operands that are too small or lie too oddly for cuBLASLt. Any of the
/// types may differ; sums are in float, in order of k.
template <class A, class B, class C>
__global__ void __launch_bounds__(256) plain_product_kernel(Operand<A> a, Operand<B> b, const float* bias, C* c, Index stride,
                                                            Index rows, Index columns, Index depth, bool adds) {
  constexpr int tile = 32;
  __shared__ float left[tile][tile + 1], right[tile][tile + 1];
  const int x = threadIdx.x % tile, y = threadIdx.x / tile;  // 32 x 8 threads, four rows each
  const Index row = Index{blockIdx.y} * tile, column = Index{blockIdx.x} * tile;
  float sums[4] = {};
  for (Index k = 0; k < depth; k += tile) {
    for (int r = y; r < tile; r += 8) {
      left[r][x] = row + r < rows && k + x < depth ? to_float(a.data[(row + r) * a.down + (k + x) * a.across]) : 0.0f;
      right[r][x] = k + r < depth && column + x < columns ? to_float(b.data[(k + r) * b.down + (column + x) * b.across]) : 0.0f;
    }
    __syncthreads();
    for (int n = 0; n < tile; ++n) {
      for (int q = 0; q < 4; ++q) sums[q] += left[y + 8 * q][n] * right[n][x];
    }
    __syncthreads();
  }
  for (int q = 0; q < 4; ++q) {
    const Index i = row + y + 8 * q, j = column + x;
    if (i >= rows || j >= columns) continue;
    const float value = sums[q] + (bias != nullptr ? bias[j] : 0.0f);
    C& to = c[i * stride + j];
    to = from_float<C>(adds ? to_float(to) + value : value);
  }
}

}  // namespace COYOTE_CUDA_ARCHITECTURES

template <class A, class B, class C>
void plain_product(Context<Cuda>& context, Operand<A> a, Operand<B> b, const float* bias, Rows<C> c, Index depth, bool adds) {
  if (c.rows == 0 || c.width == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(c.width, 32)), static_cast<unsigned>(ceil_div(c.rows, 32)));
  if (ceil_div(c.rows, 32) > 65535) {  // the grid's second extent is short
    constexpr Index part = Index{65535} * 32;
    for (Index first = 0; first < c.rows; first += part) {
      const Index count = c.rows - first < part ? c.rows - first : part;
      plain_product<A, B, C>(context, {a.data + first * a.down, a.down, a.across}, b, bias, c.slice(first, count), depth, adds);
    }
    return;
  }
  plain_product_kernel<A, B, C><<<grid, 256, 0, context.stream()>>>(a, b, bias, c.data, c.stride, c.rows, c.width, depth, adds);
  COYOTE_CUDA_CHECK_LAUNCH("plain_product");
}

/// Do all rows of an operand begin on 16 bytes?
template <class T>
bool is_aligned(const T* data, Index stride) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride * static_cast<Index>(sizeof(T)) % 16 == 0;
}

/// One description of a product for cuBLASLt, in its column-major order: there our row-major c = a b is c^T = b^T a^T.
class ProductCall {
 public:
  explicit ProductCall(const ProductKey& key) {
    check_blas(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    // An operand whose rows are contiguous here is, read column by column, its own transpose: no transposition is asked.
    const auto set = [&](cublasLtMatmulDescAttributes_t name, auto value) {
      check_blas(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, key.b_across ? CUBLAS_OP_N : CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_TRANSB, key.a_across ? CUBLAS_OP_N : CUBLAS_OP_T);
    const auto layout = [](cublasLtMatrixLayout_t* to, cudaDataType type, Index contiguous, Index other, Index stride) {
      check_blas(
          cublasLtMatrixLayoutCreate(to, type, static_cast<std::uint64_t>(contiguous), static_cast<std::uint64_t>(other), stride),
          "cublasLtMatrixLayoutCreate");
    };
    layout(&b, key.in, key.b_across ? key.columns : key.depth, key.b_across ? key.depth : key.columns, key.b_stride);
    layout(&a, key.in, key.a_across ? key.depth : key.rows, key.a_across ? key.rows : key.depth, key.a_stride);
    layout(&c, key.out, key.columns, key.rows, key.c_stride);
    layout(&added, key.out, key.columns, key.rows, key.added_stride);
    if (key.biased) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  }
  ProductCall(const ProductCall&) = delete;
  ProductCall& operator=(const ProductCall&) = delete;
  ~ProductCall() {
    for (const cublasLtMatrixLayout_t m : {a, b, c, added}) {
      if (m != nullptr) cublasLtMatrixLayoutDestroy(m);
    }
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
  }

  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, added = nullptr;
};

inline constexpr std::size_t product_workspace = std::size_t{32} << 20;

/// c = a b (+ bias, a row in c's type) (+ added, absent or of c's shape, or c itself) by cuBLASLt; false when it has no algorithm
/// for such operands. All data and strides on boundaries of 16 bytes. Products in float are exact ones, not TF32.
template <class T, class C>
bool blas_product(Context<Cuda>& context, Operand<T> a, Operand<T> b, const C* bias, Rows<C> c, Index depth,
                  std::type_identity_t<Rows<const C>> added) {
  const bool adds = added.rows > 0;
  if (!adds) added = c;
  const ProductKey key{c.rows,        c.width,       depth, a.stride(),      b.stride(),   c.stride,    added.stride,
                       a.across == 1, b.across == 1, adds,  bias != nullptr, blas_type<T>, blas_type<C>};
  const ProductCall call(key);
  if (bias != nullptr) {
    check_blas(cublasLtMatmulDescSetAttribute(call.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)),
               "cublasLtMatmulDescSetAttribute");
  }
  const cublasLtMatmulAlgo_t* algorithm = context.product_plans().get(key, [&](cublasLtMatmulAlgo_t& found) {
    cublasLtMatmulPreference_t preference = nullptr;
    check_blas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const std::uint32_t boundary = 16;
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &product_workspace,
                                         sizeof(product_workspace));
    for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      cublasLtMatmulPreferenceSetAttribute(preference, name, &boundary, sizeof(boundary));
    }
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(context.blas(), call.operation, call.b, call.a, call.added,
                                                                 call.c, preference, 1, &result, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    found = result.algo;
    return status == CUBLAS_STATUS_SUCCESS && count > 0;
  });
  if (algorithm == nullptr) return false;
  const auto frame = context.frame();
  std::byte* workspace = context.make<std::byte>(1, product_workspace).data;
  const float one = 1, add = adds ? 1.0f : 0.0f;
  check_blas(cublasLtMatmul(context.blas(), call.operation, &one, b.data, call.b, a.data, call.a, &add, added.data, call.added,
                            c.data, call.c, algorithm, workspace, product_workspace, context.stream()),
             "cublasLtMatmul");
  return true;
}

}  // namespace coyote::inline v0::cuda

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfloat>
#include <span>

#include "coyote/operations/cuda/cross_entropy_wgmma.cuh"
#include "coyote/operations/cuda/linear.cuh"

namespace coyote::inline v0 {
namespace cuda {
inline namespace COYOTE_CUDA_ARCHITECTURES {

/// One row of scores a block: its negative log likelihood, its likeliest entry (the first of equals), and, where `slopes` is
/// given, weight * (softmax - [label]) in the type of activations. A NaN among the scores makes the loss NaN. slopes may be the
/// scores themselves.
template <class S>
__global__ void __launch_bounds__(256) row_losses_kernel(const float* scores, int vocabulary, const Token* labels, float weight,
                                                         double* losses, Token* predicted, S* slopes) {
  constexpr int threads = 256;
  const Index row = blockIdx.x;
  const float* own = scores + row * vocabulary;
  // Every thread's largest score and the sum of exp(score - largest) so far; vocabularies come in fours where they can.
  float most = -FLT_MAX, sum = 0;
  int best = vocabulary;
  const auto take = [&](float x, int v) {
    if (x > most || (x == most && v < best)) {
      sum = sum * __expf(most - x) + 1;
      most = x;
      best = v;
    } else {
      sum += __expf(x - most);
    }
  };
  const bool fours = vocabulary % 4 == 0;
  if (fours) {
    for (int v = 4 * static_cast<int>(threadIdx.x); v < vocabulary; v += 4 * threads) {
      const float4 x = *reinterpret_cast<const float4*>(own + v);
      take(x.x, v);
      take(x.y, v + 1);
      take(x.z, v + 2);
      take(x.w, v + 3);
    }
  } else {
    for (int v = threadIdx.x; v < vocabulary; v += threads) take(own[v], v);
  }
  __shared__ float mosts[threads / 32], sums[threads / 32];
  __shared__ int bests[threads / 32];
  const auto join = [&](float other_most, float other_sum, int other_best) {
    if (other_most > most || (other_most == most && other_best < best)) best = other_best;
    const float larger = fmaxf(most, other_most);
    sum = sum * __expf(most - larger) + other_sum * __expf(other_most - larger);
    most = larger;
  };
  for (int reach = 16; reach > 0; reach /= 2) {
    const float other_most = __shfl_xor_sync(0xFFFFFFFFu, most, reach), other_sum = __shfl_xor_sync(0xFFFFFFFFu, sum, reach);
    const int other_best = __shfl_xor_sync(0xFFFFFFFFu, best, reach);
    join(other_most, other_sum, other_best);
  }
  if (threadIdx.x % 32 == 0) {
    mosts[threadIdx.x / 32] = most;
    sums[threadIdx.x / 32] = sum;
    bests[threadIdx.x / 32] = best;
  }
  __syncthreads();
  most = mosts[0];
  sum = sums[0];
  best = bests[0];
  for (int w = 1; w < threads / 32; ++w) join(mosts[w], sums[w], bests[w]);
  const Token label = labels[row];
  if (threadIdx.x == 0) {
    losses[row] = log(static_cast<double>(sum)) + (static_cast<double>(most) - static_cast<double>(own[label]));
    if (predicted != nullptr) predicted[row] = best < vocabulary ? best : 0;
  }
  if (slopes == nullptr) return;
  __syncthreads();  // the label's score has been read: slopes may lie where the scores do
  S* to = slopes + row * vocabulary;
  const float scale = weight / sum;
  const auto slope = [&](float x, int v) { return scale * __expf(x - most) - (v == label ? weight : 0.0f); };
  if (fours) {
    for (int v = 4 * static_cast<int>(threadIdx.x); v < vocabulary; v += 4 * threads) {
      const float4 x = *reinterpret_cast<const float4*>(own + v);
      S four[4] = {from_float<S>(slope(x.x, v)), from_float<S>(slope(x.y, v + 1)), from_float<S>(slope(x.z, v + 2)),
                   from_float<S>(slope(x.w, v + 3))};
      using Four = std::conditional_t<sizeof(S) == 4, uint4, uint2>;
      *reinterpret_cast<Four*>(to + v) = *reinterpret_cast<const Four*>(four);
    }
  } else {
    for (int v = threadIdx.x; v < vocabulary; v += threads) to[v] = from_float<S>(slope(own[v], v));
  }
}

inline constexpr int held_fours = 8;  ///< what a thread of held_row_losses_kernel holds of a row

/// The same for rows of at most 8192 scores, in fours: each is read and its exponential made once. The label's own score joins
/// the sum last, so that small losses do not cancel.
template <class S>
__global__ void __launch_bounds__(256) held_row_losses_kernel(const float* scores, int vocabulary, const Token* labels,
                                                              float weight, double* losses, Token* predicted, S* slopes) {
  constexpr int threads = 256;
  const Index row = blockIdx.x;
  const float* const own = scores + row * vocabulary;
  const int label = labels[row];
  const float label_score = own[label];  // before a barrier: slopes may lie where the scores do
  const auto column = [&](int n) { return 4 * (n * threads + static_cast<int>(threadIdx.x)); };
  float4 held[held_fours];
#pragma unroll
  for (int n = 0; n < held_fours; ++n) {
    held[n] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    if (column(n) < vocabulary) held[n] = *reinterpret_cast<const float4*>(own + column(n));
  }
  float most = -FLT_MAX;
  int best = vocabulary;
  const auto each = [&](auto&& f) {
#pragma unroll
    for (int n = 0; n < held_fours; ++n) {
      f(held[n].x, column(n));
      f(held[n].y, column(n) + 1);
      f(held[n].z, column(n) + 2);
      f(held[n].w, column(n) + 3);
    }
  };
  each([&](float x, int v) {
    if (x > most) {
      most = x;
      best = v;
    }
  });
  __shared__ float mosts[threads / 32];
  __shared__ int bests[threads / 32];
  const auto join = [&](float other_most, int other_best) {
    if (other_most > most || (other_most == most && other_best < best)) {
      most = other_most;
      best = other_best;
    }
  };
  for (int reach = 16; reach > 0; reach /= 2) {
    const float other_most = __shfl_xor_sync(0xFFFFFFFFu, most, reach);
    join(other_most, __shfl_xor_sync(0xFFFFFFFFu, best, reach));
  }
  if (threadIdx.x % 32 == 0) {
    mosts[threadIdx.x / 32] = most;
    bests[threadIdx.x / 32] = best;
  }
  __syncthreads();
  for (int w = 0; w < threads / 32; ++w) join(mosts[w], bests[w]);

  float others = 0;
  each([&](float& x, int v) {
    x = __expf(x - most);
    if (v != label) others += x;
  });
  others = block_sum<threads>(others);
  const float total = others + __expf(label_score - most);
  if (threadIdx.x == 0) {
    losses[row] = label_score == most
                      ? log1p(static_cast<double>(others))
                      : log(static_cast<double>(total)) + (static_cast<double>(most) - static_cast<double>(label_score));
    if (predicted != nullptr) predicted[row] = best < vocabulary ? best : 0;
  }
  if (slopes == nullptr) return;
  S* const to = slopes + row * vocabulary;
  const float scale = weight / total;
  each([&](float& x, int v) { x = scale * (v == label ? -others : x); });
#pragma unroll
  for (int n = 0; n < held_fours; ++n) {
    if (column(n) >= vocabulary) continue;
    if constexpr (sizeof(S) == sizeof(float)) {
      *reinterpret_cast<float4*>(to + column(n)) = held[n];
    } else {
      *reinterpret_cast<uint2*>(to + column(n)) = {pack(held[n].x, held[n].y), pack(held[n].z, held[n].w)};
    }
  }
}

/// *to = how many of predicted[i] are labels[i]
template <class T>
__global__ void __launch_bounds__(1024) count_equal_kernel(const T* predicted, const T* labels, Index count, double* to) {
  follow();
  int equal = 0;
  for (Index i = threadIdx.x; i < count; i += 1024) equal += predicted[i] == labels[i] ? 1 : 0;
  equal = block_sum<1024>(equal);
  if (threadIdx.x == 0) *to = equal;
}

}  // namespace COYOTE_CUDA_ARCHITECTURES

/// Scores of which so many bytes are in memory at once. Larger products pay more than what stays in the second-level cache.
inline constexpr Index loss_bytes = Index{128} << 20;

/// c (=|+=) a b, by cuBLASLt where it can.
template <class T, class C>
void product(Context<Cuda>& context, Operand<T> a, Operand<T> b, Rows<C> c, Index depth, bool adds) {
  if (!suits_blas(a, b, c, depth) ||
      !blas_product<T, C>(context, a, b, nullptr, c, depth, adds ? Rows<const C>(c) : Rows<const C>())) {
    plain_product<T, T, C>(context, a, b, nullptr, c, depth, adds);
  }
}

/// Terms of the loss, likeliest entries and gradients, as cross_entropy gives them, by products with scores in memory, for as
/// many rows at a time as fit into the cache. Any device, type and width.
template <class S>
void product_cross_entropy(Context<Cuda>& context, Rows<const S> hidden, Rows<const float> embedding, const Token* labels,
                           Token* predicted, double* losses, Rows<S> dhidden, Rows<float> dembedding,
                           Index bytes_of_scores = loss_bytes) {
  const Index rows = hidden.rows, vocabulary = embedding.rows;
  const bool wants_slopes = dhidden.rows > 0;
  const Index most = std::max<Index>(64, bytes_of_scores / (vocabulary * static_cast<Index>(sizeof(float))) / 64 * 64);
  const Index chunk = std::min(rows, most);
  const Rows<const S> table = in_type<S>(context, embedding);
  const Rows<float> scores = context.make<float>(chunk, vocabulary);
  Rows<S> slopes;
  if constexpr (std::is_same_v<S, float>) {
    slopes = scores;
  } else if (wants_slopes) {
    slopes = context.make<S>(chunk, vocabulary);
  }
  const float weight = static_cast<float>(1 / static_cast<double>(rows));
  for (Index first = 0; first < rows; first += chunk) {
    const Index count = std::min(chunk, rows - first);
    const Rows<const S> here = hidden.slice(first, count);
    product<S, float>(context, Operand<S>::of(here), Operand<S>::transposed(table), scores.slice(0, count), hidden.width, false);
    const bool held = vocabulary % 4 == 0 && vocabulary <= 4 * held_fours * 256;
    void (*const row_losses)(const float*, int, const Token*, float, double*, Token*, S*) =
        held ? &held_row_losses_kernel<S> : &row_losses_kernel<S>;
    row_losses<<<static_cast<unsigned>(count), 256, 0, context.stream()>>>(
        scores.data, static_cast<int>(vocabulary), labels + first, weight, losses + first,
        predicted == nullptr ? nullptr : predicted + first, wants_slopes ? slopes.data : nullptr);
    COYOTE_CUDA_CHECK_LAUNCH("row_losses");
    if (!wants_slopes) continue;
    const Rows<const S> d = slopes.slice(0, count);
    product<S, S>(context, Operand<S>::of(d), Operand<S>::of(table), dhidden.slice(first, count), vocabulary, false);
    if (dembedding.rows > 0) {
      product<S, float>(context, Operand<S>::transposed(d), Operand<S>::of(here), dembedding, count, true);
    }
  }
}

}  // namespace cuda

/// logits = hidden embedding^T in float. hidden [n, D], embedding [V, D], logits [n, V].
template <class S>
void head_logits(Context<Cuda>& context, Rows<const S> hidden, Rows<const float> embedding, Rows<float> logits) {
  if (logits.empty()) return;
  const auto frame = context.frame();
  const auto table = cuda::Operand<S>::transposed(cuda::in_type<S>(context, embedding));
  if (cuda::few_rows_product<false, false>(context, hidden, table, {}, nullptr, Rows<const float>(), logits)) return;
  cuda::product<S, float>(context, cuda::Operand<S>::of(hidden), table, logits, hidden.width, false);
}
/// The same of rows normalised by a rule.
template <class S>
void head_logits(Context<Cuda>& context, Rows<const S> mixed, Rows<const float> embedding, Rows<float> logits,
                 const NormRule<float>& norm) {
  if (logits.empty()) return;
  const auto frame = context.frame();
  const auto table = cuda::Operand<S>::transposed(cuda::in_type<S>(context, embedding));
  if (cuda::few_rows_product<true, false>(context, mixed, table, norm, nullptr, Rows<const float>(), logits)) return;
  head_logits<S>(context, cuda::normalised(context, norm, mixed), embedding, logits);
}

/// The mean over rows of the negative log likelihood (nats) of labels[i] under softmax(hidden[i] embedding^T), a number on the
/// device. hidden [n, D]; embedding [V, D]; all spans lie on the device, and labels are in 0 .. V - 1 (who brings them checks).
/// predicted (may be empty) receives the likeliest entry of each row, the first of equals; losses (may be empty) each row's
/// term. dhidden [n, D] is overwritten with the gradient of the mean, dembedding [V, D] is added to; both have 0 rows when only
/// the loss is wanted. On Hopper bf16 scores of widths up to 256 never reach memory (2 n V D flop forward, 8 n V D with
/// gradients); elsewhere they exist for as many rows at a time as fit into the cache (2 and 6 n V D flop).
template <class S>
cuda::Result cross_entropy(Context<Cuda>& context, Rows<const S> hidden, Rows<const float> embedding,
                           std::span<const Token> labels, std::span<Token> predicted, std::span<double> losses, Rows<S> dhidden,
                           Rows<float> dembedding) {
  const Index rows = hidden.rows;
  if (static_cast<Index>(labels.size()) != rows || rows < 1) {
    throw Error("cross entropy", "one label per row and at least one row", words(labels.size(), " labels for ", rows, " rows"));
  }
  const auto frame = context.frame();
  double* const terms = losses.empty() ? context.make<double>(1, rows).data : losses.data();
  Token* const found = predicted.empty() ? nullptr : predicted.data();
  const cuda::Result loss = context.value(cuda::Slot::loss);
  if constexpr (std::is_same_v<S, bf16>) {
    if (cuda::wgmma_cross_entropy(context, hidden, embedding, labels.data(), found, terms, dhidden, dembedding, loss.data()))
      return loss;
  }
  cuda::product_cross_entropy<S>(context, hidden, embedding, labels.data(), found, terms, dhidden, dembedding);
  cuda::add_parts_kernel<double><<<1, 256, 0, context.stream()>>>(terms, rows, 1 / static_cast<double>(rows), loss.data());
  COYOTE_CUDA_CHECK_LAUNCH("add_parts");
  return loss;
}

/// How many of predicted[i] are labels[i]; both spans lie on the device.
inline cuda::Result count_equal(Context<Cuda>& context, std::span<const Token> predicted, std::span<const Token> labels) {
  const cuda::Result right = context.value(cuda::Slot::right);
  cuda::launch_following(context, &cuda::count_equal_kernel<Token>, "launch of count_equal", 1, 1024, 0, predicted.data(),
                         labels.data(), static_cast<Index>(labels.size()), right.data());
  return right;
}

/// The loss and the logits, to be compiled here or, with `extern`, elsewhere: see operations/cuda/compiled.
#define COYOTE_CROSS_ENTROPY(EXTERN, S)                                                                                       \
  EXTERN template void head_logits<S>(Context<Cuda>&, Rows<const S>, Rows<const float>, Rows<float>);                         \
  EXTERN template void head_logits<S>(Context<Cuda>&, Rows<const S>, Rows<const float>, Rows<float>, const NormRule<float>&); \
  EXTERN template cuda::Result cross_entropy<S>(Context<Cuda>&, Rows<const S>, Rows<const float>, std::span<const Token>,     \
                                                std::span<Token>, std::span<double>, Rows<S>, Rows<float>)
#ifdef COYOTE_CUDA_COMPILED
COYOTE_CROSS_ENTROPY(extern, float);
COYOTE_CROSS_ENTROPY(extern, bf16);
#endif

}  // namespace coyote::inline v0

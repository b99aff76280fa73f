// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/narrow_gradients.cuh"
#include "coyote/operations/cuda/norm.cuh"
#include "coyote/operations/cuda/product.cuh"
#include "coyote/operations/cuda/row_product.cuh"
#include "coyote/operations/cuda/step_product.cuh"

namespace coyote::inline v0 {
namespace cuda {
inline namespace COYOTE_CUDA_ARCHITECTURES {

/// to[i, c] = from[i, c] rounded to bf16; `to` has `stride` columns, those beyond the width are 0.
template <class S>
__global__ void __launch_bounds__(256)
    round_kernel(const float* from, Index from_stride, Index rows, Index width, S* to, Index stride) {
  const Index at = (Index{blockIdx.x} * 256 + threadIdx.x) * 2;  // stride is even
  if (at >= rows * stride) return;
  const Index i = at / stride, c = at % stride;
  const float* row = from + i * from_stride;
  *reinterpret_cast<__nv_bfloat162*>(to + at) =
      __floats2bfloat162_rn(c < width ? row[c] : 0.0f, c + 1 < width ? row[c + 1] : 0.0f);
}

/// bias[position of the row]
struct PositionBiasRow {
  Sequences sequences;
  Rows<const float> bias;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    return load<N>(bias.row(sequences.position(row)) + column);
  }
};

}  // namespace COYOTE_CUDA_ARCHITECTURES

/// A matrix of float parameters in the type that products read: itself, the copy that a model made of all its parameters, or a
/// rounded copy in the current frame, whose rows begin on boundaries of 16 bytes.
template <class S>
Rows<const S> in_type(Context<Cuda>& context, Rows<const float> m) {
  if constexpr (std::is_same_v<S, float>) {
    return m;
  } else {
    if (const Rows<const bf16> copy = context.rounded(m); copy.data != nullptr) return copy;
    const Rows<bf16> copy = context.make<bf16>(m.rows, round_up(m.width, 8));
    const Index pairs = copy.rows * copy.width / 2;
    if (pairs > 0) {
      round_kernel<<<static_cast<unsigned>(ceil_div(pairs, 256)), 256, 0, context.stream()>>>(m.data, m.stride, m.rows, m.width,
                                                                                              copy.data, copy.stride);
      COYOTE_CUDA_CHECK_LAUNCH("round");
    }
    return copy.columns(0, m.width);
  }
}

/// Products that are worth cuBLASLt's time and lie as it wants them.
template <class T, class C>
bool suits_blas(Operand<T> a, Operand<T> b, Rows<C> c, Index depth) {
  return c.rows >= 1 && c.width >= 8 && depth >= 8 && is_aligned(a.data, a.stride()) && is_aligned(b.data, b.stride()) &&
         is_aligned(c.data, c.stride);
}

/// y = norm(x) weight + bias + skip, each of them unless absent, by the kernels for few rows; false where they do not serve.
template <bool Normed, bool ByRows, class S, class C>
bool few_rows_product(Context<Cuda>& context, Rows<const S> x, Operand<S> weight, const NormRule<float>& norm, const float* bias,
                      Rows<const C> skip, Rows<C> y) {
  if constexpr (std::is_same_v<S, bf16>) {
    const bool is_settled = context.is_settled(weight.data, bias, norm.scale.data, norm.shift.data);
    return step_product<Normed, ByRows>(context, StepProblem<1>{{{x, weight}}, y.width, is_settled, norm},
                                        StepOutput<C>{bias, skip, y});
  } else if constexpr (Normed) {
    return false;
  } else {
    return row_product<S, C>(context, x, weight, bias, skip, y);
  }
}

/// dbias += the sum of dy over the rows that share a bias.
template <class S>
void add_bias_gradient(Context<Cuda>& context, const Batch& batch, Rows<const S> dy, Rows<float> dbias) {
  if (dbias.rows == 1) sum_rows<S>(context, dy.rows, SameRow<S>{dy}, dbias, dy);
  if (dbias.rows > 1) sum_positions<S>(context, batch, SameRow<S>{dy}, dbias, dy);
}

}  // namespace cuda

/// While it lives, bf16 products find the parameters of a store rounded once, not anew in every product. The copy lies in the
/// current frame.
template <class S>
class RoundedParameters<S, Cuda> {
 public:
  RoundedParameters(Context<Cuda>& context, const ParameterStore<float, Cuda>& store) : context_(context) {
    if constexpr (std::is_same_v<S, bf16>) {
      const Index size = store.values().size(), columns = 16;  // the store pads every parameter to a multiple of it
      const Rows<bf16> copy = context.make<bf16>(size / columns, columns);
      cuda::map_rows(context, cuda::SameRow<float>{{store.values().data(), size / columns, columns}}, Write::overwrite, copy);
      context.use_rounded(store.values().data(), size, copy.data);
    }
  }
  RoundedParameters(const RoundedParameters&) = delete;
  RoundedParameters& operator=(const RoundedParameters&) = delete;
  ~RoundedParameters() { context_.use_rounded(nullptr, 0, nullptr); }

 private:
  Context<Cuda>& context_;
};

/// y[i, :] = x[i, :] weight + bias (+ skip[i, :], unless absent). weight [in, out] in float; bias 0, 1 or at least `length` rows.
/// bf16 activations multiply by the weights rounded to bf16; sums are in float, and float products are exact ones (no TF32).
/// 2 rows in out flop; bytes: x, y and the weights. Few rows (8, or 64 in bf16), and bf16 maps of up to 128 channels or three
/// times 64 outputs, by kernels of our own, others by cuBLASLt, except for very narrow or oddly placed matrices.
template <class S>
void linear(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> weight, Rows<const float> bias,
            Rows<S> y, Rows<const S> skip = {}) {
  if (y.empty()) return;
  const auto frame = context.frame();
  const bool per_channel = bias.rows == 1;
  const Rows<const S> w = cuda::in_type<S>(context, weight);
  const S* row = per_channel ? cuda::in_type<S>(context, bias).data : nullptr;
  bool done =
      cuda::few_rows_product<false, true>(context, x, cuda::Operand<S>::of(w), {}, per_channel ? bias.data : nullptr, skip, y);
  if constexpr (std::is_same_v<S, bf16>) done = done || cuda::narrow_product(context, x, w, row, skip, y);
  if (!done && cuda::suits_blas(cuda::Operand<S>::of(x), cuda::Operand<S>::of(w), y, x.width) &&
      cuda::is_aligned(skip.data, skip.stride)) {
    done = cuda::blas_product<S, S>(context, cuda::Operand<S>::of(x), cuda::Operand<S>::of(w), row, y, x.width, skip);
  }
  if (!done) {
    cuda::plain_product<S, float, S>(context, cuda::Operand<S>::of(x), cuda::Operand<float>::of(weight),
                                     per_channel ? bias.data : nullptr, y, x.width, false);
    if (skip.rows > 0) assign<S>(context, skip, y, Write::add);
  }
  if (bias.rows > 1) {
    cuda::map_rows(context, cuda::PositionBiasRow{cuda::sequences_of(batch), bias}, Write::add, y, bias);
  }
}

/// The same of x normalised by a rule, for a step's few rows of a bias per channel or none: in one pass where the kernels for
/// them serve.
template <class S>
void linear(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> weight, Rows<const float> bias,
            Rows<S> y, Rows<const S> skip, const NormRule<float>& norm) {
  if (y.empty()) return;
  const auto frame = context.frame();
  const auto w = cuda::Operand<S>::of(cuda::in_type<S>(context, weight));
  if (bias.rows <= 1 && cuda::few_rows_product<true, true>(context, x, w, norm, bias.data, skip, y)) return;
  linear<S>(context, batch, cuda::normalised(context, norm, x), weight, bias, y, skip);
}

/// dx (=|+=) dy weight^T; dweight += x^T dy; dbias += the sum of dy over the rows that share a bias. Absent dweight or dbias
/// (0 rows) are not wanted. 4 rows in out flop; bytes: x, dy, dx and the weights. Narrow bf16 maps in one pass over x and dy,
/// others by cuBLASLt; see linear.
template <class S>
void linear_backward(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> weight, Rows<const S> dy,
                     Rows<S> dx, Write write, Rows<float> dweight, Rows<float> dbias) {
  if (dy.empty()) return;
  const auto frame = context.frame();
  const bool wants_dx = write != Write::none && dx.rows > 0, adds = write == Write::add;
  const Rows<const S> w = wants_dx ? cuda::in_type<S>(context, weight) : Rows<const S>();
  if constexpr (std::is_same_v<S, bf16>) {
    const bool per_channel = dbias.rows == 1;
    if (dweight.rows > 0 && cuda::narrow_gradients(context, x, w, dy, dx, write, dweight, per_channel ? dbias : Rows<float>())) {
      if (!per_channel) cuda::add_bias_gradient<S>(context, batch, dy, dbias);
      return;
    }
  }
  if (wants_dx) {
    const auto a = cuda::Operand<S>::of(dy), b = cuda::Operand<S>::transposed(w);
    if (!cuda::suits_blas(a, b, dx, dy.width) ||
        !cuda::blas_product<S, S>(context, a, b, nullptr, dx, dy.width, adds ? Rows<const S>(dx) : Rows<const S>())) {
      cuda::plain_product<S, float, S>(context, a, cuda::Operand<float>::transposed(weight), nullptr, dx, dy.width, adds);
    }
  }
  if (dweight.rows > 0) {
    const auto a = cuda::Operand<S>::transposed(x), b = cuda::Operand<S>::of(dy);
    if (!cuda::suits_blas(a, b, dweight, dy.rows) ||
        !cuda::blas_product<S, float>(context, a, b, nullptr, dweight, dy.rows, dweight)) {
      cuda::plain_product<S, S, float>(context, a, b, nullptr, dweight, dy.rows, true);
    }
  }
  cuda::add_bias_gradient<S>(context, batch, dy, dbias);
}

/// A linear map's functions, to be compiled here or, with `extern`, elsewhere: see operations/cuda/compiled.
#define COYOTE_LINEAR(EXTERN, S)                                                                                             \
  EXTERN template void linear<S>(Context<Cuda>&, const Batch&, Rows<const S>, Rows<const float>, Rows<const float>, Rows<S>, \
                                 Rows<const S>);                                                                             \
  EXTERN template void linear<S>(Context<Cuda>&, const Batch&, Rows<const S>, Rows<const float>, Rows<const float>, Rows<S>, \
                                 Rows<const S>, const NormRule<float>&);                                                     \
  EXTERN template void linear_backward<S>(Context<Cuda>&, const Batch&, Rows<const S>, Rows<const float>, Rows<const S>,     \
                                          Rows<S>, Write, Rows<float>, Rows<float>)
#ifdef COYOTE_CUDA_COMPILED
COYOTE_LINEAR(extern, float);
COYOTE_LINEAR(extern, bf16);
#endif

}  // namespace coyote::inline v0

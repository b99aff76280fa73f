// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_direct.cuh"
#include "coyote/operations/cuda/long_convolution_hopper.cuh"
#include "coyote/operations/cuda/long_convolution_lags.cuh"
#include "coyote/operations/cuda/long_convolution_rows_backward.cuh"
#include "coyote/operations/cuda/long_convolution_transforms.cuh"

namespace coyote::inline v0 {

namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {
namespace convolution {

/// How a long convolution of rows [rows, width] runs.
enum class ConvolutionPath {
  direct,     ///< by definition, on the rows, in float
  row_tiles,  ///< on tensor cores, on the rows
  lines       ///< on channel-major lines in scratch memory: on tensor cores or by transforms
};
template <class S>
ConvolutionPath forward_path(const Context<Cuda>& context, const Sequences& sequences, Wrap wrap) {
  if constexpr (std::is_same_v<S, bf16>) {
    if (wrap == Wrap::causal && suits_row_tiles(context, sequences)) return ConvolutionPath::row_tiles;
  }
  return sequences.length <= direct_rows ? ConvolutionPath::direct : ConvolutionPath::lines;
}
template <class S>
ConvolutionPath backward_path(const Context<Cuda>& context, const Sequences& sequences, Index width, Wrap wrap) {
  if constexpr (std::is_same_v<S, bf16>) {
    if (wrap == Wrap::causal && suits_row_gradients(context, sequences, width)) return ConvolutionPath::row_tiles;
  }
  return sequences.length <= direct_rows ? ConvolutionPath::direct : ConvolutionPath::lines;
}

/// Short lines in bf16 run on tensor cores; the few that do not take longer transforms than they need, for less code to compile.
template <class S>
using TransformsOf = Transforms<std::is_same_v<S, bf16> ? 11 : 7>;

/// Does a long convolution on lines run on tensor cores? Packed cyclic batches have a filter per sequence, for transforms alone.
template <class S>
bool runs_on_tensor_cores(const Lines& lines, const LineTaps& taps) {
  return std::is_same_v<S, bf16> && lines.longest() <= longest_toeplitz && !taps.per_sequence;
}
/// y = taps * x along lines, or the adjoint; y must not be x.
template <class S>
void convolve_lines(Context<Cuda>& context, const Lines& lines, Index width, const S* x, const LineTaps& taps, S* y,
                    bool adjoint) {
  if constexpr (std::is_same_v<S, bf16>) {
    if (runs_on_tensor_cores<S>(lines, taps)) {
      if (suits_groups(context, lines, x)) return toeplitz_group_convolve(context, lines, width, x, taps, y, adjoint);
      return toeplitz_convolve(context, lines, width, x, taps, y, adjoint);
    }
  }
  TransformsOf<S>(context, lines, width).convolve(Values::of(x), taps, Values::of(y), adjoint);
}
/// Both gradients; dx must not be d. Either is not wanted if its data is null.
template <class S>
void line_gradients(Context<Cuda>& context, const Lines& lines, Index width, const S* x, const LineTaps& taps, const S* d, S* dx,
                    const TapGradient& gradient) {
  const bool apart = runs_on_tensor_cores<S>(lines, taps);
  TransformsOf<S> transforms(context, lines, width);
  bool done = false;
  if constexpr (std::is_same_v<S, bf16>) {
    if (gradient.data != nullptr && suits_lags(context, lines, taps)) {
      // Groups that give every warp as many sequences, as many as make a few blocks per multiprocessor.
      const Index most = ceil_div(lines.sequences, lag_warps);
      const Index wanted = std::min(most, ceil_div(Index{4} * context.limits().multiprocessors, width));
      const Index per_group = lag_warps * ceil_div(most, wanted), groups = ceil_div(lines.sequences, per_group);
      const auto frame = context.frame();
      const Rows<float> lags = context.make<float>(groups * width, lines.longest());
      toeplitz_lags(context, lines, width, groups, per_group, x, d, lags.data);
      transforms.add_lags(static_cast<int>(groups), width, lags.data, taps, gradient);
      done = apart;
    }
  }
  if (!done) transforms.gradients(Values::of(x), taps, Values::of(d), Values::of(apart ? nullptr : dx), gradient);
  if (apart && dx != nullptr) convolve_lines<S>(context, lines, width, d, taps, dx, true);
}

/// A long convolution of one batch on lines. A cyclic one of n rows is a causal one of lines of 2n: rows repeat, and of the
/// result the second half counts; gradients stand after n zeros, and both halves of their adjoint add up.
template <class S>
class LineConvolution {
 public:
  LineConvolution(Context<Cuda>& context, const Batch& batch, Wrap wrap, Rows<const float> taps)
      : context_(context),
        sequences_(sequences_of(batch)),
        width_(taps.width),
        scratch_(sequences_, width_, wrap == Wrap::cyclic ? 2 : 1) {
    const Rows<float> lines = context.make<float>(width_, round_up(batch.length, 8));
    constexpr int tile = 32;
    const dim3 grid(static_cast<unsigned>(ceil_div(batch.length, tile)), static_cast<unsigned>(ceil_div(width_, tile)));
    taps_to_lines_kernel<tile>
        <<<grid, dim3(tile, 8), 0, context.stream()>>>(taps.slice(0, batch.length), lines.data, lines.stride);
    COYOTE_CUDA_CHECK_LAUNCH("taps_to_lines_kernel");
    taps_ = {.data = lines.data,
             .channel_pitch = lines.stride,
             .count = sequences_.length,
             .per_sequence = wrap == Wrap::cyclic && sequences_.offsets != nullptr};
  }

  void forward(Rows<const S> x, const Epilogue<S>& epilogue) {
    S* const lines = make();
    S* const result = make();
    to_lines(x, {}, {}, {}, Fold::repeat, lines, nullptr);
    convolve_lines<S>(context_, scratch_.lines, width_, lines, taps_, result, false);
    from_lines(result, false, epilogue);
  }
  void backward(Rows<const S> x, Rows<const S> gate, Rows<const S> convolved, Rows<const S> dy, Rows<S> dx, Write write,
                Rows<S> dgate, Rows<float> dtaps, Rows<float> dbias) {
    S* const d = make();
    const Index tiles = layout_tiles(sequences_, tile_rows);
    const Rows<float> sums = dbias.rows == 1 ? context_.make<float>(tiles, width_) : Rows<float>();
    to_lines(dy, gate, convolved, dgate, Fold::after_zeros, d, sums.data);
    if (dbias.rows == 1) launch_add_sums(context_, sums.data, tiles, dbias);
    S* lines = nullptr;
    if (dtaps.rows > 0) {
      lines = make();
      to_lines(x, {}, {}, {}, Fold::repeat, lines, nullptr);
    }
    const bool wants_dx = write != Write::none;
    S* const result = wants_dx ? make() : nullptr;
    line_gradients<S>(context_, scratch_.lines, width_, lines, taps_, d, result,
                      {dtaps.data, dtaps.stride, 1, dtaps.rows > 0 ? sequences_.length : 0});
    if (wants_dx) from_lines(result, true, {.bias = {}, .gate = {}, .convolved = {}, .y = dx, .add = write == Write::add});
  }

 private:
  /// Of the tiles that change the layout.
  static constexpr int tile_rows = std::is_same_v<S, bf16> ? 128 : layout_channels;

  unsigned layout_blocks() const {
    return static_cast<unsigned>(layout_tiles(sequences_, tile_rows) * ceil_div(width_, layout_channels));
  }
  S* make() { return context_.template make<S>(1, scratch_.elements).data; }
  void to_lines(Rows<const S> from, Rows<const S> gate, Rows<const S> convolved, Rows<S> dgate, Fold fold, S* to, float* sums) {
    const unsigned grid = layout_blocks();
    if constexpr (std::is_same_v<S, bf16>) {
      to_lines_vector_kernel<S, tile_rows>
          <<<grid, 256, 0, context_.stream()>>>(sequences_, from, gate, convolved, dgate, scratch_.lines, fold, to, sums);
    } else {
      to_lines_kernel<S><<<grid, layout_block, 0, context_.stream()>>>(sequences_, from, gate, convolved, dgate, scratch_.lines,
                                                                       fold, to, sums);
    }
    COYOTE_CUDA_CHECK_LAUNCH("to_lines_kernel");
  }
  void from_lines(const S* from, bool adjoint, const Epilogue<S>& epilogue) {
    const unsigned grid = layout_blocks();
    if constexpr (std::is_same_v<S, bf16>) {
      from_lines_vector_kernel<S, tile_rows>
          <<<grid, 256, 0, context_.stream()>>>(sequences_, scratch_.lines, adjoint, from, epilogue);
    } else {
      from_lines_kernel<S><<<grid, layout_block, 0, context_.stream()>>>(sequences_, scratch_.lines, adjoint, from, epilogue);
    }
    COYOTE_CUDA_CHECK_LAUNCH("from_lines_kernel");
  }

  Context<Cuda>& context_;
  Sequences sequences_;
  Index width_;
  ScratchLines scratch_;
  LineTaps taps_;
};

/// Lines as a caller has them: [batch, width, length] without gaps.
inline Lines dense_lines(Index batch, Index width, Index length) {
  Lines lines;
  lines.sequences = static_cast<std::int32_t>(batch);
  lines.length = static_cast<std::int32_t>(length);
  lines.channel_pitch = length;
  lines.sequence_pitch = width * length;
  return lines;
}

template <class S>
void convolve_directly(Context<Cuda>& context, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const float> taps,
                       const Epilogue<S>& epilogue) {
  const dim3 grid(static_cast<unsigned>(batch.sequences), static_cast<unsigned>(ceil_div(x.width, direct_channels)));
  direct_kernel<S>
      <<<grid, dim3(direct_channels, direct_threads), 0, context.stream()>>>(sequences_of(batch), wrap, x, taps, epilogue);
  COYOTE_CUDA_CHECK_LAUNCH("direct_kernel");
}

template <class S>
void direct_gradients(Context<Cuda>& context, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const float> taps,
                      Rows<const S> gate, Rows<const S> convolved, Rows<const S> dy, Rows<S> dx, Write write, Rows<S> dgate,
                      Rows<float> dtaps, Rows<float> dbias) {
  const Index tiles = ceil_div(dy.width, direct_channels);
  const Index wanted = std::min(batch.sequences, ceil_div(Index{16} * context.limits().multiprocessors, tiles));
  const Index per_group = ceil_div(batch.sequences, wanted), groups = ceil_div(batch.sequences, per_group);
  const auto sums = [&](bool wants) { return wants ? context.make<float>(groups * batch.length, dy.width) : Rows<float>(); };
  const Rows<float> lags = sums(dtaps.rows > 0), biases = sums(dbias.rows > 0);
  direct_gradient_kernel<S>
      <<<dim3(static_cast<unsigned>(groups), static_cast<unsigned>(tiles)), dim3(direct_channels, direct_threads), 0,
         context.stream()>>>(sequences_of(batch), wrap, static_cast<int>(per_group), x, taps, gate, convolved, dy, dx, write,
                             dgate, lags.data, biases.data);
  COYOTE_CUDA_CHECK_LAUNCH("direct_gradient_kernel");
  if (dtaps.rows > 0) launch_add_sums(context, lags.data, groups, dtaps.slice(0, batch.length));
  if (dbias.rows == 1) launch_add_sums(context, biases.data, groups * batch.length, dbias);
  if (dbias.rows > 1) launch_add_sums(context, biases.data, groups, dbias.slice(0, batch.length));
}

}  // namespace convolution

/// y[b, c, i] = sum_{t <= i} taps[c, t] x[b, c, i-t]; x and y [batch, width, length], taps [width, length], without gaps.
template <class S>
void long_convolution_channel_major(Context<Cuda>& context, Index batch, Index width, Index length, const S* x, const float* taps,
                                    S* y) {
  const auto frame = context.frame();
  const convolution::LineTaps filter{.data = taps, .channel_pitch = length, .count = static_cast<std::int32_t>(length)};
  convolution::convolve_lines<S>(context, convolution::dense_lines(batch, width, length), width, x, filter, y, false);
}

/// Its gradients: dx is overwritten, dtaps added to; either may be null.
template <class S>
void long_convolution_channel_major_backward(Context<Cuda>& context, Index batch, Index width, Index length, const S* x,
                                             const float* taps, const S* dy, S* dx, float* dtaps) {
  const auto frame = context.frame();
  const convolution::LineTaps filter{.data = taps, .channel_pitch = length, .count = static_cast<std::int32_t>(length)};
  const convolution::TapGradient gradient{
      .data = dtaps, .tap_pitch = 1, .channel_pitch = length, .count = static_cast<std::int32_t>(length)};
  convolution::line_gradients<S>(context, convolution::dense_lines(batch, width, length), width, x, filter, dy, dx, gradient);
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i] = (sum_t taps[t] x[i-t] + bias), times gate[i] when there is one; t runs over 0 .. i (causal) or, with x as a ring of
/// the sequence's n rows, over 0 .. n-1 (cyclic). Shapes: x, gate, y [rows, D]; taps [at least the longest sequence, D]; bias [0,
/// 1 or at least the longest sequence, D]; `convolved` [rows, D], when it has rows, receives the value before the gate. Any
/// length: bf16 up to 2048 rows as products with Toeplitz matrices on tensor cores, taps rounded
/// to bf16; the others by transforms of 2^k >= n points in float. Scratch: two copies of x in channel-major order, but for short
/// rows.
template <class S>
void long_convolution(Context<Cuda>& context, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const parameter_t<S>> taps,
                      Rows<const parameter_t<S>> bias, Rows<const S> gate, Rows<S> convolved, Rows<S> y) {
  if (y.empty()) return;
  const auto frame = context.frame();
  const cuda::convolution::Epilogue<S> epilogue{.bias = bias, .gate = gate, .convolved = convolved, .y = y};
  const cuda::convolution::ConvolutionPath path = cuda::convolution::forward_path<S>(context, cuda::sequences_of(batch), wrap);
  if constexpr (std::is_same_v<S, bf16>) {
    if (path == cuda::convolution::ConvolutionPath::row_tiles) {
      cuda::convolution::toeplitz_rows(context, cuda::sequences_of(batch), x, taps, epilogue);
      return;
    }
  }
  if (path == cuda::convolution::ConvolutionPath::direct) {
    cuda::convolution::convolve_directly<S>(context, batch, wrap, x, taps, epilogue);
  } else {
    cuda::convolution::LineConvolution<S>(context, batch, wrap, taps).forward(x, epilogue);
  }
}

/// Gradients of long_convolution, with dc = dy * gate (or dy): dgate = dy * convolved; dx[j] = sum_t taps[t] dc[j+t], by `write`;
/// dtaps[t] += sum_i dc[i] x[i-t]; dbias += dc, summed as bias is shared. dgate, dtaps and dbias without rows are not wanted;
/// `convolved` is there if and only if there is a gate. Sums over sequences go in groups that depend on shapes alone.
template <class S>
void long_convolution_backward(Context<Cuda>& context, const Batch& batch, Wrap wrap, Rows<const S> x,
                               Rows<const parameter_t<S>> taps, Rows<const S> gate, Rows<const S> convolved, Rows<const S> dy,
                               Rows<S> dx, Write write, Rows<S> dgate, Rows<parameter_t<S>> dtaps, Rows<parameter_t<S>> dbias) {
  if (dy.empty()) return;
  const auto frame = context.frame();
  const cuda::Sequences sequences = cuda::sequences_of(batch);
  const cuda::convolution::ConvolutionPath path = cuda::convolution::backward_path<S>(context, sequences, dy.width, wrap);
  if (path == cuda::convolution::ConvolutionPath::direct) {
    cuda::convolution::direct_gradients<S>(context, batch, wrap, x, taps, gate, convolved, dy, dx, write, dgate, dtaps, dbias);
    return;
  }
  if constexpr (std::is_same_v<S, bf16>) {
    if (path == cuda::convolution::ConvolutionPath::row_tiles) {
      const cuda::convolution::Epilogue<S> into{
          .bias = {}, .gate = {}, .convolved = {}, .y = write == Write::none ? Rows<S>() : dx, .add = write == Write::add};
      cuda::convolution::toeplitz_row_gradients<S>(
          context, sequences, {.x = x, .gate = gate, .convolved = convolved, .dy = dy, .taps = taps, .dgate = dgate, .dx = into},
          dtaps, dbias.rows == 1 ? dbias : Rows<float>());
    }
  }
  if (path == cuda::convolution::ConvolutionPath::lines) {
    cuda::convolution::LineConvolution<S>(context, batch, wrap, taps)
        .backward(x, gate, convolved, dy, dx, write, dgate, dtaps, dbias);
  }
  if (dbias.rows > 1) {
    const dim3 grid(static_cast<unsigned>(batch.length), static_cast<unsigned>(ceil_div(dbias.width, 128)));
    cuda::convolution::add_position_bias_kernel<S><<<grid, 128, 0, context.stream()>>>(sequences, gate, dy, dbias);
    COYOTE_CUDA_CHECK_LAUNCH("add_position_bias_kernel");
  }
}

/// A long convolution's two functions, to be compiled here or, with `extern`, elsewhere: see operations/cuda/compiled.
#define COYOTE_LONG_CONVOLUTION(EXTERN, S)                                                                                \
  EXTERN template void long_convolution<S>(Context<Cuda>&, const Batch&, Wrap, Rows<const S>, Rows<const float>,          \
                                           Rows<const float>, Rows<const S>, Rows<S>, Rows<S>);                           \
  EXTERN template void long_convolution_backward<S>(Context<Cuda>&, const Batch&, Wrap, Rows<const S>, Rows<const float>, \
                                                    Rows<const S>, Rows<const S>, Rows<const S>, Rows<S>, Write, Rows<S>, \
                                                    Rows<float>, Rows<float>)
#ifdef COYOTE_CUDA_COMPILED
COYOTE_LONG_CONVOLUTION(extern, float);
COYOTE_LONG_CONVOLUTION(extern, bf16);
#endif

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_lags.cuh"
#include "coyote/operations/cuda/long_convolution_rows.cuh"

/// Gradients of a long convolution on tensor cores for rows as they are, causal sequences of up to 512 rows, in one pass.
///
/// A block takes some channels of a group of slabs of 8 sequences. It turns x and dc = dy * gate, both read backwards, so that
/// dx = T dc is a causal product as in long_convolution_rows.cuh. Gradients of taps are products, too, of
/// long_convolution_lags.cuh. Flops: 2 L^2/2 per row, as forward. Bytes: each value once in and out, and the groups' sums, 8 L D
/// a group.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// What the kernel reads and writes. dx.y, dgate, lags and biases without data are not wanted.
struct RowGradients {
  Rows<const bf16> x, gate, convolved, dy;
  Rows<const float> taps;
  Rows<bf16> dgate;
  Epilogue<bf16> dx;
  float* lags = nullptr;    ///< [groups][longest][width]
  float* biases = nullptr;  ///< [groups][width]
};

/// Fills a tile with dc = dy * gate and writes dgate; sums over a warp's rows are added to sums[warp][channel], where wanted.
template <class Shape>
__device__ inline void fill_gradients(const RowMover<Shape, true>& mover, const RowTile<Shape>& tile, const RowGradients& work,
                                      float* sums, int thread) {
  constexpr int halves = Shape::channels / 8;
  const auto dy = mover.walk(work.dy), gate = mover.walk(work.gate), convolved = mover.walk(work.convolved);
  Eight total = {};
#pragma unroll 2
  for (int turn = 0; turn < mover.turns; ++turn) {
    uint4 rows[2], gates[2], kept[2];
    mover.load(dy, turn, rows);
    if (work.gate.rows > 0) mover.load(gate, turn, gates);
    if (work.dgate.rows > 0) mover.load(convolved, turn, kept);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Eight value = widen(rows[r]), product = work.gate.rows > 0 ? value * widen(gates[r]) : value;
      const int row = mover.row(turn, r);
      if (work.dgate.rows > 0 && row < mover.n) {
        store_8(&work.dgate(mover.begin_row + mover.position(row), mover.c), pack(value * widen(kept[r])), mover.valid);
      }
      total = total + product;
      rows[r] = pack(product);
    }
    mover.put(tile, turn, rows);
  }
  if (work.biases == nullptr) return;
  float* const own = sums + thread / 32 * Shape::channels + thread % halves * 8;
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    float sum = total.at[k];
#pragma unroll
    for (int reach = halves; reach < 32; reach *= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, reach);
    if (thread % 32 < halves) own[k] += sum;
  }
}

template <class Shape>
constexpr int row_gradient_shared_memory() {
  return 4 * (2 * RowTile<Shape>::size + Shape::channels * (Shape::filter_words + Shape::rows + 1 + Shape::warps));
}

template <class Shape>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks)
    toeplitz_rows_gradient_kernel(Sequences sequences, int channel_tiles, int per_group, RowGradients work) {
  follow();
  constexpr int threads = Shape::threads, lag_stride = Shape::rows + 1;
  extern __shared__ uint4 toeplitz_memory[];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, width = static_cast<int>(work.dy.width);
  const int group = static_cast<int>(blockIdx.x) / channel_tiles;
  const int c0 = static_cast<int>(blockIdx.x) % channel_tiles * Shape::channels;
  const int first = group * per_group * slab_sequences;
  const int end = min(sequences.sequences, first + per_group * slab_sequences);
  const RowTile<Shape> d{reinterpret_cast<unsigned*>(toeplitz_memory)}, x{d.words + RowTile<Shape>::size};
  unsigned* const pairs = x.words + RowTile<Shape>::size;
  float* const lags = reinterpret_cast<float*>(pairs + Shape::channels * Shape::filter_words);
  float* const biases = lags + Shape::channels * lag_stride;  // of each warp
  const bool wants_dx = work.dx.y.rows > 0;
  for (int i = thread; i < Shape::channels * (lag_stride + Shape::warps); i += threads) lags[i] = 0;
  if (wants_dx) fill_row_filters<Shape>(pairs, thread, work.taps, sequences.length, c0);
  using Mover = RowMover<Shape, true>;
  for (int s0 = first; s0 < end; s0 += slab_sequences) {
    const Mover mover(sequences, s0, c0, width, thread);
    __syncthreads();
    if (work.lags != nullptr) mover.fill(x, work.x);
    if (work.gate.rows == 0 && work.biases == nullptr) {
      mover.fill(d, work.dy);
    } else {
      fill_gradients(mover, d, work, biases, thread);
    }
    const int chunks = chunks_of_slab(sequences, s0);
    __syncthreads();
    for (int channel = thread / 32; channel < Shape::channels; channel += Shape::warps) {
      if (work.lags != nullptr) {
        LagSums<Shape::chunks> sums;
#pragma unroll 1
        for (int b = 0; b < slab_sequences; ++b) {  // both stand backwards
          sums.add(d.line(channel, b), lane, TurnedLine<Shape::rows / 8>(x.line(channel, b), lane));
        }
        float* const own = lags + channel * lag_stride;
#pragma unroll
        for (int n = 0; n < Shape::chunks; ++n) {
          own[sums.first_lag(n, lane)] += sums.lags(n).x;
          own[sums.first_lag(n, lane) + 1] += sums.lags(n).y;
        }
      }
      if (wants_dx) toeplitz_channel(d, channel, pairs + channel * Shape::filter_words, chunks, lane, 0.0f);
    }
    typename Mover::Beside others;
    if (wants_dx) mover.begin(work.dx, others);
    __syncthreads();
    if (wants_dx) mover.finish(d, work.dx, others);
  }
  if (work.lags != nullptr) {
    const int channel = thread % Shape::channels;
    for (int t = thread / Shape::channels; c0 + channel < width && t < sequences.length; t += threads / Shape::channels) {
      work.lags[(static_cast<Index>(group) * sequences.length + t) * width + c0 + channel] = lags[channel * lag_stride + t];
    }
  }
  if (work.biases != nullptr && thread < Shape::channels && c0 + thread < width) {
    float sum = 0;
    for (int warp = 0; warp < Shape::warps; ++warp) sum += biases[warp * Shape::channels + thread];
    work.biases[static_cast<Index>(group) * width + c0 + thread] = sum;
  }
}

/// Calls use.operator()<shape>() with the shape of gradients of sequences of that length.
template <class Use>
decltype(auto) with_row_gradient_shape(Index longest, Use&& use) {
  if (longest <= 64) return use.template operator()<RowShape<16, 1, 8, 3>>();
  if (longest <= 128) return use.template operator()<RowShape<16, 2, 8, 2>>();
  if (longest <= 256) return use.template operator()<RowShape<16, 4, 16, 1>>();
  return use.template operator()<RowShape<8, 8, 8, 1>>();
}
/// Do gradients of causal sequences run on row tiles? Of the longest ones if they are few: one kernel pays while there are not
/// enough blocks to fill the device, afterwards narrow rows cost more than changing the layout.
inline bool suits_row_gradients(const Context<Cuda>& context, const Sequences& sequences, Index width) {
  return sequences.length <= longest_row_tile && with_row_gradient_shape(sequences.length, [&]<class Shape>() {
           const Index blocks = ceil_div(width, Shape::channels) * ceil_div(sequences.sequences, slab_sequences);
           return row_gradient_shared_memory<Shape>() <= context.limits().shared_memory &&
                  (Shape::channels > 8 || blocks <= 2 * context.limits().multiprocessors);
         });
}

/// All gradients of causal sequences that suit, but work.lags and work.biases: dtaps and dbias (of one row) are added to. S is
/// bf16; a template so that only those who call it compile it.
template <class S>
void toeplitz_row_gradients(Context<Cuda>& context, const Sequences& sequences, RowGradients work, Rows<float> dtaps,
                            Rows<float> dbias) {
  with_row_gradient_shape(sequences.length, [&]<class Shape>() {
    const Index width = work.dy.width, tiles = ceil_div(width, Shape::channels);
    const Index slabs = ceil_div(sequences.sequences, slab_sequences);
    // As many groups as fill the device four times.
    const Index wanted = std::min(slabs, ceil_div(Index{4} * Shape::blocks * context.limits().multiprocessors, tiles));
    const Index per_group = ceil_div(slabs, wanted), groups = ceil_div(slabs, per_group);
    if (dtaps.rows > 0) work.lags = context.make<float>(groups * sequences.length, width).data;
    if (dbias.rows > 0) work.biases = context.make<float>(groups, width).data;
    launch_following(context, &toeplitz_rows_gradient_kernel<Shape>, "launch of toeplitz_rows_gradient",
                     static_cast<unsigned>(tiles * groups), Shape::threads, row_gradient_shared_memory<Shape>(), sequences,
                     static_cast<int>(tiles), static_cast<int>(per_group), work);
    if (dtaps.rows > 0) launch_add_sums(context, work.lags, groups, dtaps.slice(0, sequences.length));
    if (dbias.rows > 0) launch_add_sums(context, work.biases, groups, dbias);
  });
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

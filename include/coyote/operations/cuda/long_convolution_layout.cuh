// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_words.cuh"

/// Between rows [rows, width] and channel-major lines: tiles of 64 rows by 64 channels turned in shared memory, with the
/// elementwise work of a long convolution (gates, biases and their gradients) done on the way. Bytes: each value once in and out.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// What lines of twice the length hold (Lines::fold 2; see Wrap in long_convolution.cuh).
enum class Fold { repeat, after_zeros };

inline constexpr int layout_tile = 64;
inline constexpr dim3 layout_block{64, 4};

/// Tiles of all sequences, each as many as the longest needs, times tiles of channels.
inline dim3 layout_grid(const Sequences& sequences, Index width) {
  return {static_cast<unsigned>(sequences.sequences * ceil_div(sequences.length, layout_tile)),
          static_cast<unsigned>(ceil_div(width, layout_tile))};
}

/// The sequence and the first row in it of a block of layout_grid.
struct LayoutPlace {
  int s, t0;
  __device__ explicit LayoutPlace(const Sequences& sequences) {
    const int tiles = (sequences.length + layout_tile - 1) / layout_tile;
    s = static_cast<int>(blockIdx.x) / tiles;
    t0 = static_cast<int>(blockIdx.x) % tiles * layout_tile;
  }
};

/// lines = from, times gate where there is one; dgate = from * convolved where wanted. sums [gridDim.x][width], where wanted,
/// gets the sums of each tile's rows.
template <class S>
__global__ void __launch_bounds__(256)
    to_lines_kernel(Sequences sequences, Rows<const S> from, Rows<const S> gate, Rows<const S> convolved, Rows<S> dgate,
                    Lines lines, Fold fold, S* to, float* sums) {
  __shared__ float tile[layout_tile][layout_tile + 1];
  __shared__ float partial[4][layout_tile];
  const auto [s, t0] = LayoutPlace(sequences);
  const int width = static_cast<int>(from.width), c0 = static_cast<int>(blockIdx.y) * layout_tile;
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int n = sequences.size(s);
  const Index first = sequences.begin(s);
  const int c = c0 + x;
  float sum = 0;
#pragma unroll 4
  for (int k = y; k < layout_tile; k += 4) {
    float value = 0;
    if (t0 + k < n && c < width) {
      const Index row = first + t0 + k;
      value = to_float(from(row, c));
      if (dgate.rows > 0) dgate(row, c) = from_float<S>(value * to_float(convolved(row, c)));
      if (gate.rows > 0) value *= to_float(gate(row, c));
    }
    sum += value;
    tile[k][x] = value;
  }
  if (sums != nullptr) partial[y][x] = sum;
  __syncthreads();
  if (sums != nullptr && y == 0 && c < width) {
    sums[static_cast<Index>(blockIdx.x) * width + c] = partial[0][x] + partial[1][x] + partial[2][x] + partial[3][x];
  }
  const int t = t0 + x;
  if (t >= n) return;
#pragma unroll 4
  for (int k = y; k < layout_tile; k += 4) {
    if (c0 + k >= width) break;
    S* const line = to + lines.begin(s) + (c0 + k) * lines.channel_pitch;
    const S value = from_float<S>(tile[x][k]);
    line[t] = lines.fold == 2 && fold == Fold::after_zeros ? from_float<S>(0) : value;
    if (lines.fold == 2) line[n + t] = value;
  }
}

/// What becomes of a value from the lines: with a bias (of 1 or more rows), kept in `convolved`, times a gate, into (or added to)
/// y.
template <class S>
struct Epilogue {
  Rows<const float> bias;
  Rows<const S> gate;
  Rows<S> convolved, y;
  bool add = false;

  __device__ void operator()(Index row, int position, int c, float value) const {
    if (bias.rows > 0) value += bias(bias.rows == 1 ? 0 : position, c);
    if (convolved.rows > 0) convolved(row, c) = from_float<S>(value);
    if (gate.rows > 0) value *= to_float(gate(row, c));
    if (add) value += to_float(y(row, c));
    y(row, c) = from_float<S>(value);
  }
  /// The same for channels c .. c + 7, as far as there are `valid`.
  __device__ void operator()(Index row, int position, int c, const Eight& values,
                             int valid) const requires std::same_as<S, bf16> {
    finish(row, position, c, values, valid, load_gate(row, c, valid));
  }
  /// The same in two parts, so that the gate may be asked for early.
  __device__ uint4 load_gate(Index row, int c, int valid) const requires std::same_as<S, bf16> {
    return gate.rows > 0 ? load_8(&gate(row, c), valid) : make_uint4(0, 0, 0, 0);
  }
  __device__ void finish(Index row, int position, int c, Eight values, int valid,
                         uint4 factor_words) const requires std::same_as<S, bf16> {
    if (bias.rows > 0) {
      const float* const from = &bias(bias.rows == 1 ? 0 : position, c);
#pragma unroll
      for (int k = 0; k < 8; ++k) values.at[k] += k < valid ? from[k] : 0.0f;
    }
    if (convolved.rows > 0) store_8(&convolved(row, c), values, valid);
    if (gate.rows > 0) {
      const Eight factors = widen(factor_words);
#pragma unroll
      for (int k = 0; k < 8; ++k) values.at[k] *= factors.at[k];
    }
    if (add) {
      const Eight before = widen(load_8(&y(row, c), valid));
#pragma unroll
      for (int k = 0; k < 8; ++k) values.at[k] += before.at[k];
    }
    store_8(&y(row, c), values, valid);
  }
};

/// What a line of twice the length means for its sequence: its second half (a result), or both halves' sum (an adjoint).
template <class S>
__global__ void __launch_bounds__(256)
    from_lines_kernel(Sequences sequences, Lines lines, bool adjoint, const S* from, Epilogue<S> epilogue) {
  __shared__ float tile[layout_tile][layout_tile + 1];
  const auto [s, t0] = LayoutPlace(sequences);
  const int width = static_cast<int>(epilogue.y.width), c0 = static_cast<int>(blockIdx.y) * layout_tile;
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int n = sequences.size(s);
  if (t0 >= n) return;
  const int t = t0 + x;
#pragma unroll 4
  for (int k = y; k < layout_tile; k += 4) {
    float value = 0;
    if (t < n && c0 + k < width) {
      const S* const line = from + lines.begin(s) + (c0 + k) * lines.channel_pitch;
      value = lines.fold == 2 ? to_float(line[n + t]) : to_float(line[t]);
      if (lines.fold == 2 && adjoint) value += to_float(line[t]);
    }
    tile[k][x] = value;
  }
  __syncthreads();
  const Index first = sequences.begin(s);
  const int c = c0 + x;
  if (c >= width) return;
#pragma unroll 4
  for (int k = y; k < layout_tile; k += 4) {
    if (t0 + k < n) epilogue(first + t0 + k, t0 + k, c, tile[x][k]);
  }
}

/// Both kernels for bf16, on vectors of eight. A word of the tile holds two neighbouring rows of a channel; word p of channel c
/// stands at p ^ (c / 8 * 4), so that neither side of the exchange meets a bank twice. A thread has 2 rows by 8 channels.
struct WordTile {
  unsigned words[layout_tile][layout_tile / 2];
  __device__ unsigned& at(int c, int p) { return words[c][p ^ (c / 8 * 4)]; }
  /// Rows 8 v .. 8 v + 7 of channel c.
  __device__ uint4& vector(int c, int v) { return *reinterpret_cast<uint4*>(&words[c][4 * (v ^ (c / 8))]); }
};

template <class S>
requires std::same_as<S, bf16> __global__ void __launch_bounds__(256)
    to_lines_vector_kernel(Sequences sequences, Rows<const S> from, Rows<const S> gate, Rows<const S> convolved, Rows<S> dgate,
                           Lines lines, Fold fold, S* to, float* sums) {
  __shared__ alignas(16) WordTile tile;
  __shared__ float partial[8][layout_tile];
  const auto [s, t0] = LayoutPlace(sequences);
  const int width = static_cast<int>(from.width), c0 = static_cast<int>(blockIdx.y) * layout_tile;
  const int thread = static_cast<int>(threadIdx.x), h = thread % 8, p = thread / 8;
  const int n = sequences.size(s), c = c0 + 8 * h, valid = width - c;
  const Index first = sequences.begin(s);
  Eight values[2] = {};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int t = t0 + 2 * p + r;
    if (t >= n || valid <= 0) continue;
    values[r] = widen(load_8(&from(first + t, c), valid));
    if (dgate.rows > 0) {
      Eight product = widen(load_8(&convolved(first + t, c), valid));
#pragma unroll
      for (int k = 0; k < 8; ++k) product.at[k] *= values[r].at[k];
      store_8(&dgate(first + t, c), product, valid);
    }
    if (gate.rows > 0) {
      const Eight factors = widen(load_8(&gate(first + t, c), valid));
#pragma unroll
      for (int k = 0; k < 8; ++k) values[r].at[k] *= factors.at[k];
    }
  }
#pragma unroll
  for (int k = 0; k < 8; ++k) tile.at(8 * h + k, p) = pack(values[0].at[k], values[1].at[k]);
  if (sums != nullptr) {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      float sum = values[0].at[k] + values[1].at[k];
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 8);
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 16);
      if (thread % 32 < 8) partial[thread / 32][8 * h + k] = sum;
    }
  }
  __syncthreads();
  if (sums != nullptr && thread < layout_tile && c0 + thread < width) {
    float sum = 0;
    for (int w = 0; w < 8; ++w) sum += partial[w][thread];
    sums[static_cast<Index>(blockIdx.x) * width + c0 + thread] = sum;
  }
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const int row = thread / 8 + 32 * k, t = t0 + 8 * h;
    if (t >= n || c0 + row >= width) continue;
    S* const line = to + lines.begin(s) + (c0 + row) * lines.channel_pitch;
    const uint4 value = tile.vector(row, h);
    const unsigned words[4] = {value.x, value.y, value.z, value.w};
    if (lines.fold == 2) store_8(line + n + t, words, n - t);
    if (lines.fold == 2 && fold == Fold::after_zeros) {
      store_8(line + t, Eight{}, n - t);
    } else {
      store_8(line + t, words, n - t);
    }
  }
}

template <class S>
requires std::same_as<S, bf16> __global__ void __launch_bounds__(256)
    from_lines_vector_kernel(Sequences sequences, Lines lines, bool adjoint, const S* from, Epilogue<S> epilogue) {
  __shared__ alignas(16) WordTile tile;
  const auto [s, t0] = LayoutPlace(sequences);
  const int width = static_cast<int>(epilogue.y.width), c0 = static_cast<int>(blockIdx.y) * layout_tile;
  const int thread = static_cast<int>(threadIdx.x), h = thread % 8, p = thread / 8;
  const int n = sequences.size(s);
  if (t0 >= n) return;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const int row = thread / 8 + 32 * k, t = t0 + 8 * h;
    if (t >= n || c0 + row >= width) continue;
    const S* const line = from + lines.begin(s) + (c0 + row) * lines.channel_pitch;
    uint4 value = load_8(line + (lines.fold == 2 ? n + t : t), n - t);
    if (lines.fold == 2 && adjoint) {
      Eight sum = widen(value);
      const Eight other = widen(load_8(line + t, n - t));
#pragma unroll
      for (int i = 0; i < 8; ++i) sum.at[i] += other.at[i];
      value = make_uint4(pack(sum.at[0], sum.at[1]), pack(sum.at[2], sum.at[3]), pack(sum.at[4], sum.at[5]),
                         pack(sum.at[6], sum.at[7]));
    }
    tile.vector(row, h) = value;
  }
  __syncthreads();
  const int c = c0 + 8 * h, valid = width - c;
  if (valid <= 0) return;
  Eight values[2];
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const unsigned word = tile.at(8 * h + k, p);
    values[0].at[k] = low_half(word);
    values[1].at[k] = high_half(word);
  }
  const Index first = sequences.begin(s);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int t = t0 + 2 * p + r;
    if (t < n) epilogue(first + t, t, c, values[r], valid);
  }
}

/// to[c * pitch + t] = taps(t, c).
template <int Tile>
__global__ void __launch_bounds__(Tile * 8) taps_to_lines_kernel(Rows<const float> taps, float* to, std::int64_t pitch) {
  __shared__ float tile[Tile][Tile + 1];
  const Index t0 = static_cast<Index>(blockIdx.x) * Tile, c0 = static_cast<Index>(blockIdx.y) * Tile;
  const int x = static_cast<int>(threadIdx.x);
  for (int k = static_cast<int>(threadIdx.y); k < Tile; k += 8) {
    if (t0 + k < taps.rows && c0 + x < taps.width) tile[k][x] = taps(t0 + k, c0 + x);
  }
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.y); k < Tile; k += 8) {
    if (t0 + x < taps.rows && c0 + k < taps.width) to[(c0 + k) * pitch + t0 + x] = tile[x][k];
  }
}

/// total += the sum over k < count of the matrices partial[k] of its shape, in a fixed order: `Threads` threads per number, each
/// over every so-manieth k.
template <int Threads>
__global__ void __launch_bounds__(32 * Threads) add_sums_kernel(const float* partial, Index count, Rows<float> total) {
  __shared__ float tile[Threads][32];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const Index size = total.rows * total.width, own = static_cast<Index>(blockIdx.x) * 32 + x;
  float sum = 0;
  if (own < size) {
    for (Index k = y; k < count; k += Threads) sum += partial[k * size + own];
  }
  tile[y][x] = sum;
  __syncthreads();
  if (y > 0 || own >= size) return;
  for (int k = 1; k < Threads; ++k) sum += tile[k][x];
  total(own / total.width, own % total.width) += sum;
}

/// dbias[i, c] += the sum over sequences of dc = dy, times gate where there is one, in their order.
template <class S>
__global__ void __launch_bounds__(128)
    add_position_bias_kernel(Sequences sequences, Rows<const S> gate, Rows<const S> dy, Rows<float> dbias) {
  const int c = static_cast<int>(blockIdx.y * 128 + threadIdx.x), i = static_cast<int>(blockIdx.x);
  if (c >= dbias.width) return;
  float sum = 0;
  for (int s = 0; s < sequences.sequences; ++s) {
    if (i >= sequences.size(s)) continue;
    const Index row = sequences.begin(s) + i;
    const float d = to_float(dy(row, c));
    sum += gate.rows > 0 ? d * to_float(gate(row, c)) : d;
  }
  dbias(i, c) += sum;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

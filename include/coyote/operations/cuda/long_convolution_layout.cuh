// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_words.cuh"

/// Between rows [rows, width] and channel-major lines: tiles of 64 rows by 64 channels turned in shared memory, with the
/// elementwise work of a long convolution (gates, biases and their gradients) done on the way. Bytes: each value once in and out.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// What lines of twice the length hold (Lines::fold 2; see Wrap in long_convolution.cuh).
enum class Fold { repeat, after_zeros };

inline constexpr int layout_channels = 64;  ///< of a tile; its rows are the kernels' parameter `TileRows`
inline constexpr dim3 layout_block{64, 4};

/// Tiles of rows, of all sequences, each as many as the longest needs.
inline Index layout_tiles(const Sequences& sequences, int tile_rows) {
  return sequences.sequences * ceil_div(sequences.length, tile_rows);
}
/// A block's tile. Neighbours in the grid are neighbours in channels, so that rows are read whole at about the same time.
template <int TileRows>
struct LayoutPlace {
  int tile, s, t0, c0;
  __device__ LayoutPlace(const Sequences& sequences, int width, int block) {
    const int across = (width + layout_channels - 1) / layout_channels, along = (sequences.length + TileRows - 1) / TileRows;
    tile = block / across;
    c0 = block % across * layout_channels;
    s = tile / along;
    t0 = tile % along * TileRows;
  }
};

/// lines = from, times gate where there is one; dgate = from * convolved where wanted. sums [tiles][width], where wanted,
/// gets the sums of each tile's rows.
template <class S>
__global__ void __launch_bounds__(256)
    to_lines_kernel(Sequences sequences, Rows<const S> from, Rows<const S> gate, Rows<const S> convolved, Rows<S> dgate,
                    Lines lines, Fold fold, S* to, float* sums) {
  __shared__ float tile[layout_channels][layout_channels + 1];
  __shared__ float partial[4][layout_channels];
  const int width = static_cast<int>(from.width);
  const int block = static_cast<int>(blockIdx.x);
  const auto [row_tile, s, t0, c0] = LayoutPlace<layout_channels>(sequences, width, block);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int n = sequences.size(s);
  const Index first = sequences.begin(s);
  const int c = c0 + x;
  float sum = 0;
#pragma unroll 4
  for (int k = y; k < layout_channels; k += 4) {
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
    sums[static_cast<Index>(row_tile) * width + c] = partial[0][x] + partial[1][x] + partial[2][x] + partial[3][x];
  }
  const int t = t0 + x;
  if (t >= n) return;
#pragma unroll 4
  for (int k = y; k < layout_channels; k += 4) {
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
  bool add = false;  ///< not where there is a gate

  __device__ void operator()(Index row, int position, int c, float value) const {
    if (bias.rows > 0) value += bias(bias.rows == 1 ? 0 : position, c);
    if (convolved.rows > 0) convolved(row, c) = from_float<S>(value);
    if (gate.rows > 0) value *= to_float(gate(row, c));
    if (add) value += to_float(y(row, c));
    y(row, c) = from_float<S>(value);
  }
  /// The matrix whose rows the second form wants beside the values: the gate, or what is added to; without rows if neither.
  __device__ Rows<const S> beside() const { return gate.rows > 0 ? gate : add ? Rows<const S>(y) : Rows<const S>(); }
  /// The bias of channels c .. c + 7, as far as there are `valid`; read once, it serves all positions if it has one row.
  __device__ Eight bias_at(int position, int c, int valid) const {
    Eight result = {};
    if (bias.rows == 0) return result;
    const float* const from = &bias(bias.rows == 1 ? 0 : position, c);
#pragma unroll
    for (int k = 0; k < 8; ++k) result.at[k] = k < valid ? from[k] : 0.0f;
    return result;
  }
  /// The same as above for channels c .. c + 7, as far as there are `valid`, but for the writing of y: what is to be written.
  __device__ uint4 values(Index row, int c, uint4 words, int valid, const Eight& own_bias,
                          uint4 other) const requires std::same_as<S, bf16> {
    Eight values = widen(words);
    if (bias.rows > 0) values = values + own_bias;
    if (convolved.rows > 0) store_8(&convolved(row, c), pack(values), valid);
    if (gate.rows > 0) values = values * widen(other);
    if (add) values = values + widen(other);
    return pack(values);
  }
  /// Is there anything to do but to write?
  __host__ __device__ bool changes() const { return bias.rows > 0 || convolved.rows > 0 || gate.rows > 0 || add; }
};

/// What a line of twice the length means for its sequence: its second half (a result), or both halves' sum (an adjoint).
template <class S>
__global__ void __launch_bounds__(256)
    from_lines_kernel(Sequences sequences, Lines lines, bool adjoint, const S* from, Epilogue<S> epilogue) {
  __shared__ float tile[layout_channels][layout_channels + 1];
  const int width = static_cast<int>(epilogue.y.width);
  // From the last to the first: the cache may still hold the lines that were written last.
  const int block = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  const auto [row_tile, s, t0, c0] = LayoutPlace<layout_channels>(sequences, width, block);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int n = sequences.size(s);
  if (t0 >= n) return;
  const int t = t0 + x;
#pragma unroll 4
  for (int k = y; k < layout_channels; k += 4) {
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
  for (int k = y; k < layout_channels; k += 4) {
    if (t0 + k < n) epilogue(first + t0 + k, t0 + k, c, tile[x][k]);
  }
}

/// Both kernels for bf16, on vectors of eight. A word of the tile holds two neighbouring rows of a channel; word p of channel c
/// stands at p ^ (c / 8 * 4), so that neither side of the exchange meets a bank twice. A thread has pairs of rows by 8 channels.
template <int TileRows>
struct WordTile {
  unsigned words[layout_channels][TileRows / 2];
  __device__ unsigned& at(int c, int p) { return words[c][p ^ (c / 8 * 4)]; }
  /// Rows 8 v .. 8 v + 7 of channel c.
  __device__ uint4& vector(int c, int v) { return *reinterpret_cast<uint4*>(&words[c][4 * (v ^ (c / 8))]); }
};

template <class S, int TileRows>
requires std::same_as<S, bf16> __global__ void __launch_bounds__(256, 4)
    to_lines_vector_kernel(Sequences sequences, Rows<const S> from, Rows<const S> gate, Rows<const S> convolved, Rows<S> dgate,
                           Lines lines, Fold fold, S* to, float* sums) {
  constexpr int pairs = TileRows / 64, vectors = TileRows / 8;
  __shared__ alignas(16) WordTile<TileRows> tile;
  __shared__ float partial[8][layout_channels];
  const int width = static_cast<int>(from.width);
  const int block = static_cast<int>(blockIdx.x);
  const auto [row_tile, s, t0, c0] = LayoutPlace<TileRows>(sequences, width, block);
  const int thread = static_cast<int>(threadIdx.x), h = thread % 8;
  const int n = sequences.size(s), c = c0 + 8 * h, valid = width - c;
  const Index first = sequences.begin(s) + t0;
  // Row r of pair k of this thread.
  const auto each_row = [&](auto&& use) {
#pragma unroll
    for (int k = 0; k < pairs; ++k) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int t = 2 * (thread / 8 + 32 * k) + r;
        if (t0 + t < n && valid > 0) use(k, r, first + t);
      }
    }
  };
  uint4 words[pairs][2] = {};
  each_row([&](int k, int r, Index row) { words[k][r] = load_8(&from(row, c), valid); });
  Eight sum = {};
  if (gate.rows > 0) {
    each_row([&](int k, int r, Index row) {
      const Eight value = widen(words[k][r]), product = value * widen(load_8(&gate(row, c), valid));
      if (dgate.rows > 0) store_8(&dgate(row, c), value * widen(load_8(&convolved(row, c), valid)), valid);
      sum = sum + product;
      words[k][r] = pack(product);
    });
  } else if (sums != nullptr) {
    each_row([&](int k, int r, Index) { sum = sum + widen(words[k][r]); });
  }
#pragma unroll
  for (int k = 0; k < pairs; ++k) {
    unsigned turned[8];
    words_of_rows(words[k], turned);
#pragma unroll
    for (int i = 0; i < 8; ++i) tile.at(8 * h + i, thread / 8 + 32 * k) = turned[i];
  }
  if (sums != nullptr) {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      float value = sum.at[k];
      value += __shfl_xor_sync(0xFFFFFFFFu, value, 8);
      value += __shfl_xor_sync(0xFFFFFFFFu, value, 16);
      if (thread % 32 < 8) partial[thread / 32][8 * h + k] = value;
    }
  }
  __syncthreads();
  if (sums != nullptr && thread < layout_channels && c0 + thread < width) {
    float value = 0;
    for (int w = 0; w < 8; ++w) value += partial[w][thread];
    sums[static_cast<Index>(row_tile) * width + c0 + thread] = value;
  }
#pragma unroll
  for (int k = 0; k < 2 * pairs; ++k) {
    const int i = thread + 256 * k, channel = i / vectors, v = i % vectors, t = t0 + 8 * v;
    if (t >= n || c0 + channel >= width) continue;
    S* const line = to + lines.begin(s) + (c0 + channel) * lines.channel_pitch;
    const uint4 value = tile.vector(channel, v);
    if (lines.fold == 2) store_8(line + n + t, value, n - t);
    store_8(line + t, lines.fold == 2 && fold == Fold::after_zeros ? make_uint4(0, 0, 0, 0) : value, n - t);
  }
}

template <class S, int TileRows>
requires std::same_as<S, bf16> __global__ void __launch_bounds__(256, 4)
    from_lines_vector_kernel(Sequences sequences, Lines lines, bool adjoint, const S* from, Epilogue<S> epilogue) {
  constexpr int pairs = TileRows / 64, vectors = TileRows / 8;
  __shared__ alignas(16) WordTile<TileRows> tile;
  const int width = static_cast<int>(epilogue.y.width);
  // From the last to the first: the cache may still hold the lines that were written last.
  const int block = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  const auto [row_tile, s, t0, c0] = LayoutPlace<TileRows>(sequences, width, block);
  const int thread = static_cast<int>(threadIdx.x), h = thread % 8;
  const int n = sequences.size(s);
  if (t0 >= n) return;
  const auto each_vector = [&](auto&& use) {
#pragma unroll
    for (int k = 0; k < 2 * pairs; ++k) {
      const int i = thread + 256 * k, channel = i / vectors, v = i % vectors, t = t0 + 8 * v;
      if (t < n && c0 + channel < width) {
        use(k, channel, v, from + lines.begin(s) + (c0 + channel) * lines.channel_pitch + t, n - t);
      }
    }
  };
  uint4 values[2 * pairs];
  each_vector([&](int k, int, int, const S* line, int valid) { values[k] = load_8(line + (lines.fold == 2 ? n : 0), valid); });
  each_vector([&](int k, int channel, int v, const S* line, int valid) {
    if (lines.fold == 2 && adjoint) values[k] = pack(widen(values[k]) + widen(load_8(line, valid)));
    tile.vector(channel, v) = values[k];
  });
  const int c = c0 + 8 * h, valid = width - c;
  const Index first = sequences.begin(s) + t0;
  const auto each_row = [&](int k, auto&& use) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int t = 2 * (thread / 8 + 32 * k) + r;
      if (t0 + t < n && valid > 0) use(r, t);
    }
  };
  const Rows<const S> beside = epilogue.beside();
  const bool changes = epilogue.changes(), one_bias = epilogue.bias.rows <= 1;
  uint4 others[pairs][2];
  Eight bias = epilogue.bias_at(0, c, valid);
#pragma unroll
  for (int k = 0; k < pairs; ++k) {
    each_row(k, [&](int r, int t) {
      if (beside.rows > 0) others[k][r] = load_8(&beside(first + t, c), valid);
    });
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < pairs; ++k) {
    unsigned words[8];
    uint4 rows[2];
#pragma unroll
    for (int i = 0; i < 8; ++i) words[i] = tile.at(8 * h + i, thread / 8 + 32 * k);
    rows_of_words(words, rows);
    each_row(k, [&](int r, int t) {
      if (!one_bias) bias = epilogue.bias_at(t0 + t, c, valid);
      if (changes) rows[r] = epilogue.values(first + t, c, rows[r], valid, bias, others[k][r]);
      store_8(&epilogue.y(first + t, c), rows[r], valid);
    });
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
#pragma unroll
  for (int k = 1; k < Threads; ++k) sum += tile[k][x];
  total(own / total.width, own % total.width) += sum;
}

inline void launch_add_sums(Context<Cuda>& context, const float* partial, Index count, Rows<float> total) {
  const auto launch = [&]<int Threads>() {
    add_sums_kernel<Threads>
        <<<static_cast<unsigned>(ceil_div(total.rows * total.width, 32)), dim3(32, Threads), 0, context.stream()>>>(partial,
                                                                                                                    count, total);
    COYOTE_CUDA_CHECK_LAUNCH("add_sums_kernel");
  };
  if (count <= 16) return launch.template operator()<4>();
  launch.template operator()<16>();
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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/long_convolution_layout.cuh"
#include "coyote/operations/cuda/long_convolution_toeplitz.cuh"

/// Toeplitz products on tensor cores for rows [rows, width] as they are, causal sequences of up to 512 rows.
///
/// A block takes some channels of a slab of 8 sequences, turns them in shared memory to [channel][sequence][row] on the way in
/// and back on the way out; the epilogue (bias, gate) is done on whole rows. A warp has a channel: Y [row, sequence] = T X, T the
/// 16 x 16 tiles of taps[l - j] in registers, one per 8 diagonals as in long_convolution_toeplitz.cuh. Results overwrite the
/// channel's inputs from the last chunk to the first, when nobody reads them any more. Bytes: each value once in and out, filters
/// once per 8 sequences (from cache). Instructions count more than either: the chunks of a row are known to the compiler, and a
/// warp moves rows of one sequence alone, so that addresses are steps.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

inline constexpr int slab_sequences = 8;

/// How a block works on rows: channels, chunks of a sequence (a power of two), warps (a multiple of 8); blocks that a
/// multiprocessor shall hold.
template <int Channels, int Chunks, int Warps, int Blocks>
struct RowShape {
  static constexpr int channels = Channels, chunks = Chunks, warps = Warps, blocks = Blocks;
  static constexpr int rows = chunks * toeplitz_chunk, threads = 32 * warps;
  static constexpr int filter_words = rows + 17;  ///< of a channel
};

/// The values of a slab: words of two neighbouring rows. Distances between lines are such that neither 8 sequences' vectors nor
/// the rows of all channels that a warp turns meet a bank twice.
template <class Shape>
struct RowTile {
  static constexpr int stride = Shape::rows / 2 + 4;  ///< words per sequence
  static constexpr int size = Shape::channels * slab_sequences * stride + 32;
  unsigned* words;

  static constexpr int channel_stride = slab_sequences * stride;

  __device__ static int place(int channel, int sequence) {
    return channel * channel_stride + sequence * stride + channel / 8 * (256 / Shape::channels);
  }
  __device__ unsigned* line(int channel, int sequence) const { return words + place(channel, sequence); }
};

/// 16 bytes that are read once: the first-level cache, of which shared memory has left little, keeps its lines for taps and
/// gates.
__device__ inline uint4 load_once(const bf16* from) {
  uint4 words;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from));
  return words;
}

/// What a thread moves between rows and a tile: 8 channels of pairs of neighbouring rows of one sequence. Reversed: the sequence
/// is read backwards, so that an adjoint is causal. Without a sequence it has no rows.
template <class Shape, bool Reversed>
struct RowMover {
  static constexpr int across = 32 / (Shape::channels / 8);  ///< pairs that a warp moves at once
  static constexpr int step = across * (Shape::warps / 8);   ///< pairs from one turn of a thread to the next
  static constexpr int turns = Shape::rows / 2 / step;

  int n = 0, first_pair, c, valid;
  Index begin_row = 0;
  int word;  ///< where the thread's first word stands, of its first channel

  __device__ RowMover(const Sequences& sequences, int first_sequence, int first_channel, int width, int thread) {
    const int half = thread % (Shape::channels / 8), warp = thread / 32, s = first_sequence + warp % 8;
    first_pair = thread % 32 / (Shape::channels / 8) + warp / 8 * across;
    c = first_channel + 8 * half;
    valid = width - c;
    word = RowTile<Shape>::place(8 * half, warp % 8) + first_pair;
    if (s < sequences.sequences && valid > 0) {
      n = sequences.size(s);
      begin_row = sequences.begin(s);
    }
  }
  __device__ int row(int turn, int r) const { return 2 * (first_pair + turn * step) + r; }
  __device__ int position(int row) const { return Reversed ? n - 1 - row : row; }

  /// A thread's way through a matrix.
  template <class T>
  struct Walk {
    T* first;
    Index stride;
    bool whole;  ///< on vectors of 16 bytes
    __device__ T* at(int turn, int r) const { return first + (2 * step * turn + r) * stride; }
  };
  template <class T>
  __device__ Walk<T> walk(Rows<T> rows) const {
    Walk<T> result{rows.data + (begin_row + position(row(0, 0))) * rows.stride + c, Reversed ? -rows.stride : rows.stride, false};
    result.whole = valid >= 8 && reinterpret_cast<std::uintptr_t>(result.first) % 16 == 0 && rows.stride % 8 == 0;
    return result;
  }
  /// The two rows of a turn; rows that are not there are 0.
  template <bool Once = false>
  __device__ void load(const Walk<const bf16>& from, int turn, uint4 (&rows)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      rows[r] = make_uint4(0, 0, 0, 0);
      if (row(turn, r) >= n) continue;
      const bf16* const at = from.at(turn, r);
      rows[r] = !from.whole ? load_8(at, valid) : Once ? load_once(at) : *reinterpret_cast<const uint4*>(at);
    }
  }
  __device__ void put(const RowTile<Shape>& tile, int turn, const uint4 (&rows)[2]) const {
    unsigned words[8];
    words_of_rows(rows, words);
#pragma unroll
    for (int i = 0; i < 8; ++i) tile.words[word + turn * step + i * RowTile<Shape>::channel_stride] = words[i];
  }
  /// What an epilogue reads beside the tile: rows, see Epilogue::beside, of as many turns as a thread has under way at once.
  static constexpr int ahead = turns < 4 ? turns : 4;
  struct Beside {
    uint4 rows[ahead][2];
  };

  /// Begins to read the first of them.
  __device__ void begin(const Epilogue<bf16>& epilogue, Beside& others) const {
    const Rows<const bf16> beside = epilogue.beside();
    if (beside.rows == 0) return;
    const Walk<const bf16> from = walk(beside);
#pragma unroll
    for (int k = 0; k < ahead; ++k) load(from, k, others.rows[k]);
  }
  /// The epilogue of all rows; each turn makes room for the rows beside a later one.
  __device__ void finish(const RowTile<Shape>& tile, const Epilogue<bf16>& epilogue, Beside& others) const {
    const Walk<bf16> to = walk(epilogue.y);
    const Rows<const bf16> beside = epilogue.beside();
    const Walk<const bf16> from = walk(beside);
    const bool changes = epilogue.changes();
#pragma unroll 1
    for (int first = 0; first < turns; first += ahead) {
#pragma unroll
      for (int k = 0; k < ahead; ++k) {
        const int turn = first + k;
        unsigned words[8];
        uint4 rows[2];
#pragma unroll
        for (int i = 0; i < 8; ++i) words[i] = tile.words[word + turn * step + i * RowTile<Shape>::channel_stride];
        rows_of_words(words, rows);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (row(turn, r) >= n) break;
          if (changes) {
            const int place = position(row(turn, r));
            const Eight bias = epilogue.bias_at(place, c, valid);
            rows[r] = epilogue.values(begin_row + place, c, rows[r], valid, bias, others.rows[k][r]);
          }
          if (to.whole) {
            *reinterpret_cast<uint4*>(to.at(turn, r)) = rows[r];
          } else {
            store_8(to.at(turn, r), rows[r], valid);
          }
        }
        if (beside.rows > 0 && turn + ahead < turns) load(from, turn + ahead, others.rows[k]);
      }
    }
  }
  /// Turns all rows into the tile.
  __device__ void fill(const RowTile<Shape>& tile, Rows<const bf16> from) const {
    constexpr int batch = turns < 4 ? turns : 4;
    const Walk<const bf16> in = walk(from);
#pragma unroll 1
    for (int turn = 0; turn < turns; turn += batch) {
      uint4 rows[batch][2];
#pragma unroll
      for (int k = 0; k < batch; ++k) load<true>(in, turn + k, rows[k]);
#pragma unroll
      for (int k = 0; k < batch; ++k) put(tile, turn + k, rows[k]);
    }
  }
};

/// Pairs of neighbouring taps of each channel, as fill_pairs has them. A thread makes 8 of them at a time.
template <class Shape>
__device__ inline void fill_row_filters(unsigned* pairs, int thread, Rows<const float> taps, int count, int first_channel) {
  constexpr int eights = Shape::rows / 8 + 2, together = Shape::threads / Shape::channels;
  constexpr int turns = (eights + together - 1) / together;
  const int channel = thread % Shape::channels, c = first_channel + channel;
  const int there = c < taps.width ? count : 0;
#pragma unroll 2
  for (int turn = 0; turn < turns; ++turn) {
    const int i = thread / Shape::channels + turn * together, t0 = 8 * i - 17;
    const float* from = taps.data + t0 * taps.stride + c;
    float own[9];  // taps t0 .. t0 + 8
#pragma unroll
    for (int k = 0; k < 9; ++k) {
      own[k] = t0 + k >= 0 && t0 + k < there ? *from : 0.0f;
      from += taps.stride;
    }
    if (i >= eights) break;
#pragma unroll
    for (int k = 0; k < 8; ++k) pairs[channel * Shape::filter_words + 8 * i + k] = pack(own[k + 1], own[k]);
  }
}

/// Has a slab's rows brought to the second-level cache, whole ones: the blocks of its channels share them.
template <class Shape>
__device__ inline void ask_for_slab(const Sequences& sequences, int first_sequence, int tile, int tiles, Rows<const bf16> rows,
                                    int thread) {
  if (rows.rows == 0) return;
  for (int i = tile + thread * tiles; i < slab_sequences * Shape::rows; i += Shape::threads * tiles) {
    const int s = first_sequence + i / Shape::rows, row = i % Shape::rows;
    if (s < sequences.sequences && row < sequences.size(s)) ask_for_row(rows.row(sequences.begin(s) + row), rows.width);
  }
}

/// Chunks of the longest sequence of a slab.
__device__ inline int chunks_of_slab(const Sequences& sequences, int first) {
  int longest = sequences.length;
  if (sequences.offsets != nullptr) {
    longest = 0;
    for (int s = first; s < min(first + slab_sequences, sequences.sequences); ++s) longest = max(longest, sequences.size(s));
  }
  return (longest + toeplitz_chunk - 1) / toeplitz_chunk;
}

/// Transposes an 8 x 8 matrix of bf16, a row's four words in four neighbouring lanes.
__device__ inline unsigned transpose_matrix(unsigned words) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(words));
  return result;
}

/// One channel of 8 sequences: y = T x in place, plus the bias, from the last rows to the first, two chunks of
/// 64 rows at a time if there are: what is read of x and of the filter serves both. pairs as in fill_pairs; of `chunks` chunks.
template <class Shape>
__device__ inline void toeplitz_channel(const RowTile<Shape>& tile, int channel, const unsigned* pairs, int chunks, int lane,
                                        float bias) {
  constexpr int halves = Shape::chunks == 1 ? 1 : 2, chunk_words = toeplitz_chunk / 2;
  const unsigned* const own = pairs + 16 + lane / 4 - 2 * (lane % 4);
  const unsigned base = shared_address(tile.line(channel, lane % 8)) + static_cast<unsigned>(lane / 8 * 16);
  unsigned* const results = tile.line(channel, lane / 4) + lane % 4;
  float sums[halves][4][4];
  unsigned inputs[2][4];
  const auto load_inputs = [&](int chunk) {
#pragma unroll
    for (int k = 0; k < 2; ++k) load_matrices(inputs[k], base + static_cast<unsigned>(chunk * 4 * chunk_words + k * 64));
  };
  // The pairs of diagonals 64 * distance + 8 e.
  const auto load_filter = [&](unsigned(&diagonals)[8], int distance) {
#pragma unroll
    for (int e = 0; e < 8; ++e) diagonals[e] = own[toeplitz_chunk * distance + 8 * e];
  };
  // Adds the inputs times one chunk's part of the filter, from its diagonals of two neighbouring distances.
  const auto multiply = [&](int half, const unsigned(&below)[8], const unsigned(&above)[8], auto on_diagonal) {
    const auto diagonal = [&](int s) { return s < 0 ? below[8 + s] : above[s]; };
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int s = 2 * i - 2 * m;
        if (decltype(on_diagonal)::value && s < 0) continue;
        const unsigned a[4] = {diagonal(s), diagonal(s + 1), diagonal(s - 1), diagonal(s)};
        multiply_add(sums[half][i], a, inputs[m / 2][m % 2 * 2], inputs[m / 2][m % 2 * 2 + 1]);
      }
    }
  };
  constexpr std::true_type on_diagonal;
  constexpr std::false_type below_diagonal;
#pragma unroll 1
  for (int last = (chunks + halves - 1) / halves * halves - 1; last >= 0; last -= halves) {
#pragma unroll
    for (int half = 0; half < halves; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[half][i][e] = 0;
      }
    }
    unsigned nothing[8] = {}, p[8], q[8], r[8];  // the filter's diagonals take turns in them
    load_filter(p, 0);
    load_inputs(last);
    multiply(halves - 1, nothing, p, on_diagonal);
    if constexpr (halves == 2) {
      const int first = last - 1;
      load_filter(q, 1);
      load_inputs(first);
      multiply(0, nothing, p, on_diagonal);
      multiply(1, p, q, below_diagonal);
      const auto step = [&](int distance, const unsigned(&low)[8], const unsigned(&middle)[8], unsigned(&high)[8]) {
        load_filter(high, distance + 1);
        load_inputs(first - distance);
        multiply(0, low, middle, below_diagonal);
        multiply(1, middle, high, below_diagonal);
        return distance == first;
      };
#pragma unroll 1
      for (int distance = 1; Shape::chunks > 2 && distance <= first; distance += 3) {
        if (step(distance, p, q, r)) break;
        if (step(distance + 1, q, r, p)) break;
        step(distance + 2, r, p, q);
      }
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < halves; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
          results[(last - halves + 1 + half) * chunk_words + i * 8 + upper * 4] =
              transpose_matrix(pack(sums[half][i][2 * upper] + bias, sums[half][i][2 * upper + 1] + bias));
        }
      }
    }
    __syncwarp();
  }
}

template <class Shape>
constexpr int row_tile_shared_memory() {
  return 4 * (RowTile<Shape>::size + Shape::channels * Shape::filter_words);
}

template <class Shape>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks)
    toeplitz_rows_kernel(Sequences sequences, int channel_tiles, Rows<const bf16> x, Rows<const float> taps,
                         Epilogue<bf16> epilogue) {
  follow();
  extern __shared__ uint4 toeplitz_memory[];
  const int thread = static_cast<int>(threadIdx.x);
  const int s0 = static_cast<int>(blockIdx.x) / channel_tiles * slab_sequences;
  const int own_channels = static_cast<int>(blockIdx.x) % channel_tiles, c0 = own_channels * Shape::channels;
  const RowTile<Shape> tile{reinterpret_cast<unsigned*>(toeplitz_memory)};
  unsigned* const pairs = tile.words + RowTile<Shape>::size;
  const RowMover<Shape, false> mover(sequences, s0, c0, static_cast<int>(x.width), thread);
  fill_row_filters<Shape>(pairs, thread, taps, sequences.length, c0);
  mover.fill(tile, x);
  const int chunks = chunks_of_slab(sequences, s0);
  typename RowMover<Shape, false>::Beside others;
  __syncthreads();
  if constexpr (Shape::chunks > 1) {  // products of one chunk are done too soon to gain by it
    ask_for_slab<Shape>(sequences, s0, own_channels, channel_tiles, epilogue.beside(), thread);
  }
  // A bias of one row joins the sums; the epilogue is left with one of many rows.
  const Rows<const float> bias = epilogue.bias.rows == 1 ? epilogue.bias : Rows<const float>();
  if (bias.rows > 0) epilogue.bias = {};
  for (int channel = thread / 32; channel < Shape::channels; channel += Shape::warps) {
    const float own_bias = bias.rows > 0 && c0 + channel < bias.width ? bias(0, c0 + channel) : 0.0f;
    toeplitz_channel(tile, channel, pairs + channel * Shape::filter_words, chunks, thread % 32, own_bias);
  }
  mover.begin(epilogue, others);
  __syncthreads();
  mover.finish(tile, epilogue, others);
}

/// The longest rows that fit in shared memory.
inline constexpr Index longest_row_tile = 512;

/// Calls use.operator()<shape>() with the forward shape for sequences of that length.
template <class Use>
decltype(auto) with_row_shape(Index longest, Use&& use) {
  if (longest <= 64) return use.template operator()<RowShape<32, 1, 8, 2>>();
  if (longest <= 128) return use.template operator()<RowShape<16, 2, 8, 3>>();
  if (longest <= 256) return use.template operator()<RowShape<16, 4, 16, 1>>();
  return use.template operator()<RowShape<16, 8, 16, 1>>();
}
/// Does a batch of causal sequences run on row tiles?
inline bool suits_row_tiles(const Context<Cuda>& context, const Sequences& sequences) {
  return sequences.length <= longest_row_tile && with_row_shape(sequences.length, [&]<class Shape>() {
           return row_tile_shared_memory<Shape>() <= context.limits().shared_memory;
         });
}

/// epilogue(taps * x) for causal sequences that suit. A template so that only those who call it compile it.
template <class S>
void toeplitz_rows(Context<Cuda>& context, const Sequences& sequences, Rows<const S> x, Rows<const float> taps,
                   const Epilogue<S>& epilogue) {
  with_row_shape(sequences.length, [&]<class Shape>() {
    const Index tiles = ceil_div(x.width, Shape::channels), blocks = tiles * ceil_div(sequences.sequences, slab_sequences);
    launch_following(context, &toeplitz_rows_kernel<Shape>, "launch of toeplitz_rows", static_cast<unsigned>(blocks),
                     Shape::threads, row_tile_shared_memory<Shape>(), sequences, static_cast<int>(tiles), x, taps, epilogue);
  });
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/column_sums.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Short convolutions whose number of taps the compiler knows. A thread owns a pack of neighbouring channels and walks over rows,
// whichever sequences those belong to, with taps and a window of rows in registers: it reads every row once, `Run` rows ahead of
// its work, and the K - 1 rows that taps reach beyond its own before the first. Walks are so long that all blocks find room at
// once. Addresses are steps, and the beginnings of sequences are bits: next to the K products of an element neither counts.

/// How a walk is cut.
struct ShortConvolutionTuning {
  int pack_bytes;  ///< of a thread's channels
  int rows;        ///< that a thread reads together, a run
  int blocks;      ///< that stay on a multiprocessor together
  friend constexpr bool operator==(ShortConvolutionTuning, ShortConvolutionTuning) = default;

  /// The same where channels can only be read one by one.
  constexpr ShortConvolutionTuning narrow() const { return {0, 4, 4}; }
};
struct ChooseShortConvolutionTuning {
  static constexpr ShortConvolutionTuning forward(Index taps, bool gated, std::size_t scalar_bytes) {
    if (scalar_bytes == 2) return {8, taps <= 4 && !gated ? 8 : 4, taps <= 4 ? 4 : 3};
    return {16, 4, taps <= 4 ? 3 : 2};
  }
  /// Taps, their gradients and the window of gradients share the registers.
  static constexpr ShortConvolutionTuning backward(Index taps, bool gated, std::size_t scalar_bytes) {
    if (taps > 4) return {4, 4, 2};
    if (gated) return scalar_bytes == 2 ? ShortConvolutionTuning{4, 8, 2} : ShortConvolutionTuning{8, 4, 2};
    return {8, 8, 2};
  }
};

/// Rows of a thread's first run that are asked for while the kernel before ends. More of them, or those of later blocks, only
/// come twice through the second-level cache.
inline constexpr int short_rows_asked = 4;

/// Most taps that stay in registers.
inline constexpr Index most_short_taps = 8;

/// What is convolved. A bias has a row for all positions or one for each.
template <class S>
struct ShortConvolutionProblem {
  Sequences sequences;
  Rows<const S> x;
  Rows<const float> taps, bias;
  Rows<const S> gate;
};

/// Everything that backward makes of a row of taps' products.
template <class S>
struct ShortConvolutionGradients {
  Rows<const S> dy;
  Rows<S> dx;
  Write write;
  Rows<S> dgate;
  bool sums;  // of taps and of a bias of one row: partial [blocks, (K + 1) * width]
};

/// Which of the rows first .. first + Count - 1 begin a sequence, and their positions. Rows behind the last one do, those before
/// row 0 do not.
template <int Count>
class SequenceStarts {
 public:
  __device__ SequenceStarts(const Sequences& sequences, std::int32_t first) {
    const auto rows = static_cast<std::int32_t>(sequences.rows);
    const std::int32_t skip = max(-first, 0);
    if (sequences.positions == nullptr) {
      position_ = sequences.position(first + skip);
      int next = skip + (position_ == 0 ? 0 : sequences.length - position_);
#pragma unroll 1
      for (; next < Count; next += sequences.length) bits_ |= 1u << next;
      return;
    }
    const std::int32_t* const positions = sequences.positions;
    position_ = positions[min(first + skip, rows - 1)];
    if (skip == 0 && first + Count <= rows) {
#pragma unroll
      for (int j = 0; j < Count; ++j) bits_ |= positions[first + j] == 0 ? 1u << j : 0u;
    } else {
#pragma unroll 1
      for (int j = skip; j < Count; ++j) bits_ |= first + j >= rows || positions[first + j] == 0 ? 1u << j : 0u;
    }
  }
  /// Does one of rows first + j .. first + j + count - 1 begin a sequence?
  __device__ bool any(int j, int count = 1) const { return (bits_ & ((1u << count) - 1) << j) != 0; }
  /// Of row first, which exists.
  __device__ std::int32_t first_position() const { return position_; }
  /// Of row first + j.
  __device__ std::int32_t position(int j) const {
    const unsigned before = bits_ & ((2u << j) - 1);
    return before == 0 ? position_ + j : j - (31 - __clz(static_cast<int>(before)));
  }

 private:
  unsigned bits_ = 0;
  std::int32_t position_;
};

/// A thread's walk: rows begin .. begin + count - 1 in turns of `Run`, a pack of channels from `column` on.
struct ShortWalk {
  Index column;
  std::int32_t begin, count = 0;

  __device__ ShortWalk(Index rows, Index width, int pack, int longest)
      : column(Index{blockIdx.y * blockDim.x + threadIdx.x} * pack) {
    const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y) * longest;
    begin = static_cast<std::int32_t>(first);
    if (column < width && first < rows) count = static_cast<std::int32_t>(min(rows - first, std::int64_t{longest}));
  }
};

/// Asks for rows first .. end - 1, in the block's columns; threads of one walk, packs of N, share them.
template <int N, class S>
__device__ void ask_for_rows(const Rows<const S>& rows, std::int32_t first, std::int32_t end) {
  const Index column = Index{blockIdx.y * blockDim.x} * N, width = min(rows.width - column, Index{blockDim.x} * N);
  const std::int32_t row = first + static_cast<std::int32_t>(threadIdx.x);
  if (row < end) ask_for_row(rows.row(row) + column, width);
}

template <int N>
__device__ Pack<N> zero_pack() {
  return make_pack<N>([](int) { return 0.0f; });
}

/// y: every thread makes a run. The first `early` blocks may start before the kernel before has ended.
template <int K, int N, int Run, int Blocks, bool Gated, class S>
__global__ void __launch_bounds__(row_threads, Blocks)
    short_convolution_kernel(ShortConvolutionProblem<S> problem, Rows<S> y, unsigned early) {
  let_next_start();
  const ShortWalk walk(y.rows, y.width, N, Run);
  if (walk.count == 0) return;
  const S* from = problem.x.row(walk.begin) + walk.column;
  const S* gate_from = Gated ? problem.gate.row(walk.begin) + walk.column : nullptr;
  if (blockIdx.y * gridDim.x + blockIdx.x < early) {
    const std::int32_t end = walk.begin + min(walk.count, short_rows_asked);
    ask_for_rows<N>(problem.x, walk.begin, end);
    if constexpr (Gated) ask_for_rows<N>(problem.gate, walk.begin, end);
  }
  wait_for_previous();
  RawPack<N, S> values[Run], gates[Gated ? Run : 1], past[K];
#pragma unroll
  for (int k = 1; k < K; ++k) {
    if (walk.begin >= k) past[k] = load_raw<N>(from - k * problem.x.stride);
  }
#pragma unroll
  for (int j = 0; j < Run; ++j) {
    if (j < walk.count) {
      values[j] = load_raw<N>(from);
      if constexpr (Gated) gates[j] = load_raw<N>(gate_from);
    }
    from += problem.x.stride;
    if constexpr (Gated) gate_from += problem.gate.stride;
  }
  Pack<N> taps[K], window[K];
#pragma unroll
  for (int k = 0; k < K; ++k) taps[k] = load<N>(problem.taps.row(k) + walk.column);
  Pack<N> bias = problem.bias.rows == 1 ? load<N>(problem.bias.data + walk.column) : zero_pack<N>();
  const SequenceStarts<Run> starts(problem.sequences, walk.begin);
#pragma unroll
  for (int k = 1; k < K; ++k) window[k - 1] = starts.first_position() >= k ? past[k].floats() : zero_pack<N>();
  S* to = y.row(walk.begin) + walk.column;
#pragma unroll
  for (int j = 0; j < Run; ++j) {
    if (j > 0 && starts.any(j)) {
#pragma unroll
      for (int k = 0; k < K; ++k) window[k] = zero_pack<N>();
    }
#pragma unroll
    for (int k = K - 1; k > 0; --k) window[k] = window[k - 1];
    window[0] = values[j].floats();
    if (problem.bias.rows > 1) bias = load<N>(problem.bias.row(starts.position(j)) + walk.column);
    Pack<N> sum = bias;
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = fmaf(taps[k][i], window[k][i], sum[i]);
    }
    if constexpr (Gated) {
      const Pack<N> gate = gates[j].floats();
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] *= gate[i];
    }
    if (j < walk.count) store<N>(to, sum);
    to += y.stride;
  }
}

/// All gradients, walking towards earlier rows with a window of the gradients of the rows behind: dx[i] = sum_k taps[k] dc[i + k]
/// and dtaps[k] += x[i] dc[i + k], dc = dy * gate. Blocks leave their sums for taps and bias in partial.row(blockIdx.x).
template <int K, int N, int Run, int Blocks, bool Gated, class S>
__global__ void __launch_bounds__(row_threads, Blocks)
    short_convolution_backward_kernel(ShortConvolutionProblem<S> problem, ShortConvolutionGradients<S> gradients, int longest,
                                      Rows<float> partial) {
  let_next_start();
  constexpr int before = Gated ? K - 1 : 0;  // rows of x before a run that its outputs need
  __shared__ float shared[(K + 1) * N][row_threads];
  const ShortWalk walk(problem.x.rows, problem.x.width, N, longest);
  Pack<N> dtaps[K], dbias = zero_pack<N>();
#pragma unroll
  for (int k = 0; k < K; ++k) dtaps[k] = zero_pack<N>();
  if (walk.count > 0) {
    // Of the run that comes first, the last, and of gradients the rows behind that taps reach.
    const std::int32_t first = walk.begin + (walk.count - 1) / Run * Run + max(Run - short_rows_asked, 0);
    const std::int32_t end = walk.begin + walk.count;
    const auto behind = static_cast<std::int32_t>(min(problem.x.rows, Index{end + K - 1}));
    ask_for_rows<N>(problem.x, first, end);
    ask_for_rows<N>(gradients.dy, first, behind);
    if constexpr (Gated) ask_for_rows<N>(problem.gate, first, behind);
  }
  wait_for_previous();
  if (walk.count > 0) {
    // The walk's last run, which may lack rows at the batch's end: they count as zeros. Pointers are at the row read next, or
    // written next.
    int done = (walk.count - 1) / Run * Run;
    const std::int32_t last = walk.begin + done + Run - 1;
    const S *x_from = problem.x.row(last) + walk.column, *dy_from = gradients.dy.row(last) + walk.column;
    const S* gate_from = Gated ? problem.gate.row(last) + walk.column : nullptr;
    S* dx_to = gradients.dx.row(last) + walk.column;
    S* dgate_to = Gated ? gradients.dgate.row(last) + walk.column : nullptr;
    RawPack<N, S> values[before + Run], dys[Run], gates[Gated ? Run : 1];
    const auto read_gradient = [&](int j) {
      dys[j] = load_raw<N>(dy_from);
      if constexpr (Gated) gates[j] = load_raw<N>(gate_from);
    };
    const auto read_value = [&](int j) { values[j] = load_raw<N>(x_from); };
    const auto step = [&] {
      x_from -= problem.x.stride;
      dy_from -= gradients.dy.stride;
      if constexpr (Gated) gate_from -= problem.gate.stride;
    };
#pragma unroll
    for (int j = Run - 1; j >= 0; --j) {
      dys[j] = gates[Gated ? j : 0] = values[before + j] = {};
      if (done + j < walk.count) {
        read_gradient(j);
        read_value(before + j);
      }
      step();
    }
#pragma unroll
    for (int j = before - 1; j >= 0; --j) {
      values[j] = {};
      if (walk.begin + done - before + j >= 0) read_value(j);
      x_from -= problem.x.stride;
    }
    Pack<N> taps[K], window[K];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      taps[k] = load<N>(problem.taps.row(k) + walk.column);
      window[k] = zero_pack<N>();
    }
    Pack<N> bias = Gated && problem.bias.rows == 1 ? load<N>(problem.bias.data + walk.column) : zero_pack<N>();
    const std::int32_t end = last + 1;
    const SequenceStarts<K> behind(problem.sequences, end);
#pragma unroll
    for (int k = 1; k < K; ++k) {
      if (end - 1 + k >= problem.x.rows || behind.any(0, k)) continue;
      Pack<N> dc = load<N>(gradients.dy.row(end - 1 + k) + walk.column);
      if constexpr (Gated) {
        const Pack<N> gate = load<N>(problem.gate.row(end - 1 + k) + walk.column);
#pragma unroll
        for (int i = 0; i < N; ++i) dc[i] *= gate[i];
      }
      window[k - 1] = dc;  // moves up when row end - 1 enters
    }
    for (; done >= 0; done -= Run) {
      // Of rows from `before` the run to the one behind it.
      const SequenceStarts<before + Run + 1> starts(problem.sequences, walk.begin + done - before);
#pragma unroll
      for (int j = Run - 1; j >= 0; --j) {
        const bool there = done + j < walk.count;
        if (starts.any(before + j + 1)) {
#pragma unroll
          for (int k = 0; k < K; ++k) window[k] = zero_pack<N>();
        }
#pragma unroll
        for (int k = K - 1; k > 0; --k) window[k] = window[k - 1];
        window[0] = dys[j].floats();
        const Pack<N> value = values[before + j].floats();
        if constexpr (Gated) {
          if (problem.bias.rows > 1) bias = load<N>(problem.bias.row(starts.position(before + j)) + walk.column);
          Pack<N> convolved = bias;
#pragma unroll
          for (int k = 0; k < K; ++k) {
            if (k > 0 && starts.any(before + j - k + 1, k)) continue;
            const Pack<N> past = values[before + j - k].floats();
#pragma unroll
            for (int i = 0; i < N; ++i) convolved[i] = fmaf(taps[k][i], past[i], convolved[i]);
          }
          const Pack<N> dy = window[0], gate = gates[j].floats();
          if (there) store<N>(dgate_to, make_pack<N>([&](int i) { return dy[i] * convolved[i]; }));
#pragma unroll
          for (int i = 0; i < N; ++i) window[0][i] *= gate[i];
        }
        Pack<N> dx = zero_pack<N>();
#pragma unroll
        for (int k = 0; k < K; ++k) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            dx[i] = fmaf(taps[k][i], window[k][i], dx[i]);
            dtaps[k][i] = fmaf(value[i], window[k][i], dtaps[k][i]);
          }
        }
#pragma unroll
        for (int i = 0; i < N; ++i) dbias[i] += window[0][i];
        if (there && gradients.write == Write::add) {
          const Pack<N> old = load<N>(static_cast<const S*>(dx_to));
#pragma unroll
          for (int i = 0; i < N; ++i) dx[i] += old[i];
        }
        if (there && gradients.write != Write::none) store<N>(dx_to, dx);
        dx_to -= gradients.dx.stride;
        if constexpr (Gated) dgate_to -= gradients.dgate.stride;
        // The same row of the run before, as soon as this one is done with. With a gate there would be more loads on their way
        // than can be waited for one by one: it reads them all at the end.
        if constexpr (!Gated) {
          if (done > 0) {
            read_gradient(j);
            read_value(j);
          }
          step();
        }
      }
      if constexpr (Gated) {
        if (done == 0) break;
#pragma unroll
        for (int j = before - 1; j >= 0; --j) values[Run + j] = values[j];
#pragma unroll
        for (int j = Run - 1; j >= 0; --j) {
          read_gradient(j);
          if (j >= before || walk.begin + done - Run - before + j >= 0) read_value(j);
          step();
        }
      }
    }
  }
  if (!gradients.sums) return;
  // The block's sums: threads of one column stand blockDim.x apart.
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int k = 0; k < K; ++k) shared[k * N + i][thread] = dtaps[k][i];
    shared[K * N + i][thread] = dbias[i];
  }
  __syncthreads();
  for (unsigned place = thread; place < (K + 1) * N * blockDim.x; place += threads) {
    const unsigned x = place % blockDim.x, matrix = place / blockDim.x, k = matrix / N, i = matrix % N;
    float sum = 0;
    for (unsigned y = 0; y < blockDim.y; ++y) sum += shared[matrix][y * blockDim.x + x];
    const Index column = (Index{blockIdx.y} * blockDim.x + x) * N + i;
    if (column < problem.x.width) partial(blockIdx.x, k * problem.x.width + column) = sum;
  }
}

template <int K, bool Gated, class S>
void launch_short_convolution(Context<Cuda>& context, const ShortConvolutionProblem<S>& problem, Rows<S> y) {
  constexpr ShortConvolutionTuning wide = ChooseShortConvolutionTuning::forward(K, Gated, sizeof(S));
  with_packs_of<S, wide.pack_bytes>(
      y.width,
      [&](auto n) {
        constexpr ShortConvolutionTuning tuning = n() == 1 ? wide.narrow() : wide;
        const Index packs = y.width / n();
        const auto early = static_cast<unsigned>(tuning.blocks * context.limits().multiprocessors);
        launch_following(context, &short_convolution_kernel<K, n(), tuning.rows, tuning.blocks, Gated, S>,
                         "launch of short_convolution", row_grid(ceil_div(y.rows, tuning.rows), packs), row_block(packs), 0,
                         problem, y, early);
      },
      y, problem.x, problem.taps, problem.bias, problem.gate);
}

template <int K, bool Gated, class S>
void launch_short_convolution_backward(Context<Cuda>& context, const ShortConvolutionProblem<S>& problem,
                                       const ShortConvolutionGradients<S>& gradients, Rows<float> dtaps, Rows<float> dbias) {
  constexpr ShortConvolutionTuning wide = ChooseShortConvolutionTuning::backward(K, Gated, sizeof(S));
  with_packs_of<S, wide.pack_bytes>(
      problem.x.width,
      [&](auto n) {
        constexpr ShortConvolutionTuning tuning = n() == 1 ? wide.narrow() : wide;
        const Index width = problem.x.width, packs = width / n();
        // Blocks at most 32 packs wide, so that a block's sums are of many rows, and walks as long as it takes for all blocks to
        // find room at once.
        const auto across = static_cast<unsigned>(std::min<Index>(packs, 32));
        const dim3 block(across, row_threads / across);
        const Index columns = ceil_div(packs, across), runs = ceil_div(problem.x.rows, tuning.rows);
        const Index room = std::max<Index>(1, Index{tuning.blocks} * context.limits().multiprocessors / columns);
        const Index turns = ceil_div(runs, room * block.y), blocks = ceil_div(runs, turns * block.y);
        const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(columns));
        const PartialSums partial = gradients.sums ? context.make_partial_sums(blocks, (K + 1) * width) : PartialSums{};
        launch_following(context, &short_convolution_backward_kernel<K, n(), tuning.rows, tuning.blocks, Gated, S>,
                         "launch of short_convolution_backward", grid, block, 0, problem, gradients,
                         static_cast<int>(turns * tuning.rows), partial.rows);
        if (!gradients.sums) return;
        if (dtaps.rows > 0) {
          add_column_sums(context, partial, dtaps, dbias);
        } else {
          add_column_sums(context, PartialSums{partial.rows.columns(K * width, width), partial.waits}, dbias);
        }
      },
      problem.x, problem.taps, problem.bias, problem.gate, gradients.dy, gradients.dx, gradients.dgate);
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

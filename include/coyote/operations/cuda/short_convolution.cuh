// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/column_sums.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

// A thread owns a pack of neighbouring channels and a run of rows, whichever sequences those belong to: it reads all of the run,
// and the few rows before (forward) or behind it (backward) that taps reach, before it writes the first result. The taps of its
// channels stay in registers, so a row costs its bytes and K products; what a run reads beyond its own rows comes from the
// caches.

/// How a short convolution is cut.
struct ShortConvolutionTuning {
  int pack_bytes;  ///< of a thread's channels
  int rows;        ///< that a thread reads at once
  int blocks;      ///< that stay on a multiprocessor together
  friend constexpr bool operator==(ShortConvolutionTuning, ShortConvolutionTuning) = default;

  /// The same where channels can only be read one by one.
  constexpr ShortConvolutionTuning narrow() const { return {0, 4, 4}; }
};
struct ChooseShortConvolutionTuning {
  static constexpr ShortConvolutionTuning forward(Index taps, std::size_t scalar_bytes) {
    if (scalar_bytes == 2) return {8, taps <= 4 ? 8 : 4, 3};
    return {16, 4, taps <= 4 ? 3 : 2};
  }
  /// Taps' gradients and the window of gradients share the registers.
  static constexpr ShortConvolutionTuning backward(Index taps, bool gated, std::size_t scalar_bytes) {
    if (taps > 4) return {4, 4, 2};
    if (scalar_bytes == 2) return {4, gated ? 4 : 8, 3};
    return {8, 8, 2};
  }
};

/// Most taps that stay in registers.
inline constexpr Index most_short_taps = 8;

/// Walks over the rows of a batch and knows each one's position in its sequence.
struct PositionWalk {
  Sequences sequences;
  std::int64_t row;
  std::int32_t position;

  __device__ PositionWalk(const Sequences& sequences_, std::int64_t row_)
      : sequences(sequences_), row(row_), position(sequences_.position(row_)) {}
  __device__ void next() {
    ++row;
    if (sequences.positions != nullptr) {
      if (row < sequences.rows) position = sequences.positions[row];
    } else if (++position == sequences.length) {
      position = 0;
    }
  }
};

template <class S>
struct ShortConvolutionProblem {
  Sequences sequences;
  Rows<const S> x;
  Rows<const float> taps, bias;
  Rows<const S> gate;

  /// Of positions: 0 where one bias serves all.
  __device__ const float* bias_row(std::int32_t position) const { return bias.row(bias.rows == 1 ? 0 : position); }
};

/// K taps: every thread makes `Run` rows of N channels.
template <int K, int N, int Run, int Blocks, bool Gated, class S>
__global__ void __launch_bounds__(row_threads, Blocks) short_convolution_kernel(ShortConvolutionProblem<S> problem, Rows<S> y) {
  follow();
  const Index column = Index{blockIdx.y * blockDim.x + threadIdx.x} * N;
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y) * Run;
  const std::int64_t rows = y.rows;
  if (column >= y.width || first >= rows) return;

  RawPack<N, S> values[K - 1 + Run], gates[Gated ? Run : 1];
#pragma unroll
  for (int j = 0; j < K - 1 + Run; ++j) {
    const std::int64_t row = first + j - (K - 1);
    if (row >= 0 && row < rows) values[j] = load_raw<N>(problem.x.row(row) + column);
  }
  if constexpr (Gated) {
#pragma unroll
    for (int j = 0; j < Run; ++j) {
      if (first + j < rows) gates[j] = load_raw<N>(problem.gate.row(first + j) + column);
    }
  }
  Pack<N> taps[K];
#pragma unroll
  for (int k = 0; k < K; ++k) taps[k] = load<N>(problem.taps.row(k) + column);
  const bool one_bias = problem.bias.rows == 1;
  Pack<N> bias = make_pack<N>([](int) { return 0.0f; });
  if (one_bias) bias = load<N>(problem.bias.data + column);

  PositionWalk walk(problem.sequences, first);
  const auto make_rows = [&]<bool Masked>(std::bool_constant<Masked>) {
    // With a window that slides, every value is converted once.
    Pack<N> window[K];
#pragma unroll
    for (int k = 1; k < K; ++k) window[k] = values[K - 1 - k].floats();
#pragma unroll
    for (int j = 0; j < Run; ++j) {
      if (first + j >= rows) break;
      window[0] = values[K - 1 + j].floats();
      Pack<N> sum = bias;
      if (problem.bias.rows > 1) sum = load<N>(problem.bias.row(walk.position) + column);
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (Masked && walk.position < k) break;
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] = fmaf(taps[k][i], window[k][i], sum[i]);
      }
      if constexpr (Gated) {
        const Pack<N> gate = gates[j].floats();
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] *= gate[i];
      }
      store<N>(y.row(first + j) + column, sum);
#pragma unroll
      for (int k = K - 1; k > 0; --k) window[k] = window[k - 1];
      walk.next();
    }
  };
  // Most runs see no beginning of a sequence.
  const std::int64_t last = first + Run - 1;
  if (walk.position >= K - 1 && last < rows && problem.sequences.position(last) == walk.position + Run - 1) {
    make_rows(std::false_type{});
  } else {
    make_rows(std::true_type{});
  }
}

/// Any number of taps: a thread makes one pack of one row.
template <class S>
struct ConvolvedRow {
  ShortConvolutionProblem<S> problem;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const std::int32_t position = problem.sequences.position(row);
    Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
    if (problem.bias.rows > 0) sum = load<N>(problem.bias_row(position) + column);
    const auto count = static_cast<std::int32_t>(problem.taps.rows < position + 1 ? problem.taps.rows : position + 1);
#pragma unroll 4
    for (std::int32_t k = 0; k < count; ++k) {
      const Pack<N> tap = load<N>(problem.taps.row(k) + column), value = load<N>(problem.x.row(row - k) + column);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = fmaf(tap[i], value[i], sum[i]);
    }
    if (problem.gate.rows > 0) {
      const Pack<N> gate = load<N>(problem.gate.row(row) + column);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] *= gate[i];
    }
    return sum;
  }
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

/// Every thread walks over `turns` runs of `Run` rows, from the last row to the first, with a window of the gradients of the rows
/// behind: dx[i] = sum_k taps[k] dc[i + k] and dtaps[k] += x[i] dc[i + k], dc = dy * gate. Blocks leave their sums for taps and
/// bias in partial.row(blockIdx.x).
template <int K, int N, int Run, int Blocks, bool Gated, class S>
__global__ void __launch_bounds__(row_threads, Blocks)
    short_convolution_backward_kernel(ShortConvolutionProblem<S> problem, ShortConvolutionGradients<S> gradients, int turns,
                                      Rows<float> partial) {
  follow();
  __shared__ float shared[row_threads * N];
  const Index column = Index{blockIdx.y * blockDim.x + threadIdx.x} * N;
  const std::int64_t rows = problem.x.rows;
  const std::int64_t begin = (static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y) * turns * Run;
  const bool inside = column < problem.x.width && begin < rows;
  const auto zero = [] { return make_pack<N>([](int) { return 0.0f; }); };
  Pack<N> dtaps[K], dbias = zero();
#pragma unroll
  for (int k = 0; k < K; ++k) dtaps[k] = zero();

  if (inside) {
    Pack<N> taps[K], window[K];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      taps[k] = load<N>(problem.taps.row(k) + column);
      window[k] = zero();
    }
    const bool one_bias = problem.bias.rows == 1;
    Pack<N> bias = zero();
    if (Gated && one_bias) bias = load<N>(problem.bias.data + column);
    const auto gradient = [&](const RawPack<N, S>& dy, const RawPack<N, S>& gate) {
      Pack<N> result = dy.floats();
      if constexpr (Gated) {
        const Pack<N> factor = gate.floats();
#pragma unroll
        for (int i = 0; i < N; ++i) result[i] *= factor[i];
      }
      return result;
    };
    // Behind the last row: window[k] is the gradient of row end - 1 + k, as far as it belongs to the same sequence.
    const std::int64_t end =
        begin + static_cast<std::int64_t>(turns) * Run < rows ? begin + static_cast<std::int64_t>(turns) * Run : rows;
#pragma unroll
    for (int k = 1; k < K; ++k) {
      const std::int64_t row = end - 1 + k;
      if (row < rows && problem.sequences.position(row) >= k) {
        RawPack<N, S> dy = load_raw<N>(gradients.dy.row(row) + column), gate = dy;
        if constexpr (Gated) gate = load_raw<N>(problem.gate.row(row) + column);
        window[k - 1] = gradient(dy, gate);  // moves up when row end - 1 enters
      }
    }
    for (int turn = turns - 1; turn >= 0; --turn) {
      const std::int64_t first = begin + static_cast<std::int64_t>(turn) * Run;
      if (first >= rows) continue;
      constexpr int before = Gated ? K - 1 : 0;
      RawPack<N, S> values[before + Run], dys[Run], gates[Gated ? Run : 1];
#pragma unroll
      for (int j = 0; j < Run; ++j) {
        if (first + j < rows) {
          dys[j] = load_raw<N>(gradients.dy.row(first + j) + column);
          if constexpr (Gated) gates[j] = load_raw<N>(problem.gate.row(first + j) + column);
        }
      }
#pragma unroll
      for (int j = 0; j < before + Run; ++j) {
        const std::int64_t row = first + j - before;
        if (row >= 0 && row < rows) values[j] = load_raw<N>(problem.x.row(row) + column);
      }
      const std::int64_t last = first + Run - 1;
      const std::int32_t position = problem.sequences.position(first);
      // Positions of the run's rows, and whether a row is its sequence's last, by position of the next one.
      const bool plain = last + 1 < rows && position >= before && problem.sequences.position(last + 1) == position + Run;
      const auto make_rows = [&]<bool Masked>(std::bool_constant<Masked>) {
#pragma unroll
        for (int j = Run - 1; j >= 0; --j) {
          const std::int64_t row = first + j;
          if (Masked && row >= rows) continue;
          std::int32_t here = position + j;
          if (Masked) {
            here = problem.sequences.position(row);
            if (row + 1 < rows && problem.sequences.position(row + 1) == 0) {
#pragma unroll
              for (int k = 0; k < K; ++k) window[k] = zero();
            }
          }
#pragma unroll
          for (int k = K - 1; k > 0; --k) window[k] = window[k - 1];
          const Pack<N> value = values[before + j].floats();
          if constexpr (Gated) {
            Pack<N> convolved = bias;
            if (problem.bias.rows > 1) convolved = load<N>(problem.bias.row(here) + column);
#pragma unroll
            for (int k = 0; k < K; ++k) {
              if (Masked && here < k) break;
              const Pack<N> past = values[before + j - k].floats();
#pragma unroll
              for (int i = 0; i < N; ++i) convolved[i] = fmaf(taps[k][i], past[i], convolved[i]);
            }
            const Pack<N> dy = dys[j].floats(), gate = gates[j].floats();
            window[0] = make_pack<N>([&](int i) { return dy[i] * gate[i]; });
            store<N>(gradients.dgate.row(row) + column, make_pack<N>([&](int i) { return dy[i] * convolved[i]; }));
          } else {
            window[0] = dys[j].floats();
          }
          Pack<N> dx = zero();
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
          if (gradients.write == Write::none) continue;
          S* to = gradients.dx.row(row) + column;
          if (gradients.write == Write::add) {
            const Pack<N> old = load<N>(static_cast<const S*>(to));
#pragma unroll
            for (int i = 0; i < N; ++i) dx[i] += old[i];
          }
          store<N>(to, dx);
        }
      };
      if (plain) {
        make_rows(std::false_type{});
      } else {
        make_rows(std::true_type{});
      }
    }
  }
  if (!gradients.sums) return;
  // The block's sums, one tap after the other: threads of one column stand blockDim.x apart.
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  const auto reduce = [&](const Pack<N>& mine, Index place) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; ++i) shared[i * row_threads + thread] = mine[i];
    __syncthreads();
    // Every thread adds up one column's element, as many as there are.
    for (unsigned element = thread; element < blockDim.x * N; element += blockDim.x * blockDim.y) {
      const unsigned x = element / N, i = element % N;
      float sum = 0;
      for (unsigned other = 0; other < blockDim.y; ++other) sum += shared[i * row_threads + other * blockDim.x + x];
      const Index target = Index{blockIdx.y} * blockDim.x * N + element;
      if (target < problem.x.width) partial(blockIdx.x, place * problem.x.width + target) = sum;
    }
  };
#pragma unroll
  for (int k = 0; k < K; ++k) reduce(dtaps[k], k);
  reduce(dbias, K);
}

/// dc of a row: dy, times the gate where there is one.
template <class S>
struct ConvolvedGradient {
  Rows<const S> dy, gate;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    Pack<N> result = load<N>(dy.row(row) + column);
    if (gate.rows == 0) return result;
    const Pack<N> factor = load<N>(gate.row(row) + column);
#pragma unroll
    for (int i = 0; i < N; ++i) result[i] *= factor[i];
    return result;
  }
};

/// dx of a row for any number of taps.
template <class S>
struct ShortConvolutionInputGradient {
  ShortConvolutionProblem<S> problem;
  Rows<const S> dy;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const ConvolvedGradient<S> gradient{dy, problem.gate};
    Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
    for (std::int32_t k = 0; k < problem.taps.rows && row + k < dy.rows; ++k) {
      if (problem.sequences.position(row + k) < k) break;
      const Pack<N> tap = load<N>(problem.taps.row(k) + column), d = gradient.template operator()<N>(row + k, column);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = fmaf(tap[i], d[i], sum[i]);
    }
    return sum;
  }
};
/// dy times the value before the gate.
template <class S>
struct GateGradient {
  ConvolvedRow<S> convolved;  // without a gate
  Rows<const S> dy;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> value = convolved.template operator()<N>(row, column), gradient = load<N>(dy.row(row) + column);
    return make_pack<N>([&](int i) { return gradient[i] * value[i]; });
  }
};
/// x[row - tap] times the gradient of `row`.
template <class S>
struct ShortTapGradient {
  Sequences sequences;
  std::int32_t tap;
  Rows<const S> x;
  ConvolvedGradient<S> gradient;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    if (sequences.position(row) < tap) return make_pack<N>([](int) { return 0.0f; });
    const Pack<N> value = load<N>(x.row(row - tap) + column), d = gradient.template operator()<N>(row, column);
    return make_pack<N>([&](int i) { return value[i] * d[i]; });
  }
};

/// How a block of the backward kernel lies: at most 32 packs wide, so that its sums are of many rows.
inline dim3 sum_block(Index packs) {
  const auto x = static_cast<unsigned>(std::min<Index>(packs, 32));
  return {x, row_threads / x};
}

template <int K, bool Gated, ShortConvolutionTuning Tuning, class S>
void launch_short_convolution(Context<Cuda>& context, const ShortConvolutionProblem<S>& problem, Rows<S> y) {
  with_packs_of<S, Tuning.pack_bytes>(
      y.width,
      [&](auto n) {
        constexpr ShortConvolutionTuning tuning = n() == 1 ? Tuning.narrow() : Tuning;
        const Index packs = y.width / n();
        launch_following(context, &short_convolution_kernel<K, n(), tuning.rows, tuning.blocks, Gated, S>,
                         "launch of short_convolution", row_grid(ceil_div(y.rows, tuning.rows), packs), row_block(packs), 0,
                         problem, y);
      },
      y, problem.x, problem.taps, problem.bias, problem.gate);
}

template <int K, bool Gated, ShortConvolutionTuning Tuning, class S>
void launch_short_convolution_backward(Context<Cuda>& context, const ShortConvolutionProblem<S>& problem,
                                       const ShortConvolutionGradients<S>& gradients, Rows<float> dtaps, Rows<float> dbias) {
  with_packs_of<S, Tuning.pack_bytes>(
      problem.x.width,
      [&](auto n) {
        constexpr ShortConvolutionTuning tuning = n() == 1 ? Tuning.narrow() : Tuning;
        const Index packs = problem.x.width / n();
        const dim3 block = sum_block(packs);
        // Long walks make few partial sums: as long as it takes for all blocks to find room at once.
        const Index columns = ceil_div(packs, block.x), runs = ceil_div(problem.x.rows, tuning.rows);
        const Index room = std::max<Index>(1, Index{tuning.blocks} * context.limits().multiprocessors / columns);
        const Index turns = ceil_div(runs, room * block.y);
        const Index blocks = ceil_div(runs, turns * block.y);
        const PartialSums partial = gradients.sums ? context.make_partial_sums(blocks, (K + 1) * problem.x.width) : PartialSums{};
        const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(columns));
        launch_following(context, &short_convolution_backward_kernel<K, n(), tuning.rows, tuning.blocks, Gated, S>,
                         "launch of short_convolution_backward", grid, block, 0, problem, gradients, turns, partial.rows);
        if (!gradients.sums) return;
        if (dtaps.rows > 0) {
          add_column_sums(context, partial, dtaps, dbias);
        } else {
          const Rows<float> last = partial.rows.columns(K * problem.x.width, problem.x.width);
          add_column_sums(context, PartialSums{last, partial.waits}, dbias);
        }
      },
      problem.x, problem.taps, problem.bias, problem.gate, gradients.dy, gradients.dx, gradients.dgate);
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[i] = sum_{k = 0 .. min(i, K-1)} taps[k] x[i-k] + bias, times gate[i] when there is one. Floor: x, gate and y once.
template <class S, Index K = 0>
void short_convolution(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> taps,
                       Rows<const float> bias, Rows<const S> gate, Rows<S> y) {
  if (y.empty()) return;
  const cuda::ShortConvolutionProblem<S> problem{cuda::sequences_of(batch), x, taps, bias, gate};
  if constexpr (K >= 1 && K <= cuda::most_short_taps) {
    const auto launch = [&]<bool Gated>(std::bool_constant<Gated>) {
      cuda::launch_short_convolution<static_cast<int>(K), Gated, cuda::ChooseShortConvolutionTuning::forward(K, sizeof(S))>(
          context, problem, y);
    };
    gate.rows > 0 ? launch(std::true_type{}) : launch(std::false_type{});
  } else {
    cuda::map_rows(context, cuda::ConvolvedRow<S>{problem}, Write::overwrite, y, x, taps, bias, gate);
  }
}

/// Gradients of short_convolution; dgate = dy * (value before the gate). Up to eight taps, known to the compiler, one kernel
/// makes all of them but a bias's of many rows. Floor: x, dy and dx once, with a gate also gate and dgate.
template <class S, Index K = 0>
void short_convolution_backward(Context<Cuda>& context, const Batch& batch, Rows<const S> x, Rows<const float> taps,
                                Rows<const float> bias, Rows<const S> gate, Rows<const S> dy, Rows<S> dx, Write write,
                                Rows<S> dgate, Rows<float> dtaps, Rows<float> dbias) {
  if (x.empty()) return;
  const auto frame = context.frame();
  const cuda::ShortConvolutionProblem<S> problem{cuda::sequences_of(batch), x, taps, bias, gate};
  const cuda::ConvolvedGradient<S> gradient{dy, gate};
  const Rows<float> one_dbias = dbias.rows == 1 ? dbias : Rows<float>();
  if (write == Write::none) dx = {};
  if constexpr (K >= 1 && K <= cuda::most_short_taps) {
    const auto launch = [&]<bool Gated>(std::bool_constant<Gated>) {
      cuda::launch_short_convolution_backward<static_cast<int>(K), Gated,
                                              cuda::ChooseShortConvolutionTuning::backward(K, Gated, sizeof(S)), S>(
          context, problem, {dy, dx, write, dgate, dtaps.rows > 0 || one_dbias.rows > 0}, dtaps, one_dbias);
    };
    gate.rows > 0 ? launch(std::true_type{}) : launch(std::false_type{});
  } else {
    const cuda::ShortConvolutionProblem<S> before_gate{problem.sequences, x, taps, bias, {}};
    if (gate.rows > 0) {
      cuda::map_rows(context, cuda::GateGradient<S>{{before_gate}, dy}, Write::overwrite, dgate, x, taps, bias, dy);
    }
    cuda::map_rows(context, cuda::ShortConvolutionInputGradient<S>{problem, dy}, write, dx, taps, gate, dy);
    for (Index k = 0; k < dtaps.rows; ++k) {
      cuda::sum_rows<S>(context, x.rows, cuda::ShortTapGradient<S>{problem.sequences, static_cast<std::int32_t>(k), x, gradient},
                        dtaps.slice(k, 1), x, dy, gate);
    }
    cuda::sum_rows<S>(context, x.rows, gradient, one_dbias, dy, gate);
  }
  if (dbias.rows > 1) cuda::sum_positions<S>(context, batch, gradient, dbias, dy, gate);
}

}  // namespace coyote::inline v0

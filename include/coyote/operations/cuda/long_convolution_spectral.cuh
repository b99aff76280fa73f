// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/fft.cuh"
#include "coyote/operations/cuda/long_convolution_lines.cuh"

/// Kernels of long convolutions by transforms; channel-major. The launchers are in long_convolution_transforms.cuh.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// What the block kernels do to each row (sequence s, channel c; row s * width + c), real rows of `lines` or, with more than
/// 2^14 points, nodes of a tree whose upper levels other kernels have walked: then the channels are width / nodes channels times
/// `nodes` nodes, and rows stand one after another as complex points.
struct SpectralWork {
  Lines lines;
  int width = 0;
  int nodes = 1, level = 0;
  Values x;                          ///< rows in
  Values y;                          ///< product: rows out, may be x
  Values d;                          ///< gradient: the output's gradient; as nodes, overwritten by dx
  Values dx;                         ///< gradient: of the input; nodes: not wanted if null
  Complex* spectra = nullptr;        ///< spectrum: out
  const Complex* filter = nullptr;   ///< product, gradient: one per channel
  std::int64_t filter_sequence = 0;  ///< distance of the filters of neighbouring sequences
  bool conjugate = false;            ///< product with the conjugate filter: the adjoint
  float scale = 1;                   ///< of a spectrum
  float* lags = nullptr;             ///< gradient: [groups][width][longest], or complex nodes; null: not wanted
  int groups = 1;                    ///< of sequences, each with its sums
};

/// How rows are read and written by the threads of one transform.
template <int Log, bool Real>
struct RowAccess {
  using Shape = FftShape<Log>;

  /// use(i) for those of a thread's points that a row of n values has. Whole rows ask once, not at every point.
  template <class Use>
  __device__ static void each_point(int n, int thread, Use&& use) {
    if (n >= Shape::points) {
#pragma unroll
      for (int i = 0; i < Shape::per_thread; ++i) use(i);
    } else {
#pragma unroll
      for (int i = 0; i < Shape::per_thread; ++i) {
        if (i * Shape::threads < n - thread) use(i);
      }
    }
  }
  __device__ static void load(const SpectralWork& work, const Values& from, int thread, std::int64_t s, int c, bool there,
                              Complex* x) {
    if constexpr (Real) {
      const int n = there ? work.lines.size(s) : 0;
      const std::int64_t begin = there ? work.lines.begin(s) + c * work.lines.channel_pitch : 0;
#pragma unroll
      for (int i = 0; i < Shape::per_thread; ++i) x[i] = {0.0f, 0.0f};
      if (from.is_bf16) {
        const bf16* const row = static_cast<const bf16*>(from.data) + begin + thread;
        each_point(n, thread, [&](int i) { x[i].re = to_float(row[i * Shape::threads]); });
      } else {
        const float* const row = static_cast<const float*>(from.data) + begin + thread;
        each_point(n, thread, [&](int i) { x[i].re = row[i * Shape::threads]; });
      }
    } else {
      const Complex* const row = static_cast<const Complex*>(from.data) + ((s * work.width + c) << Log) + thread;
#pragma unroll
      for (int i = 0; i < Shape::per_thread; ++i) x[i] = row[i * Shape::threads];
    }
  }
  __device__ static void store(const SpectralWork& work, const Values& to, int thread, std::int64_t s, int c, bool there,
                               const Complex* x) {
    if (!there) return;
    if constexpr (Real) {
      const int n = work.lines.size(s);
      const std::int64_t begin = work.lines.begin(s) + c * work.lines.channel_pitch;
      if (to.is_bf16) {
        bf16* const row = static_cast<bf16*>(to.data) + begin + thread;
        each_point(n, thread, [&](int i) { row[i * Shape::threads] = from_float<bf16>(x[i].re); });
      } else {
        float* const row = static_cast<float*>(to.data) + begin + thread;
        each_point(n, thread, [&](int i) { row[i * Shape::threads] = x[i].re; });
      }
    } else {
      Complex* const row = static_cast<Complex*>(to.data) + ((s * work.width + c) << Log) + thread;
#pragma unroll
      for (int i = 0; i < Shape::per_thread; ++i) row[i * Shape::threads] = x[i];
    }
  }
};

template <int Log>
inline constexpr int fft_block = FftShape<Log>::threads* FftShape<Log>::together;
/// Blocks that a multiprocessor shall hold: 1024 threads of 64 registers, or 512 of 128 where a thread holds 32 points.
template <int Log>
inline constexpr int fft_residency = (FftShape<Log>::per_thread == 16 ? 1024 : 512) / fft_block<Log>;

/// Bytes of shared memory of the kernels below.
template <int Log>
constexpr int transform_shared_memory() {
  using Shape = FftShape<Log>;
  return (Shape::together * Shape::buffer + Shape::table_size) * static_cast<int>(sizeof(Complex));
}
template <int Log>
constexpr int gradient_shared_memory() {
  using Shape = FftShape<Log>;
  const int parked = Shape::together * Shape::points;
  return transform_shared_memory<Log>() + parked * (Shape::per_thread == 16 ? 1 : 2) * static_cast<int>(sizeof(Complex));
}

/// Spectra of rows (no filter given), or their products with a filter transformed back.
template <int Log, bool Real>
__global__ void __launch_bounds__(fft_block<Log>, fft_residency<Log>) transform_kernel(const SpectralWork work) {
  using Shape = FftShape<Log>;
  using Access = RowAccess<Log, Real>;
  extern __shared__ Complex fft_memory[];
  Complex* const table = fft_memory + Shape::together * Shape::buffer;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * Shape::together + threadIdx.y;
  const int s = static_cast<int>(row / work.width), c = static_cast<int>(row % work.width);
  const bool there = s < work.lines.sequences;
  const int thread = static_cast<int>(threadIdx.x);
  Complex x[Shape::per_thread];
  Access::load(work, work.x, thread, s, c, there, x);
  const BlockFft<Log, Real> fft{fft_memory + threadIdx.y * Shape::buffer, table, thread};
  fft.fill_table(table, static_cast<unsigned>(c % work.nodes), work.level,
                 static_cast<int>(threadIdx.y) * Shape::threads + thread, fft_block<Log>);
  __syncthreads();
  fft.forward(x);
  if (work.filter == nullptr) {
    if (!there) return;
    Complex* const to = work.spectra + (row << Log) + thread;
#pragma unroll
    for (int i = 0; i < Shape::per_thread; ++i) to[i * Shape::threads] = {x[i].re * work.scale, x[i].im * work.scale};
    return;
  }
  const Complex* const filter =
      work.filter + (there ? s * work.filter_sequence : 0) + (static_cast<std::int64_t>(c) << Log) + thread;
  const float sign = work.conjugate ? -1.0f : 1.0f;
#pragma unroll
  for (int i = 0; i < Shape::per_thread; ++i) {
    const Complex h = filter[i * Shape::threads];
    x[i] = times(x[i], {h.re, sign * h.im});
  }
  fft.inverse(x);
  Access::store(work, work.y, thread, s, c, there, x);
}

/// dx and the sums of lags over groups of sequences: a block takes one channel of one group and, per sequence, transforms
/// d and x, adds d conj(x) to its sums, and transforms d conj(filter) back; in the end its sums. What a thread keeps of x (and
/// of the sums, where registers are few) waits in shared memory of its own.
template <int Log, bool Real>
__global__ void __launch_bounds__(fft_block<Log>) gradient_kernel(const SpectralWork work) {
  using Shape = FftShape<Log>;
  using Access = RowAccess<Log, Real>;
  constexpr bool sums_in_registers = Shape::per_thread == 16;
  extern __shared__ Complex fft_memory[];
  Complex* const table = fft_memory + Shape::together * Shape::buffer;
  const int thread = static_cast<int>(threadIdx.x);
  Complex* const parked = table + Shape::table_size + threadIdx.y * Shape::points + thread;
  Complex* const sums = parked + Shape::together * Shape::points;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * Shape::together + threadIdx.y;
  const int group = static_cast<int>(row / work.width), c = static_cast<int>(row % work.width);
  const bool there = group < work.groups;
  const int per_group = (work.lines.sequences + work.groups - 1) / work.groups;
  const BlockFft<Log, Real> fft{fft_memory + threadIdx.y * Shape::buffer, table, thread};
  fft.fill_table(table, static_cast<unsigned>(c % work.nodes), work.level,
                 static_cast<int>(threadIdx.y) * Shape::threads + thread, fft_block<Log>);
  __syncthreads();

  Complex sum[sums_in_registers ? Shape::per_thread : 1];
#pragma unroll
  for (int i = 0; i < Shape::per_thread; ++i) {
    if constexpr (sums_in_registers) {
      sum[i] = {0, 0};
    } else {
      sums[i * Shape::threads] = {0, 0};
    }
  }
  // Every row of the block makes the same number of turns, because they meet at barriers.
  for (int turn = 0; turn <= per_group; ++turn) {
    const int s = group * per_group + turn;
    const bool last = turn == per_group, real_turn = there && !last && s < work.lines.sequences;
    Complex x[Shape::per_thread];
    if (last) {
      if (work.lags == nullptr) break;
      fft.meet();
#pragma unroll
      for (int i = 0; i < Shape::per_thread; ++i) {
        if constexpr (sums_in_registers) {
          x[i] = sum[i];
        } else {
          x[i] = sums[i * Shape::threads];
        }
        x[i] = {x[i].re * work.scale, x[i].im * work.scale};
      }
    } else {
#pragma unroll 1
      for (int part = work.lags != nullptr ? 0 : 1; part < 2; ++part) {
        if (Real || real_turn) Access::load(work, part == 0 ? work.x : work.d, thread, s, c, real_turn, x);
        fft.forward(x);
        if (part == 0) {
#pragma unroll
          for (int i = 0; i < Shape::per_thread; ++i) parked[i * Shape::threads] = x[i];
          fft.meet();
        }
      }
      if (work.lags != nullptr && real_turn) {
#pragma unroll
        for (int i = 0; i < Shape::per_thread; ++i) {
          const Complex product = times_conjugate(x[i], parked[i * Shape::threads]);
          Complex& to = sums_in_registers ? sum[sums_in_registers ? i : 0] : sums[i * Shape::threads];
          to = {to.re + product.re, to.im + product.im};
        }
      }
      if (work.dx.data == nullptr) {
        fft.meet();
        continue;
      }
      const Complex* const filter =
          work.filter + (real_turn ? s * work.filter_sequence : 0) + (static_cast<std::int64_t>(c) << Log) + thread;
#pragma unroll
      for (int i = 0; i < Shape::per_thread; ++i) x[i] = times_conjugate(x[i], filter[i * Shape::threads]);
    }
    fft.inverse(x);
    if (!last) {
      Access::store(work, work.dx, thread, s, c, real_turn, x);
    } else if (there) {
      if constexpr (Real) {
        float* const to = work.lags + row * work.lines.longest() + thread;
#pragma unroll
        for (int i = 0; i < Shape::per_thread; ++i) {
          if (i * Shape::threads < work.lines.longest() - thread) to[i * Shape::threads] = x[i].re;
        }
      } else {
        Complex* const to = reinterpret_cast<Complex*>(work.lags) + (row << Log) + thread;
#pragma unroll
        for (int i = 0; i < Shape::per_thread; ++i) to[i * Shape::threads] = x[i];
      }
    }
  }
}

/// One pass of P levels over trees of 2^log points in device memory, from level `level` down (Down) or back up to it; the first
/// pass reads real rows, the last writes them. Row s * width + c of z. A thread does one butterfly.
template <int P, bool Real, bool Down>
__global__ void __launch_bounds__(256)
    pass_kernel(Lines lines, int width, int log, int level, Values rows, bool as_lags, Complex* z) {
  constexpr int count = 1 << P;
  const std::int64_t id = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const std::int64_t row = id >> (log - P);
  const int g = static_cast<int>(id & ((1 << (log - P)) - 1));
  const int step = log - level - P;
  const unsigned node = static_cast<unsigned>(g >> step);
  const int first = static_cast<int>((node << (step + P)) + (static_cast<unsigned>(g) & ((1u << step) - 1)));
  const int s = static_cast<int>(row / width), c = static_cast<int>(row % width);
  if (s >= lines.sequences) return;
  Complex* const points = z + (row << log) + first;
  // Sums of lags: one line of the longest sequence's length per row.
  const int n = !Real ? 0 : as_lags ? lines.longest() : lines.size(s);
  const std::int64_t begin = !Real ? 0 : as_lags ? row * lines.longest() : lines.begin(s) + c * lines.channel_pitch;
  Roots<P> roots;
  if constexpr (Real) {
    roots = roots_of_tree<P>();
  } else {
    roots = roots_from<P>(node_root(node, level, P));
  }
  Complex x[count];
  if constexpr (Down) {
#pragma unroll
    for (int r = 0; r < count; ++r) {
      if constexpr (Real) {
        const int t = first + (r << step);
        x[r] = {0, 0};
        if (t < n) {
          x[r].re = rows.is_bf16 ? to_float(static_cast<const bf16*>(rows.data)[begin + t])
                                 : static_cast<const float*>(rows.data)[begin + t];
        }
      } else {
        x[r] = points[r << step];
      }
    }
    evaluate<P, Real>(x, roots);
#pragma unroll
    for (int r = 0; r < count; ++r) points[r << step] = x[r];
  } else {
#pragma unroll
    for (int r = 0; r < count; ++r) x[r] = points[r << step];
    interpolate<P, Real>(x, roots);
#pragma unroll
    for (int r = 0; r < count; ++r) {
      if constexpr (Real) {
        const int t = first + (r << step);
        if (t < n) {
          if (rows.is_bf16) {
            static_cast<bf16*>(rows.data)[begin + t] = from_float<bf16>(x[r].re);
          } else {
            static_cast<float*>(rows.data)[begin + t] = x[r].re;
          }
        }
      } else {
        points[r << step] = x[r];
      }
    }
  }
}

/// The upper 4 + Q levels in one pass over device memory, the exchange between the two parts in shared memory: real rows to the
/// nodes of that level (Down), or back. A block takes 256 / 2^Q neighbouring columns of 16 * 2^Q points each; a thread has 16
/// points in either part.
template <int Q, bool Down>
__global__ void __launch_bounds__(256) wide_pass_kernel(Lines lines, int width, int log, Values rows, bool as_lags, Complex* z) {
  constexpr int parts = 1 << Q, columns = 256 >> Q, nodes = 16 >> Q;
  __shared__ Complex tile[16][parts][columns];
  const int step = log - 4 - Q, tiles = (1 << step) / columns;
  const std::int64_t row = blockIdx.x / tiles;
  const int column = static_cast<int>(threadIdx.x) % columns, part = static_cast<int>(threadIdx.x) / columns;
  const int j = static_cast<int>(blockIdx.x % tiles) * columns + column;
  const int s = static_cast<int>(row / width), c = static_cast<int>(row % width);
  const int n = as_lags ? lines.longest() : lines.size(s);
  const std::int64_t begin = as_lags ? row * lines.longest() : lines.begin(s) + c * lines.channel_pitch;
  Complex* const points = z + (row << log);
  const auto place = [&](int r, int k) { return (((r << Q) + k) << step) + j; };
  // Node r of level 4, the points that this thread has of it.
  const auto each_node = [&](auto&& use) {
#pragma unroll
    for (int v = 0; v < nodes; ++v) {
      const int r = part * nodes + v;
      use(r, roots_from<Q>(node_root(static_cast<unsigned>(r), 4, Q)));
    }
  };
  Complex x[16];
  if constexpr (Down) {
#pragma unroll
    for (int r = 0; r < 16; ++r) {
      const int t = place(r, part);
      x[r] = {0, 0};
      if (t < n) {
        x[r].re = rows.is_bf16 ? to_float(static_cast<const bf16*>(rows.data)[begin + t])
                               : static_cast<const float*>(rows.data)[begin + t];
      }
    }
    evaluate<4, true>(x, roots_of_tree<4>());
#pragma unroll
    for (int r = 0; r < 16; ++r) tile[r][part][column] = x[r];
    __syncthreads();
    each_node([&](int r, const Roots<Q>& roots) {
      Complex y[parts];
#pragma unroll
      for (int k = 0; k < parts; ++k) y[k] = tile[r][k][column];
      evaluate<Q, false>(y, roots);
#pragma unroll
      for (int k = 0; k < parts; ++k) points[place(r, k)] = y[k];
    });
  } else {
    each_node([&](int r, const Roots<Q>& roots) {
      Complex y[parts];
#pragma unroll
      for (int k = 0; k < parts; ++k) y[k] = points[place(r, k)];
      interpolate<Q, false>(y, roots);
#pragma unroll
      for (int k = 0; k < parts; ++k) tile[r][k][column] = y[k];
    });
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 16; ++r) x[r] = tile[r][part][column];
    interpolate<4, true>(x, roots_of_tree<4>());
#pragma unroll
    for (int r = 0; r < 16; ++r) {
      const int t = place(r, part);
      if (t >= n) continue;
      if (rows.is_bf16) {
        static_cast<bf16*>(rows.data)[begin + t] = from_float<bf16>(x[r].re);
      } else {
        static_cast<float*>(rows.data)[begin + t] = x[r].re;
      }
    }
  }
}

/// gradient.data[t, c] += the sum over groups of lags[g][c][t], the groups in order. A block turns 32 lags of 32 channels, so
/// that both sides are read along their lines. With one sequence per group and lines of twice its rows, only its own taps count.
/// AlongTaps: the gradient's neighbouring taps are neighbours in memory; else its channels are.
template <bool AlongTaps>
__global__ void __launch_bounds__(256)
    add_lags_kernel(Lines lines, int width, int groups, const float* lags, bool own_taps, TapGradient gradient) {
  __shared__ float tile[32][33];
  const int x = static_cast<int>(threadIdx.x), t0 = static_cast<int>(blockIdx.x) * 32, c0 = static_cast<int>(blockIdx.y) * 32;
  const std::int64_t longest = lines.longest();
  for (int k = static_cast<int>(threadIdx.y); k < 32; k += 8) {
    const int t = t0 + x, c = c0 + k;
    float sum = 0;
    if (t < gradient.count && c < width) {
      for (int g = 0; g < groups; ++g) {
        if (!own_taps || t < lines.size(g) / lines.fold) sum += lags[(static_cast<std::int64_t>(g) * width + c) * longest + t];
      }
    }
    tile[k][x] = sum;
  }
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.y); k < 32; k += 8) {
    const int t = t0 + (AlongTaps ? x : k), c = c0 + (AlongTaps ? k : x);
    if (t < gradient.count && c < width) {
      gradient.data[t * gradient.tap_pitch + c * gradient.channel_pitch] += AlongTaps ? tile[k][x] : tile[x][k];
    }
  }
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

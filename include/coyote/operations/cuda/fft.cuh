// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/cuda/check.cuh"

/// The transform behind long convolutions: real rows modulo x^M - i, in the registers and the shared memory of one block.
///
/// A sequence of n <= M real rows is a polynomial u(x). Its product with the taps h(x), reduced modulo x^M - i, has the
/// causal convolution c_0 .. c_{M-1} as its real part: one transform of M complex points per real row, without zero padding.
/// At the roots of x^M = i (all on the unit circle) h(1/x) is the complex conjugate of h(x), so correlations, the adjoints,
/// are products with a conjugate.
///
/// Evaluation walks the tree of factors x^{2N} - c^2 = (x^N - c)(x^N + c): a node's butterfly is (a + c b, a - c b) with a
/// constant c for the whole node, six multiply-adds per pair of points. Spectra stay in the order of the tree. One pass does p
/// levels of the tree on 2^p points in registers; its 2^(p-1) constants are powers and fixed turns of one number per node.
///
/// Node k of level l has x^N = e(angle), e(t) = exp(2 pi i t), with angle = (1/4 + the l bits of k reversed) / 2^l.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

struct alignas(8) Complex {
  float re, im;
};

__device__ inline Complex times(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
/// a conj(b)
__device__ inline Complex times_conjugate(Complex a, Complex b) { return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im}; }

namespace detail {
struct Cosines {
  float value[33];
};
/// cos(2 pi k / 128), k = 0 .. 32.
__host__ __device__ constexpr Cosines cosines() {
  Cosines result{};
  for (int k = 0; k <= 32; ++k) {
    const double x = 6.283185307179586476925286766559 * k / 128;
    double sum = 0, term = 1;
    for (int n = 1; n < 32; n += 2) {
      sum += term;
      term *= -x * x / (n * (n + 1));
    }
    result.value[k] = k == 32 ? 0.0f : static_cast<float>(sum);
  }
  return result;
}
}  // namespace detail

/// exp(2 pi i k / 128); k is known to the compiler once loops are unrolled.
__device__ inline Complex root_of_unity_128(int k) {
  constexpr detail::Cosines table = detail::cosines();
  const auto cosine = [&](int j) {
    j &= 127;
    if (j > 64) j = 128 - j;
    return j <= 32 ? table.value[j] : -table.value[64 - j];
  };
  return {cosine(k), cosine(k + 96)};
}

/// The numbers of one node from which a pass of P levels takes its constants: at[l-1] = e(angle / 2^l).
template <int P>
struct Roots {
  Complex at[P];
};

/// From the deepest one, e(angle / 2^P), by squaring.
template <int P>
__device__ inline Roots<P> roots_from(Complex deepest) {
  Roots<P> roots;
  roots.at[P - 1] = deepest;
#pragma unroll
  for (int l = P - 2; l >= 0; --l) roots.at[l] = times(roots.at[l + 1], roots.at[l + 1]);
  return roots;
}
/// Of the tree's root, angle 1/4.
template <int P>
__device__ inline Roots<P> roots_of_tree() {
  static_assert(P <= 5);
  Roots<P> roots;
#pragma unroll
  for (int l = 1; l <= P; ++l) roots.at[l - 1] = root_of_unity_128(128 >> (l + 2));
  return roots;
}

/// The constant of sub-node `s` of a pass's level `l`, but for the factor i that odd ones have.
template <int P>
__device__ inline Complex constant(const Roots<P>& roots, int l, int s) {
  int turn = 0;
#pragma unroll
  for (int q = 0; q < 3; ++q) turn += ((s >> (1 + q)) & 1) * (16 >> q);
  return turn == 0 ? roots.at[l - 1] : times(roots.at[l - 1], root_of_unity_128(turn));
}

/// (a, b) <- (a + c b, a - c b).
__device__ inline void split(Complex& a, Complex& b, Complex c) {
  const float t_re = a.re - c.im * b.im, t_im = a.im + c.im * b.re;
  const Complex p{t_re + c.re * b.re, t_im + c.re * b.im};
  b = {2.0f * a.re - p.re, 2.0f * a.im - p.im};
  a = p;
}
/// (a, b) <- (a + i c b, a - i c b).
__device__ inline void split_turned(Complex& a, Complex& b, Complex c) {
  const float t_re = a.re - c.im * b.re, t_im = a.im + c.re * b.re;
  const Complex p{t_re - c.re * b.im, t_im - c.im * b.im};
  b = {2.0f * a.re - p.re, 2.0f * a.im - p.im};
  a = p;
}
/// Twice the inverse of split.
__device__ inline void join(Complex& a, Complex& b, Complex c) {
  const Complex d{a.re - b.re, a.im - b.im};
  a = {a.re + b.re, a.im + b.im};
  b = times_conjugate(d, c);
}
/// Twice the inverse of split_turned.
__device__ inline void join_turned(Complex& a, Complex& b, Complex c) {
  const Complex d{a.re - b.re, a.im - b.im};
  a = {a.re + b.re, a.im + b.im};
  b = {c.re * d.im - c.im * d.re, -(c.re * d.re + c.im * d.im)};
}

/// P levels of the tree below one node, from level L of them on: x[r] are points that stand a 2^P-th of the node apart. With
/// Real, the imaginary parts of x are taken as 0.
template <int P, bool Real, int L = 1>
__device__ inline void evaluate(Complex* x, const Roots<P>& roots) {
  constexpr int half = 1 << (P - L);
#pragma unroll
  for (int s = 0; s < (1 << (L - 1)); ++s) {
    const Complex c = constant(roots, L, s);
#pragma unroll
    for (int r = 0; r < half; ++r) {
      Complex& a = x[2 * s * half + r];
      Complex& b = x[(2 * s + 1) * half + r];
      if constexpr (Real && L == 1) {
        const Complex p{a.re + c.re * b.re, c.im * b.re};
        b = {2.0f * a.re - p.re, -p.im};
        a = p;
      } else if (s % 2 == 0) {
        split(a, b, c);
      } else {
        split_turned(a, b, c);
      }
    }
  }
  if constexpr (L < P) evaluate<P, Real, L + 1>(x, roots);
}
/// 2^P times the inverse of evaluate. With Real, only the real parts of x are right in the end.
template <int P, bool Real, int L = P>
__device__ inline void interpolate(Complex* x, const Roots<P>& roots) {
  constexpr int half = 1 << (P - L);
#pragma unroll
  for (int s = 0; s < (1 << (L - 1)); ++s) {
    const Complex c = constant(roots, L, s);
#pragma unroll
    for (int r = 0; r < half; ++r) {
      Complex& a = x[2 * s * half + r];
      Complex& b = x[(2 * s + 1) * half + r];
      if constexpr (Real && L == 1) {
        const Complex d{a.re - b.re, a.im - b.im};
        a.re += b.re;
        b.re = c.re * d.re + c.im * d.im;
      } else if (s % 2 == 0) {
        join(a, b, c);
      } else {
        join_turned(a, b, c);
      }
    }
  }
  if constexpr (L > 1) interpolate<P, Real, L - 1>(x, roots);
}

/// e(angle / 2^p) of node `node` of level `level`; exact arguments while the level is below 22.
__device__ inline Complex node_root(unsigned node, int level, int p) {
  const unsigned reversed = level == 0 ? 0u : __brev(node) >> (32 - level);
  Complex result;
  sincospif(ldexpf(static_cast<float>(4 * reversed + 1), -(level + p + 1)), &result.im, &result.re);
  return result;
}

/// How a block transforms 2^Log points: passes of so many levels, each on 2^levels points in registers at a time.
template <int Log>
struct FftShape {
  static_assert(7 <= Log && Log <= 14);
  static constexpr int points = 1 << Log;
  /// Levels of a pass; 0 after the last.
  __host__ __device__ static constexpr int levels(int pass) {
    constexpr int table[8][4] = {{4, 3}, {4, 4}, {4, 4, 1}, {4, 4, 2}, {4, 4, 3}, {4, 4, 4}, {5, 4, 4}, {5, 5, 4}};
    return table[Log - 7][pass];
  }
  static constexpr int passes = levels(2) == 0 ? 2 : 3;
  /// The level of the tree at which a pass begins.
  __host__ __device__ static constexpr int level(int pass) { return (pass > 0 ? levels(0) : 0) + (pass > 1 ? levels(1) : 0); }
  static constexpr int per_thread = 1 << levels(0);
  static constexpr int threads = points / per_thread;
  /// Transforms side by side in a block: at least 128 threads.
  static constexpr int together = threads >= 128 ? 1 : 128 / threads;

  /// Where a pass's node numbers begin in the table of node roots.
  __host__ __device__ static constexpr int table_offset(int pass) { return (pass > 0 ? 1 : 0) + (pass > 1 ? 1 << level(1) : 0); }
  static constexpr int table_size = table_offset(passes - 1) + (1 << level(passes - 1));

  /// Shared memory: a complex point of padding after 16, so that no pass meets a bank twice.
  __host__ __device__ static constexpr int padded(int i) { return i + (i >> 4); }
  static constexpr int buffer = points + points / 16;
};

/// One transform by FftShape<Log>::threads threads, of which this is number `thread`. With Real, of a real row, by the whole
/// tree; else of the complex points of one of the tree's nodes.
template <int Log, bool Real>
struct BlockFft {
  using Shape = FftShape<Log>;
  Complex* shared;       ///< [Shape::buffer]
  const Complex* table;  ///< [Shape::table_size], see fill_table
  int thread;

  /// The roots of all nodes below node `node` of level `level`; by all `count` threads of the block, who must meet after.
  __device__ static void fill_table(Complex* table, unsigned node, int level, int thread, int count) {
    fill_pass<0>(table, node, level, thread, count);
    fill_pass<1>(table, node, level, thread, count);
    if constexpr (Shape::passes == 3) fill_pass<2>(table, node, level, thread, count);
  }

  /// Forward after inverse and inverse after forward follow on each other as they are; two of a kind need a meeting between.
  __device__ static void meet() {
    if constexpr (Shape::threads <= 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  /// x[i], the point `thread + i * threads` of the node, becomes spectral values in an order that only `inverse` needs to know.
  __device__ void forward(Complex* x) const {
    pass_down<0>(x);
    store<0>(x);
    meet();
    load<1>(x);
    pass_down<1>(x);
    if constexpr (Shape::passes == 3) {
      store<1>(x);
      meet();
      load<2>(x);
      pass_down<2>(x);
    }
  }
  /// Shape::points times the inverse; with Real, only real parts are right.
  __device__ void inverse(Complex* x) const {
    if constexpr (Shape::passes == 3) {
      pass_up<2>(x);
      store<2>(x);
      meet();
      load<1>(x);
    }
    pass_up<1>(x);
    store<1>(x);
    meet();
    load<0>(x);
    pass_up<0>(x);
  }

 private:
  template <int Pass>
  static constexpr int per_butterfly = 1 << Shape::levels(Pass);

  template <int Pass>
  __device__ static void fill_pass(Complex* table, unsigned node, int level, int thread, int count) {
    constexpr int below = Shape::level(Pass);
    for (int i = thread; i < (1 << below); i += count) {
      table[Shape::table_offset(Pass) + i] =
          node_root((node << below) + static_cast<unsigned>(i), level + below, Shape::levels(Pass));
    }
  }
  /// A thread works on the same points in every store and load of a pass, so only a change of pass needs a barrier.
  template <int Pass, class Use>
  __device__ void each_point(Use&& use) const {
    constexpr int p = Shape::levels(Pass), size = Log - Shape::level(Pass), step = size - p;
#pragma unroll
    for (int v = 0; v < Shape::per_thread / per_butterfly<Pass>; ++v) {
      const int g = thread + Shape::threads * v;
      const int first = Shape::padded(((g >> step) << size) + (g & ((1 << step) - 1)));
#pragma unroll
      for (int r = 0; r < per_butterfly<Pass>; ++r) use(v * per_butterfly<Pass> + r, first + Shape::padded(r << step));
    }
  }
  template <int Pass>
  __device__ void store(const Complex* x) const {
    each_point<Pass>([&](int i, int at) { shared[at] = x[i]; });
  }
  template <int Pass>
  __device__ void load(Complex* x) const {
    each_point<Pass>([&](int i, int at) { x[i] = shared[at]; });
  }
  template <int Pass, class Use>
  __device__ void each_butterfly(Complex* x, Use&& use) const {
    constexpr int p = Shape::levels(Pass), step = Log - Shape::level(Pass) - p;
#pragma unroll
    for (int v = 0; v < Shape::per_thread / per_butterfly<Pass>; ++v) {
      Roots<p> roots;
      if constexpr (Real && Pass == 0) {
        roots = roots_of_tree<p>();
      } else {
        roots = roots_from<p>(table[Shape::table_offset(Pass) + ((thread + Shape::threads * v) >> step)]);
      }
      use(x + v * per_butterfly<Pass>, roots);
    }
  }
  template <int Pass>
  __device__ void pass_down(Complex* x) const {
    each_butterfly<Pass>(
        x, [](Complex* points, const auto& roots) { evaluate<Shape::levels(Pass), Real && Pass == 0>(points, roots); });
  }
  template <int Pass>
  __device__ void pass_up(Complex* x) const {
    each_butterfly<Pass>(
        x, [](Complex* points, const auto& roots) { interpolate<Shape::levels(Pass), Real && Pass == 0>(points, roots); });
  }
};

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution

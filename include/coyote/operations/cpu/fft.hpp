// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/arena.hpp"
#include "coyote/operations/cpu/simd.hpp"

/// The transform behind long convolutions: real rows modulo x^M - i.
///
/// A sequence of n <= M real rows is a polynomial u(x). Its product with the taps h(x), reduced modulo x^M - i, has the
/// causal convolution c_0 .. c_{M-1} as its real and the tail c_M .. c_{2M-1} as its imaginary part: one transform of M
/// complex points per real row, without zero padding. At the roots of x^M = i (all on the unit circle) h(1/x) is the
/// complex conjugate of h(x), so correlations, the adjoints, are products with a conjugate.
///
/// Evaluation walks the tree of factors x^{2N} - c^2 = (x^N - c)(x^N + c): a node's butterfly is (a + c b, a - c b) with a
/// constant c for the whole node, six multiply-adds per pair of complex points. Spectra stay in the order of the tree, no
/// point is ever moved, and there is neither a twist nor a table that grows with the pass: three levels at a time need
/// four constants per node. M is q 8^k: q sparse factors at the root (a sum of q real rows, any q) and k passes of eight.
/// Channels stand in the lanes of a register: a strip is [point][re, im][lane].
///
/// Cost per strip and point, in vector instructions: 2(q-1) + 9k forward, 2q + 12k backward, 4 for a product.
namespace coyote::inline v0::cpu::inline COYOTE_ISA {

/// The factors of a transform of `points` = q 8^k points; k >= 2.
struct FftPlan {
  Index q = 1, k = 2, points = 64;

  friend bool operator==(const FftPlan&, const FftPlan&) = default;
};

/// The cheapest plan with at least `length` points.
inline FftPlan fft_plan(Index length) {
  FftPlan best;
  Index best_cost = 0;
  for (Index k = 2, power = 64;; ++k, power *= 8) {
    const Index q = ceil_div(length, power);
    if (q <= 16) {
      const Index cost = q * power * (4 * q + 21 * k + 8);
      if (best_cost == 0 || cost < best_cost) {
        best_cost = cost;
        best = {q, k, q * power};
      }
    }
    if (q == 1) return best;
  }
}

/// The constants of one node's pass of eight: e(t) = exp(2 pi i t), the node's roots are those of x^N = e(angle).
template <class S>
struct FftNode {
  S half_re, half_im;        ///< e(angle / 2)
  S quarter_re, quarter_im;  ///< e(angle / 4)
  S eighth_re, eighth_im;    ///< e(angle / 8)
  S turned_re, turned_im;    ///< e(angle / 8 + 1 / 8)
};

/// (a, b) <- (a + c b, a - c b).
template <class V>
[[gnu::always_inline]] inline void split(V& a_re, V& a_im, V& b_re, V& b_im, V c_re, V c_im) {
  const V two = V{} + 2;
  const V t_re = a_re - c_im * b_im, t_im = a_im + c_im * b_re;
  const V p_re = t_re + c_re * b_re, p_im = t_im + c_re * b_im;
  b_re = two * a_re - p_re;
  b_im = two * a_im - p_im;
  a_re = p_re;
  a_im = p_im;
}
/// (a, b) <- (a + i c b, a - i c b).
template <class V>
[[gnu::always_inline]] inline void split_turned(V& a_re, V& a_im, V& b_re, V& b_im, V c_re, V c_im) {
  const V two = V{} + 2;
  const V t_re = a_re - c_im * b_re, t_im = a_im + c_re * b_re;
  const V p_re = t_re - c_re * b_im, p_im = t_im - c_im * b_im;
  b_re = two * a_re - p_re;
  b_im = two * a_im - p_im;
  a_re = p_re;
  a_im = p_im;
}
/// Twice the inverse of split: (a, b) <- (a + b, conj(c) (a - b)).
template <class V>
[[gnu::always_inline]] inline void join(V& a_re, V& a_im, V& b_re, V& b_im, V c_re, V c_im) {
  const V d_re = a_re - b_re, d_im = a_im - b_im;
  a_re = a_re + b_re;
  a_im = a_im + b_im;
  b_re = c_re * d_re + c_im * d_im;
  b_im = c_re * d_im - c_im * d_re;
}
/// Twice the inverse of split_turned.
template <class V>
[[gnu::always_inline]] inline void join_turned(V& a_re, V& a_im, V& b_re, V& b_im, V c_re, V c_im) {
  const V d_re = a_re - b_re, d_im = a_im - b_im;
  a_re = a_re + b_re;
  a_im = a_im + b_im;
  b_re = c_re * d_im - c_im * d_re;
  b_im = V{} - (c_re * d_re + c_im * d_im);
}

/// Eight complex points in registers.
template <class S>
struct Eight {
  Vec<S> re[8], im[8];

  /// Points `step` apart.
  [[gnu::always_inline]] void read(const S* from, Index step) {
    COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
      re[r] = load(from + r * step * 2 * lanes<S>);
      im[r] = load(from + r * step * 2 * lanes<S> + lanes<S>);
    }
  }
  [[gnu::always_inline]] void write(S* to, Index step) const {
    COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
      store(to + r * step * 2 * lanes<S>, re[r]);
      store(to + r * step * 2 * lanes<S> + lanes<S>, im[r]);
    }
  }
  /// Three levels of the tree below `node`.
  [[gnu::always_inline]] void evaluate(const FftNode<S>& node) {
    const Vec<S> h_re = broadcast(node.half_re), h_im = broadcast(node.half_im);
    COYOTE_UNROLL for (int r = 0; r < 4; ++r) { split(re[r], im[r], re[r + 4], im[r + 4], h_re, h_im); }
    const Vec<S> q_re = broadcast(node.quarter_re), q_im = broadcast(node.quarter_im);
    COYOTE_UNROLL for (int r = 0; r < 2; ++r) {
      split(re[r], im[r], re[r + 2], im[r + 2], q_re, q_im);
      split_turned(re[r + 4], im[r + 4], re[r + 6], im[r + 6], q_re, q_im);
    }
    const Vec<S> e_re = broadcast(node.eighth_re), e_im = broadcast(node.eighth_im);
    split(re[0], im[0], re[1], im[1], e_re, e_im);
    split_turned(re[2], im[2], re[3], im[3], e_re, e_im);
    const Vec<S> t_re = broadcast(node.turned_re), t_im = broadcast(node.turned_im);
    split(re[4], im[4], re[5], im[5], t_re, t_im);
    split_turned(re[6], im[6], re[7], im[7], t_re, t_im);
  }
  /// Eight times the inverse of `evaluate`.
  [[gnu::always_inline]] void interpolate(const FftNode<S>& node) {
    const Vec<S> e_re = broadcast(node.eighth_re), e_im = broadcast(node.eighth_im);
    join(re[0], im[0], re[1], im[1], e_re, e_im);
    join_turned(re[2], im[2], re[3], im[3], e_re, e_im);
    const Vec<S> t_re = broadcast(node.turned_re), t_im = broadcast(node.turned_im);
    join(re[4], im[4], re[5], im[5], t_re, t_im);
    join_turned(re[6], im[6], re[7], im[7], t_re, t_im);
    const Vec<S> q_re = broadcast(node.quarter_re), q_im = broadcast(node.quarter_im);
    COYOTE_UNROLL for (int r = 0; r < 2; ++r) {
      join(re[r], im[r], re[r + 2], im[r + 2], q_re, q_im);
      join_turned(re[r + 4], im[r + 4], re[r + 6], im[r + 6], q_re, q_im);
    }
    const Vec<S> h_re = broadcast(node.half_re), h_im = broadcast(node.half_im);
    COYOTE_UNROLL for (int r = 0; r < 4; ++r) { join(re[r], im[r], re[r + 4], im[r + 4], h_re, h_im); }
  }
};

/// Transforms of one plan: the tables, in memory that the caller's arena owns, and the passes over a strip.
template <class S>
class Fft {
 public:
  Fft(const FftPlan& plan, Arena& arena) : q_(plan.q), k_(plan.k), points_(plan.points) {
    const Index total = nodes_before(k_);
    nodes_ = static_cast<FftNode<S>*>(arena.allocate(static_cast<std::size_t>(total) * sizeof(FftNode<S>)));
    root_ = static_cast<S*>(arena.allocate(static_cast<std::size_t>(2 * q_ * q_) * sizeof(S)));
    for (Index h = 0; h < q_; ++h) {
      for (Index r = 0; r < q_; ++r) {
        const double turn = (0.25 + static_cast<double>(h)) * static_cast<double>(r) / static_cast<double>(q_);
        root_[2 * (h * q_ + r)] = static_cast<S>(std::cos(two_pi * turn));
        root_[2 * (h * q_ + r) + 1] = static_cast<S>(std::sin(two_pi * turn));
      }
    }
    for (Index level = 0, count = q_; level < k_; ++level, count *= 8) {
      FftNode<S>* const nodes = nodes_ + nodes_before(level);
      for (Index n = 0; n < count; ++n) {
        // n's digits: the root's factor, then one of eight per pass.
        double angle = (0.25 + static_cast<double>(n >> (3 * level))) / static_cast<double>(q_);
        for (Index l = level - 1; l >= 0; --l) {
          const Index b = (n >> (3 * l)) & 7;
          angle = angle / 8 + static_cast<double>((b >> 2) + (b & 2) + 4 * (b & 1)) / 8;
        }
        nodes[n] = node(angle);
      }
    }
  }

  Index points() const { return points_; }
  /// Scalars of a strip of points: [points][re, im][lane].
  Index strip() const { return 2 * points_ * lanes<S>; }

  /// The root's pass: the real strip `rows` [points][lane] to its 8 q children, each a run of points / (8 q) points of z.
  void root(const S* rows, S* z) const {
    const Index step = points_ / (8 * q_);
    for (Index j = 0; j < step; ++j) {
      for (Index h = 0; h < q_; ++h) {
        Eight<S> x;
        COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
          x.re[r] = load(rows + (j + r * step) * lanes<S>);
          x.im[r] = Vec<S>{};
        }
        for (Index i = 1; i < q_; ++i) {
          const S* const power = root_ + 2 * (h * q_ + i);
          const Vec<S> c_re = broadcast(power[0]), c_im = broadcast(power[1]);
          COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
            const Vec<S> v = load(rows + (j + (8 * i + r) * step) * lanes<S>);
            x.re[r] = x.re[r] + c_re * v;
            x.im[r] = x.im[r] + c_im * v;
          }
        }
        x.evaluate(nodes_[h]);
        x.write(z + 2 * (8 * h * step + j) * lanes<S>, step);
      }
    }
  }
  Index root_nodes() const { return 8 * q_; }
  /// Below child `node` of the root, of the strip z: forward, back, or both; leaf(eight, point) sees each run of
  /// eight spectral points, the first of which is `point` of the strip, in between, and may change it.
  template <bool Forward, bool Back, class Leaf>
  void below(Index node, S* z, Leaf&& leaf) const {
    const Index size = points_ / (8 * q_);
    descend<Forward, Back>(1, node, size, z + 2 * node * size * lanes<S>, node * size, leaf);
  }
  /// From the root's children back: out(t, re) or, if Complex, out(t, re, im) for every t < points; `points` times the
  /// value. `scratch` holds root_scratch() scalars.
  template <bool Complex, class Out>
  void root_back(const S* z, S* scratch, Out&& out) const {
    const Index step = points_ / (8 * q_);
    for (Index j = 0; j < step; ++j) {
      for (Index h = 0; h < q_; ++h) {
        Eight<S> x;
        x.read(z + 2 * (8 * h * step + j) * lanes<S>, step);
        x.interpolate(nodes_[h]);
        if constexpr (!Complex) {
          if (q_ == 1) {
            COYOTE_UNROLL for (int r = 0; r < 8; ++r) out(r * step + j, x.re[r]);
            continue;
          }
        }
        x.write(scratch + 16 * h * lanes<S>, 1);
      }
      if (!Complex && q_ == 1) continue;
      for (Index i = 0; i < q_; ++i) {
        Vec<S> re[8] = {}, im[8] = {};
        for (Index h = 0; h < q_; ++h) {
          const S* const power = root_ + 2 * (h * q_ + i);
          const Vec<S> c_re = broadcast(power[0]), c_im = broadcast(power[1]);
          const S* const from = scratch + 16 * h * lanes<S>;
          COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
            const Vec<S> x_re = load(from + 2 * r * lanes<S>), x_im = load(from + (2 * r + 1) * lanes<S>);
            re[r] = re[r] + c_re * x_re;
            re[r] = re[r] + c_im * x_im;
            if constexpr (Complex) {
              im[r] = im[r] + c_re * x_im;
              im[r] = im[r] - c_im * x_re;
            }
          }
        }
        COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
          if constexpr (Complex) {
            out((8 * i + r) * step + j, re[r], im[r]);
          } else {
            out((8 * i + r) * step + j, re[r]);
          }
        }
      }
    }
  }
  Index root_scratch() const { return 16 * q_ * lanes<S>; }

 private:
  static constexpr double two_pi = 6.283185307179586476925286766559;

  Index nodes_before(Index level) const { return q_ * ((Index{1} << (3 * level)) - 1) / 7; }
  static FftNode<S> node(double angle) {
    const double half_sqrt = 0.70710678118654752440;
    const double e_re = std::cos(two_pi * angle / 8), e_im = std::sin(two_pi * angle / 8);
    const double q_re = e_re * e_re - e_im * e_im, q_im = 2 * e_re * e_im;
    const double h_re = q_re * q_re - q_im * q_im, h_im = 2 * q_re * q_im;
    return {static_cast<S>(h_re),
            static_cast<S>(h_im),
            static_cast<S>(q_re),
            static_cast<S>(q_im),
            static_cast<S>(e_re),
            static_cast<S>(e_im),
            static_cast<S>(half_sqrt * (e_re - e_im)),
            static_cast<S>(half_sqrt * (e_re + e_im))};
  }
  /// The node's points z[0 .. size - 1], the first of which is the strip's point `first`; depth first, so that whatever
  /// fits in a cache stays there from its first pass to its last.
  template <bool Forward, bool Back, class Leaf>
  void descend(Index level, Index node, Index size, S* z, Index first, Leaf& leaf) const {
    const FftNode<S>& constants = nodes_[nodes_before(level) + node];
    if (size == 8) {
      Eight<S> x;
      x.read(z, 1);
      if constexpr (Forward) x.evaluate(constants);
      leaf(x, first);
      if constexpr (Back) x.interpolate(constants);
      x.write(z, 1);
      return;
    }
    const Index step = size / 8;
    if constexpr (Forward) {
      for (Index j = 0; j < step; ++j) {
        Eight<S> x;
        x.read(z + 2 * j * lanes<S>, step);
        x.evaluate(constants);
        x.write(z + 2 * j * lanes<S>, step);
      }
    }
    for (Index b = 0; b < 8; ++b) {
      descend<Forward, Back>(level + 1, 8 * node + b, step, z + 2 * b * step * lanes<S>, first + b * step, leaf);
    }
    if constexpr (Back) {
      for (Index j = 0; j < step; ++j) {
        Eight<S> x;
        x.read(z + 2 * j * lanes<S>, step);
        x.interpolate(constants);
        x.write(z + 2 * j * lanes<S>, step);
      }
    }
  }

  Index q_, k_, points_;
  FftNode<S>* nodes_;
  S* root_;
};

}  // namespace coyote::inline v0::cpu::inline COYOTE_ISA

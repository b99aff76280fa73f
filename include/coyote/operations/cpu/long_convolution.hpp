// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cpu/fft.hpp"
#include "coyote/operations/cpu/short_convolution.hpp"
#include "coyote/operations/wrap.hpp"

namespace coyote::inline v0 {

namespace cpu::inline COYOTE_ISA {

/// Causal sequences of at most so many rows are convolved directly: n/2 multiply-adds per row cost less than a transform.
inline constexpr Index direct_convolution_rows = 64;

/// The sequences of a batch that share one way of convolving: the direct one (no plan), or a transform of `plan`.
struct ConvolutionClass {
  bool direct = false;
  FftPlan plan = {};
  Index taps = 0;  ///< how many taps the class uses at most
  Index count = 0;
  const Index* members = nullptr;
};

/// Calls work(class) for each class of sequences, from short to long. The lists live in the context's arena.
template <class Work>
void for_convolution_classes(Context<Cpu>& ctx, const Batch& batch, Wrap wrap, Work&& work) {
  // Causal results of a sequence of n rows do not depend on taps n and above, cyclic ones do: there a class has one length.
  const auto key = [&](Index n) {
    if (wrap == Wrap::cyclic) return n;
    return n <= direct_convolution_rows ? direct_convolution_rows : fft_plan(n).points;
  };
  const auto frame = ctx.frame();
  Index* const members = static_cast<Index*>(ctx.arena().allocate(static_cast<std::size_t>(batch.sequences) * sizeof(Index)));
  Index* const keys = static_cast<Index*>(ctx.arena().allocate(static_cast<std::size_t>(batch.sequences) * sizeof(Index)));
  Index known_size = 0, known_key = 0;
  for (Index s = 0; s < batch.sequences; ++s) {
    if (batch.size(s) != known_size) {
      known_size = batch.size(s);
      known_key = key(known_size);
    }
    keys[s] = known_key;
  }
  for (Index done = 0;;) {
    Index next = 0;
    for (Index s = 0; s < batch.sequences; ++s) {
      if (keys[s] > done && (next == 0 || keys[s] < next)) next = keys[s];
    }
    if (next == 0) return;
    done = next;
    ConvolutionClass group;
    group.members = members;
    for (Index s = 0; s < batch.sequences; ++s) {
      if (keys[s] != next) continue;
      members[group.count++] = s;
      group.taps = std::max(group.taps, batch.size(s));
    }
    group.direct = wrap == Wrap::causal && next == direct_convolution_rows;
    group.plan = fft_plan(group.taps);
    work(group);
  }
}

/// The channels of one register's width, c .. c + count - 1, of row-major rows.
template <class S>
struct Strip {
  Index c = 0, count = 0;

  Strip(Index number, Index width) : c(number * lanes<S>), count(std::min(lanes<S>, width - c)) {}
  [[gnu::always_inline]] Vec<S> get(const S* row) const { return count == lanes<S> ? load(row + c) : load_part(row + c, count); }
  [[gnu::always_inline]] void put(S* row, Vec<S> v) const {
    if (count == lanes<S>) {
      store(row + c, v);
    } else {
      store_part(row + c, v, count);
    }
  }
  /// to[i] = rows[i], i < n.
  void gather(Rows<const S> rows, Index n, S* to) const {
    for (Index i = 0; i < n; ++i) store(to + i * lanes<S>, get(rows.row(i)));
  }
  [[gnu::always_inline]] void put(S* row, Vec<S> v, Write write) const { put(row, write == Write::add ? get(row) + v : v); }
};

/// Neighbouring strips that one task works on: rows are read and written as wide as that, because memory likes it, and
/// stand in scratch as one strip [points][lane] after another.
template <class S>
struct Bundle {
  Index first, strips, width, pitch;

  /// Bundle `number` of strips whose sequences take `points` rows; at most `most` strips.
  Bundle(Index number, Index most, Index width_, Index points)
      : first(number * most),
        strips(std::min(most, ceil_div(width_, lanes<S>) - first)),
        width(width_),
        pitch(points * lanes<S>) {}

  /// Calls use(strip, number of the strip, its place in the bundle).
  template <class Use>
  [[gnu::always_inline]] void each(Use&& use) const {
    for (Index g = 0; g < strips; ++g) use(Strip<S>(first + g, width), first + g, g);
  }
  S* strip(S* rows, Index g) const { return rows + g * pitch; }
  /// Rows 0 .. n - 1 into scratch, then zeros up to row `padded`.
  void gather(Rows<const S> from, Index n, Index padded, S* rows) const {
    for (Index i = 0; i < n; ++i) {
      const S* const ahead = from.row(std::min(i + 12, n - 1));
      each([&](const Strip<S>& s, Index, Index g) {
        __builtin_prefetch(ahead + s.c);
        store(rows + g * pitch + i * lanes<S>, s.get(from.row(i)));
      });
    }
    each([&](const Strip<S>&, Index, Index g) { clear(strip(rows, g), n, padded); });
  }
  static void clear(S* rows, Index from, Index to) {
    for (Index i = from; i < to; ++i) store(rows + i * lanes<S>, Vec<S>{});
  }
  /// to[i] (=|+=) row i of scratch.
  void scatter(const S* rows, Index n, Rows<S> to, Write write) const {
    for (Index i = 0; i < n; ++i) {
      const S* const ahead = to.row(std::min(i + 12, n - 1));
      each([&](const Strip<S>& s, Index, Index g) {
        __builtin_prefetch(ahead + s.c, 1);
        s.put(to.row(i), load(rows + g * pitch + i * lanes<S>), write);
      });
    }
  }
};
/// Strips per bundle: four, or as many as let `arrays` of the bundle's strips fit in 2 MB, a second-level cache; longer
/// sequences go by pairs (two neighbouring cache lines), unless there are too few to keep many threads busy.
template <class S>
Index bundle_strips(Index strips, Index points, Index arrays, Index sequences) {
  const Index fit = (Index{1} << 21) / (points * lanes<S> * static_cast<Index>(sizeof(S)) * arrays);
  const Index least = sequences * strips >= 16 ? 2 : 1;
  return std::min(strips, std::max(least, std::min(fit, Index{4})));
}

template <class S>
S* scratch_rows(Arena& arena, Index rows) {
  return static_cast<S*>(arena.allocate(static_cast<std::size_t>(rows * lanes<S>) * sizeof(S)));
}
/// out(i, sum_{t = 0 .. i} a[t] b[i-t]) for i < n: a triangular Toeplitz product in squares of 8 x 8 whose operands stand
/// in registers. a and b are strips [round_up(n, 8)][lane].
template <class S, class Out>
void convolve_directly(const S* a, const S* b, Index n, Out&& out) {
  constexpr Index w = lanes<S>;
  for (Index i = 0; i < n; i += 8) {
    Vec<S> sum[8] = {}, now[8], before[8];
    COYOTE_UNROLL for (int r = 0; r < 8; ++r) now[r] = load(b + (i + r) * w);
    const S* tap = a;
    for (Index j = i - 8; j >= 0; j -= 8, tap += 8 * w) {
      COYOTE_UNROLL for (int r = 0; r < 8; ++r) before[r] = load(b + (j + r) * w);
      COYOTE_UNROLL for (int u = 0; u < 8; ++u) {
        const Vec<S> t = load(tap + u * w);
        COYOTE_UNROLL for (int r = 0; r < 8; ++r) sum[r] = sum[r] + t * (r >= u ? now[(r - u) & 7] : before[(8 + r - u) & 7]);
      }
      COYOTE_UNROLL for (int r = 0; r < 8; ++r) now[r] = before[r];
    }
    COYOTE_UNROLL for (int u = 0; u < 8; ++u) {
      const Vec<S> t = load(tap + u * w);
      COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
        if (r >= u) sum[r] = sum[r] + t * now[(r - u) & 7];
      }
    }
    COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
      if (i + r < n) out(i + r, sum[r]);
    }
  }
}

/// The spectra of the first `count` taps, divided by the number of points: one strip after another.
template <class S>
S* filter_spectra(Context<Cpu>& ctx, const Fft<S>& fft, Rows<const S> taps, Index count, Index strips) {
  S* const spectra = scratch_rows<S>(ctx.arena(), 2 * fft.points() * strips);
  const Vec<S> scale = broadcast(S{1} / static_cast<S>(fft.points()));
  ctx.parallel(strips, [&](Index number, Arena& arena) {
    const Strip<S> strip(number, taps.width);
    S* const rows = scratch_rows<S>(arena, fft.points());
    S* const z = spectra + number * fft.strip();
    strip.gather(taps, count, rows);
    Bundle<S>::clear(rows, count, fft.points());
    fft.root(rows, z);
    for (Index node = 0; node < fft.root_nodes(); ++node) {
      fft.template below<true, false>(node, z, [&](Eight<S>& x, Index) {
        COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
          x.re[r] = x.re[r] * scale;
          x.im[r] = x.im[r] * scale;
        }
      });
    }
  });
  return spectra;
}

/// x *= h, or x *= conj(h), for eight spectral points.
template <bool Conjugate, class S>
[[gnu::always_inline]] inline void multiply_spectrum(Eight<S>& x, const S* h) {
  COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
    const Vec<S> h_re = load(h + 2 * r * lanes<S>), h_im = load(h + (2 * r + 1) * lanes<S>);
    const Vec<S> re = x.re[r], im = x.im[r];
    if constexpr (Conjugate) {
      x.re[r] = h_re * re + h_im * im;
      x.im[r] = h_re * im - h_im * re;
    } else {
      x.re[r] = h_re * re - h_im * im;
      x.im[r] = h_re * im + h_im * re;
    }
  }
}
/// sum += conj(x) y.
template <class S>
[[gnu::always_inline]] inline void add_correlation(S* sum, const S* x, const Eight<S>& y) {
  COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
    S* const re = sum + 2 * r * lanes<S>;
    S* const im = re + lanes<S>;
    const Vec<S> x_re = load(x + 2 * r * lanes<S>), x_im = load(x + (2 * r + 1) * lanes<S>);
    store(re, (load(re) + x_re * y.re[r]) + x_im * y.im[r]);
    store(im, (load(im) + x_re * y.im[r]) - x_im * y.re[r]);
  }
}

/// See long_convolution.
template <class S>
void convolve(Context<Cpu>& ctx, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const S> taps, Rows<const S> bias,
              Rows<const S> gate, Rows<S> convolved, Rows<S> y) {
  const Index width = x.width, strips = ceil_div(width, lanes<S>);
  const ByPosition<S> offset = by_position(bias);
  for_convolution_classes(ctx, batch, wrap, [&](const ConvolutionClass& group) {
    const auto frame = ctx.frame();
    const Index points = group.direct ? round_up(group.taps, 8) : group.plan.points;
    const Index most = bundle_strips<S>(strips, points, 1, group.count), bundles = ceil_div(strips, most);
    const Index per_task = std::max<Index>(1, 512 / group.taps), tasks = ceil_div(group.count, per_task);
    // What becomes of the sums of the sequence that begins at row `first`.
    const auto finish = [&](const Bundle<S>& bundle, const S* rows, Index first, Index n) {
      for (Index i = 0; i < n; ++i) {
        const S* const ahead = y.row(first + std::min(i + 12, n - 1));
        bundle.each([&](const Strip<S>& strip, Index, Index g) {
          __builtin_prefetch(ahead + strip.c, 1);
          Vec<S> value = load(rows + g * bundle.pitch + i * lanes<S>);
          if (offset.data != nullptr) value = value + strip.get(offset.data + i * offset.step);
          if (convolved.rows > 0) strip.put(convolved.row(first + i), value);
          if (gate.rows > 0) value = value * strip.get(gate.row(first + i));
          strip.put(y.row(first + i), value);
        });
      }
    };
    const auto for_members = [&](Index task, auto&& work) {
      for (Index m = task * per_task; m < std::min(group.count, (task + 1) * per_task); ++m) {
        work(batch.begin(group.members[m]), batch.size(group.members[m]));
      }
    };
    if (group.direct) {
      ctx.parallel(tasks * bundles, [&](Index block, Arena& arena) {
        const Bundle<S> bundle(block % bundles, most, width, points);
        S* const h = scratch_rows<S>(arena, points * most);
        S* const rows = scratch_rows<S>(arena, points * most);
        S* const out = scratch_rows<S>(arena, points * most);
        bundle.gather(taps, group.taps, points, h);
        for_members(block / bundles, [&](Index first, Index n) {
          bundle.gather(x.slice(first, n), n, round_up(n, 8), rows);
          bundle.each([&](const Strip<S>&, Index, Index g) {
            convolve_directly(bundle.strip(h, g), bundle.strip(rows, g), n,
                              [&](Index i, Vec<S> value) { store(bundle.strip(out, g) + i * lanes<S>, value); });
          });
          finish(bundle, out, first, n);
        });
      });
      return;
    }
    const Fft<S> fft(group.plan, ctx.arena());
    const S* const spectra = filter_spectra(ctx, fft, taps, group.taps, strips);
    ctx.parallel(tasks * bundles, [&](Index block, Arena& arena) {
      const Bundle<S> bundle(block % bundles, most, width, points);
      S* const all = scratch_rows<S>(arena, points * most);
      S* const z = scratch_rows<S>(arena, 2 * points);
      S* const wrapped = scratch_rows<S>(arena, wrap == Wrap::cyclic ? points : 0);
      S* const scratch = static_cast<S*>(arena.allocate(static_cast<std::size_t>(fft.root_scratch()) * sizeof(S)));
      for_members(block / bundles, [&](Index first, Index n) {
        bundle.gather(x.slice(first, n), n, points, all);
        bundle.each([&](const Strip<S>&, Index number, Index g) {
          const S* const h = spectra + number * fft.strip();
          S* const rows = bundle.strip(all, g);
          fft.root(rows, z);
          for (Index node = 0; node < fft.root_nodes(); ++node) {
            fft.template below<true, true>(
                node, z, [&](Eight<S>& e, Index point) { multiply_spectrum<false>(e, h + 2 * point * lanes<S>); });
          }
          if (wrap == Wrap::causal) {
            fft.template root_back<false>(z, scratch, [&](Index t, Vec<S> re) { store(rows + t * lanes<S>, re); });
            return;
          }
          // c[i] + c[i + n]: coefficients from `points` on are the imaginary parts.
          fft.template root_back<true>(z, scratch, [&](Index t, Vec<S> re, Vec<S> im) {
            store(rows + t * lanes<S>, re);
            store(wrapped + t * lanes<S>, im);
          });
          for (Index i = 0; i < n; ++i) {
            const Vec<S> tail = load(i + n < points ? rows + (i + n) * lanes<S> : wrapped + (i + n - points) * lanes<S>);
            store(rows + i * lanes<S>, load(rows + i * lanes<S>) + tail);
          }
        });
        finish(bundle, all, first, n);
      });
    });
  });
}

/// See long_convolution_backward.
template <class S>
void convolve_backward(Context<Cpu>& ctx, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const S> taps, Rows<const S> gate,
                       Rows<const S> convolved, Rows<const S> dy, Rows<S> dx, Write write, Rows<S> dgate, Rows<S> dtaps,
                       Rows<S> dbias) {
  const Index width = x.width, strips = ceil_div(width, lanes<S>);
  const bool wants_taps = dtaps.rows > 0, wants_dx = write != Write::none;
  for_convolution_classes(ctx, batch, wrap, [&](const ConvolutionClass& group) {
    const auto frame = ctx.frame();
    const Index points = group.direct ? round_up(group.taps, 8) : group.plan.points;
    const Index most = bundle_strips<S>(strips, points, 2, group.count), bundles = ceil_div(strips, most);
    // A task is one bundle of a fixed part of the sequences; each has its own sums.
    const Index parts = std::min(ceil_div(16, bundles), ceil_div(group.count, 2));
    const Index per_part = ceil_div(group.count, parts);
    const Index sum_rows = group.direct ? points : 2 * points;
    S* const sums = wants_taps ? scratch_rows<S>(ctx.arena(), sum_rows * parts * strips) : nullptr;
    S* const bias_sums = scratch_rows<S>(ctx.arena(), parts * strips);
    const auto sum_of = [&](Index part, Index strip) { return sums + (part * strips + strip) * sum_rows * lanes<S>; };
    const auto for_members = [&](Index part, auto&& work) {
      for (Index m = part * per_part; m < std::min(group.count, (part + 1) * per_part); ++m) {
        work(batch.begin(group.members[m]), batch.size(group.members[m]));
      }
    };
    // dc of the sequence that begins at row `first`, row i to place(i) of scratch; writes dgate.
    const auto gather_gradient = [&](const Bundle<S>& bundle, Index part, Index first, Index n, S* rows, auto&& place) {
      for (Index i = 0; i < n; ++i) {
        const Index row = first + i;
        const S* const ahead = dy.row(first + std::min(i + 12, n - 1));
        bundle.each([&](const Strip<S>& strip, Index number, Index g) {
          __builtin_prefetch(ahead + strip.c);
          Vec<S> d = strip.get(dy.row(row));
          if (gate.rows > 0) {
            if (dgate.rows > 0) strip.put(dgate.row(row), d * strip.get(convolved.row(row)));
            d = d * strip.get(gate.row(row));
          }
          store(bundle.strip(rows, g) + place(i) * lanes<S>, d);
          if (dbias.rows != 1) return;
          S* const sum = bias_sums + (part * strips + number) * lanes<S>;
          store(sum, load(sum) + d);
        });
      }
    };
    const auto clear_sums = [&](const Bundle<S>& bundle, Index part) {
      bundle.each([&](const Strip<S>&, Index number, Index) {
        store(bias_sums + (part * strips + number) * lanes<S>, Vec<S>{});
        if (wants_taps) Bundle<S>::clear(sum_of(part, number), 0, sum_rows);
      });
    };
    if (group.direct) {
      ctx.parallel(parts * bundles, [&](Index block, Arena& arena) {
        const Index part = block / bundles;
        const Bundle<S> bundle(block % bundles, most, width, points);
        S* const h = scratch_rows<S>(arena, points * most);
        S* const rows = scratch_rows<S>(arena, points * most);
        S* const turned = scratch_rows<S>(arena, points * most);  // dc, last row first: correlations become convolutions
        bundle.gather(taps, group.taps, points, h);
        clear_sums(bundle, part);
        for_members(part, [&](Index first, Index n) {
          gather_gradient(bundle, part, first, n, turned, [&](Index i) { return n - 1 - i; });
          bundle.each([&](const Strip<S>&, Index, Index g) { Bundle<S>::clear(bundle.strip(turned, g), n, round_up(n, 8)); });
          if (wants_taps) {
            bundle.gather(x.slice(first, n), n, round_up(n, 8), rows);
            bundle.each([&](const Strip<S>&, Index number, Index g) {
              S* const sum = sum_of(part, number);
              convolve_directly(bundle.strip(turned, g), bundle.strip(rows, g), n, [&](Index i, Vec<S> v) {
                S* const to = sum + (n - 1 - i) * lanes<S>;
                store(to, load(to) + v);
              });
            });
          }
          if (!wants_dx) return;
          bundle.each([&](const Strip<S>&, Index, Index g) {
            convolve_directly(bundle.strip(h, g), bundle.strip(turned, g), n,
                              [&](Index i, Vec<S> v) { store(bundle.strip(rows, g) + (n - 1 - i) * lanes<S>, v); });
          });
          bundle.scatter(rows, n, dx.slice(first, n), write);
        });
      });
      if (wants_taps) {
        for (Index part = 0; part < parts; ++part) {
          for (Index number = 0; number < strips; ++number) {
            const Strip<S> strip(number, width);
            for (Index t = 0; t < group.taps; ++t) strip.put(dtaps.row(t), load(sum_of(part, number) + t * lanes<S>), Write::add);
          }
        }
      }
    } else {
      const Fft<S> fft(group.plan, ctx.arena());
      const S* const spectra = wants_dx ? filter_spectra(ctx, fft, taps, group.taps, strips) : nullptr;
      ctx.parallel(parts * bundles, [&](Index block, Arena& arena) {
        const Index part = block / bundles;
        const Bundle<S> bundle(block % bundles, most, width, points);
        S* const all_x = scratch_rows<S>(arena, points * most);
        S* const all_d = scratch_rows<S>(arena, points * most);
        S* const zx = scratch_rows<S>(arena, 2 * points);
        S* const zd = scratch_rows<S>(arena, 2 * points);
        S* const wrapped = scratch_rows<S>(arena, wrap == Wrap::cyclic ? points : 0);
        S* const scratch = static_cast<S*>(arena.allocate(static_cast<std::size_t>(fft.root_scratch()) * sizeof(S)));
        clear_sums(bundle, part);
        for_members(part, [&](Index first, Index n) {
          gather_gradient(bundle, part, first, n, all_d, [](Index i) { return i; });
          if (!wants_taps && !wants_dx) return;
          bundle.each([&](const Strip<S>&, Index, Index g) { Bundle<S>::clear(bundle.strip(all_d, g), n, points); });
          if (wants_taps) bundle.gather(x.slice(first, n), n, points, all_x);
          bundle.each([&](const Strip<S>&, Index number, Index g) {
            const S* const h = wants_dx ? spectra + number * fft.strip() : nullptr;
            S* const sum = wants_taps ? sum_of(part, number) : nullptr;
            S* const rows = bundle.strip(all_d, g);
            fft.root(rows, zd);
            if (wants_taps) fft.root(bundle.strip(all_x, g), zx);
            for (Index node = 0; node < fft.root_nodes(); ++node) {
              if (wants_taps) fft.template below<true, false>(node, zx, [](Eight<S>&, Index) {});
              fft.template below<true, true>(node, zd, [&](Eight<S>& e, Index point) {
                if (wants_taps) add_correlation(sum + 2 * point * lanes<S>, zx + 2 * point * lanes<S>, e);
                if (wants_dx) multiply_spectrum<true>(e, h + 2 * point * lanes<S>);
              });
            }
            if (!wants_dx) return;
            if (wrap == Wrap::causal) {
              fft.template root_back<false>(zd, scratch, [&](Index t, Vec<S> re) { store(rows + t * lanes<S>, re); });
              return;
            }
            // Lag -j, j > 0, is minus the imaginary part at points - j; row i has it at j = n - i.
            fft.template root_back<true>(zd, scratch, [&](Index t, Vec<S> re, Vec<S> im) {
              store(rows + t * lanes<S>, re);
              store(wrapped + t * lanes<S>, im);
            });
            for (Index i = 1; i < n; ++i) {
              store(rows + i * lanes<S>, load(rows + i * lanes<S>) - load(wrapped + (points - n + i) * lanes<S>));
            }
          });
          if (wants_dx) bundle.scatter(all_d, n, dx.slice(first, n), write);
        });
      });
      if (wants_taps) {
        const Vec<S> scale = broadcast(S{1} / static_cast<S>(points));
        ctx.parallel(strips, [&](Index number, Arena& arena) {
          const Strip<S> strip(number, width);
          S* const wrapped = scratch_rows<S>(arena, wrap == Wrap::cyclic ? points : 0);
          S* const scratch = static_cast<S*>(arena.allocate(static_cast<std::size_t>(fft.root_scratch()) * sizeof(S)));
          S* const total = sum_of(0, number);
          for (Index node = 0; node < fft.root_nodes(); ++node) {
            fft.template below<false, true>(node, total, [&](Eight<S>& e, Index point) {
              for (Index part = 1; part < parts; ++part) {
                const S* const other = sum_of(part, number) + 2 * point * lanes<S>;
                COYOTE_UNROLL for (int r = 0; r < 8; ++r) {
                  e.re[r] = e.re[r] + load(other + 2 * r * lanes<S>);
                  e.im[r] = e.im[r] + load(other + (2 * r + 1) * lanes<S>);
                }
              }
            });
          }
          const auto add = [&](Index t, Vec<S> v) { strip.put(dtaps.row(t), v * scale, Write::add); };
          if (wrap == Wrap::causal) {
            fft.template root_back<false>(total, scratch, [&](Index t, Vec<S> re) {
              if (t < group.taps) add(t, re);
            });
          } else {
            fft.template root_back<true>(total, scratch, [&](Index t, Vec<S> re, Vec<S> im) {
              if (t < group.taps) add(t, re);
              store(wrapped + t * lanes<S>, im);
            });
            for (Index t = 1; t < group.taps; ++t) add(t, Vec<S>{} - load(wrapped + (points - group.taps + t) * lanes<S>));
          }
        });
      }
    }
    if (dbias.rows == 1) {
      for (Index part = 0; part < parts; ++part) {
        for (Index number = 0; number < strips; ++number) {
          Strip<S>(number, width).put(dbias.row(0), load(bias_sums + (part * strips + number) * lanes<S>), Write::add);
        }
      }
    }
  });
  if (dbias.rows > 1) add_position_bias_gradient<S>(ctx, batch, gate, dy, dbias);
}

}  // namespace cpu::inline COYOTE_ISA

/// y[i] = (sum_t taps[t] x[i-t] + bias), times gate[i] when there is one; t runs over 0 .. i (causal) or, with x as a ring of
/// the sequence's n rows, over 0 .. n-1 (cyclic). Shapes: x, gate, y [rows, D]; taps [at least the longest sequence, D]; bias [0,
/// 1 or at least the longest sequence, D]; `convolved` [rows, D], when it has rows, receives the value before the gate. Any
/// length: up to 64 rows directly, above by a transform of q 8^k >= n points (see Fft); the filter's transform is computed in
/// every call. Cost: O(n log n) per channel; scratch 2 D points for the filter, 3 strips per thread.
template <class S>
void long_convolution(Context<Cpu>& ctx, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const S> taps, Rows<const S> bias,
                      Rows<const S> gate, Rows<S> convolved, Rows<S> y) {
  cpu::convolve<S>(ctx, batch, wrap, x, taps, bias, gate, convolved, y);
}

/// Gradients of long_convolution, with dc = dy * gate (or dy): dgate = dy * convolved; dx[j] = sum_t taps[t] dc[j+t], by `write`;
/// dtaps[t] += sum_i dc[i] x[i-t]; dbias += dc, summed as bias is shared. dgate, dtaps and dbias without rows are not wanted;
/// `convolved` is there if and only if there is a gate. Correlations are products with a conjugate spectrum; the filter's
/// gradient is summed over sequences as a spectrum, in groups that depend on shapes alone, and transformed back once.
template <class S>
void long_convolution_backward(Context<Cpu>& ctx, const Batch& batch, Wrap wrap, Rows<const S> x, Rows<const S> taps,
                               Rows<const S> gate, Rows<const S> convolved, Rows<const S> dy, Rows<S> dx, Write write,
                               Rows<S> dgate, Rows<S> dtaps, Rows<S> dbias) {
  cpu::convolve_backward<S>(ctx, batch, wrap, x, taps, gate, convolved, dy, dx, write, dgate, dtaps, dbias);
}

}  // namespace coyote::inline v0

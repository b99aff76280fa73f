// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/operations/cpu/simd.hpp"

namespace coyote::inline v0 {

namespace cpu::inline COYOTE_ISA {

/// Rows that one task of a short convolution works on, whatever sequences they belong to.
inline constexpr Index short_convolution_rows = 256;

/// A matrix that is read by position: `step` 0 repeats its one row.
template <class S>
struct ByPosition {
  const S* data = nullptr;
  Index step = 0;
};

/// The views of one short convolution; absent ones have no data.
template <class S>
struct ShortConvolution {
  Rows<const S> x, taps;
  ByPosition<S> bias;
  Rows<const S> gate, dy;
  Rows<S> y, dgate;  ///< y is dx in the backward pass
  Write write = Write::overwrite;
};

template <bool Part, class S>
[[gnu::always_inline]] inline Vec<S> load_some(const S* from, Index count) {
  if constexpr (Part) return load_part(from, count);
  return load(from);
}
template <bool Part, class S>
[[gnu::always_inline]] inline void store_some(S* to, Vec<S> v, Index count) {
  if constexpr (Part) {
    store_part(to, v, count);
  } else {
    store(to, v);
  }
}

/// Calls piece(first row of the sequence, rows of the sequence, begin, end) for what each sequence has in rows
/// from .. to - 1 of the batch; begin and end count inside the sequence.
template <class Piece>
inline void for_pieces(const Batch& batch, Index from, Index to, Piece&& piece) {
  Index s = 0;
  if (batch.offsets.empty()) {
    s = from / batch.length;
  } else {
    Index above = batch.sequences;  // the last sequence that begins at or before `from`
    while (above - s > 1) {
      const Index middle = s + (above - s) / 2;
      (batch.begin(middle) <= from ? s : above) = middle;
    }
  }
  for (; s < batch.sequences && batch.begin(s) < to; ++s) {
    const Index first = batch.begin(s);
    const Index begin = from > first ? from - first : 0;
    const Index end = to < batch.end(s) ? to - first : batch.size(s);
    if (begin < end) piece(first, batch.size(s), begin, end);
  }
}

/// Rows begin .. end - 1 of a sequence, C registers of channels from channel c on (or `count` < lanes channels, if Part).
/// Taps and the last K - 1 rows stay in registers. K = 0: any number of taps.
template <class S, int K, int C, bool Part>
void short_convolution_piece(const ShortConvolution<S>& job, Index first, Index begin, Index end, Index c, Index count) {
  constexpr Index w = lanes<S>;
  Vec<S> taps[K > 0 ? K : 1][C], past[K > 1 ? K - 1 : 1][C];
  if constexpr (K > 0) {
    COYOTE_UNROLL for (int k = 0; k < K; ++k) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) taps[k][v] = load_some<Part>(job.taps.row(k) + c + v * w, count);
    }
    COYOTE_UNROLL for (int k = 0; k + 1 < K; ++k) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) {
        past[k][v] = begin > k ? load_some<Part>(job.x.row(first + begin - 1 - k) + c + v * w, count) : Vec<S>{};
      }
    }
  }
  for (Index i = begin; i < end; ++i) {
    const S* const x = job.x.row(first + i) + c;
    Vec<S> sum[C];
    COYOTE_UNROLL for (int v = 0; v < C; ++v) {
      sum[v] = job.bias.data != nullptr ? load_some<Part>(job.bias.data + i * job.bias.step + c + v * w, count) : Vec<S>{};
    }
    if constexpr (K > 0) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) {
        const Vec<S> now = load_some<Part>(x + v * w, count);
        sum[v] = sum[v] + taps[0][v] * now;
        COYOTE_UNROLL for (int k = 1; k < K; ++k) sum[v] = sum[v] + taps[k][v] * past[k - 1][v];
        COYOTE_UNROLL for (int k = K - 2; k > 0; --k) past[k][v] = past[k - 1][v];
        past[0][v] = now;
      }
    } else {
      for (Index k = 0; k < job.taps.rows && k <= i; ++k) {
        COYOTE_UNROLL for (int v = 0; v < C; ++v) {
          sum[v] =
              sum[v] + load_some<Part>(job.taps.row(k) + c + v * w, count) * load_some<Part>(x - k * job.x.stride + v * w, count);
        }
      }
    }
    if (job.gate.data != nullptr) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) sum[v] = sum[v] * load_some<Part>(job.gate.row(first + i) + c + v * w, count);
    }
    COYOTE_UNROLL for (int v = 0; v < C; ++v) store_some<Part>(job.y.row(first + i) + c + v * w, sum[v], count);
  }
}

/// dc = dy gate at one row, and dgate where it is wanted.
template <class S, bool Part>
[[gnu::always_inline]] inline Vec<S> short_convolution_dc(const ShortConvolution<S>& job, Index row, Index c, Index count) {
  const Vec<S> dy = load_some<Part>(job.dy.row(row) + c, count);
  return job.gate.data == nullptr ? dy : dy * load_some<Part>(job.gate.row(row) + c, count);
}

/// The backward pass of the same piece: dgate, dx, and sums[k] += sum_i dc[i] x[i-k] for k < K, sums[K] += sum_i dc[i].
template <class S, int K, int C, bool Part>
void short_convolution_backward_piece(const ShortConvolution<S>& job, Index first, Index rows, Index begin, Index end, Index c,
                                      Index count, Rows<S> sums) {
  constexpr Index w = lanes<S>;
  const Index taps_rows = job.taps.rows;
  if constexpr (K > 0) {
    // At step i: x[i], x[i-1] .. in `past`, dc[i], dc[i-1] .. in `later`; dx[i-K+1] is complete.
    Vec<S> taps[K][C], past[K][C], later[K][C], total[K + 1][C];
    COYOTE_UNROLL for (int v = 0; v < C; ++v) {
      COYOTE_UNROLL for (int k = 0; k < K; ++k) {
        taps[k][v] = load_some<Part>(job.taps.row(k) + c + v * w, count);
        past[k][v] = begin > k ? load_some<Part>(job.x.row(first + begin - 1 - k) + c + v * w, count) : Vec<S>{};
        later[k][v] = Vec<S>{};
        total[k][v] = Vec<S>{};
      }
      total[K][v] = Vec<S>{};
    }
    const bool wants_dx = job.write != Write::none;
    const auto shift = [](Vec<S>(&window)[K][C], int v, Vec<S> now) {
      COYOTE_UNROLL for (int k = K - 1; k > 0; --k) window[k][v] = window[k - 1][v];
      window[0][v] = now;
    };
    const auto write_dx = [&](Index row) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) {
        S* const to = job.y.row(row) + c + v * w;
        Vec<S> dx = job.write == Write::add ? load_some<Part>(static_cast<const S*>(to), count) : Vec<S>{};
        COYOTE_UNROLL for (int k = 0; k < K; ++k) dx = dx + taps[k][v] * later[K - 1 - k][v];
        store_some<Part>(to, dx, count);
      }
    };
    for (Index i = begin; i < end; ++i) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) {
        const Vec<S> dc = short_convolution_dc<S, Part>(job, first + i, c + v * w, count);
        shift(past, v, load_some<Part>(job.x.row(first + i) + c + v * w, count));
        shift(later, v, dc);
        total[K][v] = total[K][v] + dc;
        COYOTE_UNROLL for (int k = 0; k < K; ++k) total[k][v] = total[k][v] + dc * past[k][v];
        if (job.dgate.data != nullptr) {
          Vec<S> value =
              job.bias.data != nullptr ? load_some<Part>(job.bias.data + i * job.bias.step + c + v * w, count) : Vec<S>{};
          COYOTE_UNROLL for (int k = 0; k < K; ++k) value = value + taps[k][v] * past[k][v];
          store_some<Part>(job.dgate.row(first + i) + c + v * w,
                           value * load_some<Part>(job.dy.row(first + i) + c + v * w, count), count);
        }
      }
      if (wants_dx && i - (K - 1) >= begin) write_dx(first + i - (K - 1));
    }
    if (wants_dx) {
      for (Index i = end; i < end + K - 1; ++i) {
        COYOTE_UNROLL for (int v = 0; v < C; ++v) {
          shift(later, v, i < rows ? short_convolution_dc<S, Part>(job, first + i, c + v * w, count) : Vec<S>{});
        }
        if (i - (K - 1) >= begin) write_dx(first + i - (K - 1));
      }
    }
    COYOTE_UNROLL for (int k = 0; k <= K; ++k) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) {
        S* const to = sums.row(k) + c + v * w;
        store_some<Part>(to, load_some<Part>(static_cast<const S*>(to), count) + total[k][v], count);
      }
    }
  } else {
    for (Index i = begin; i < end; ++i) {
      COYOTE_UNROLL for (int v = 0; v < C; ++v) {
        const Index at = c + v * w;
        const Vec<S> dc = short_convolution_dc<S, Part>(job, first + i, at, count);
        Vec<S> value = job.bias.data != nullptr ? load_some<Part>(job.bias.data + i * job.bias.step + at, count) : Vec<S>{};
        for (Index k = 0; k < taps_rows && k <= i; ++k) {
          const Vec<S> x = load_some<Part>(job.x.row(first + i - k) + at, count);
          value = value + load_some<Part>(job.taps.row(k) + at, count) * x;
          S* const to = sums.row(k) + at;
          store_some<Part>(to, load_some<Part>(static_cast<const S*>(to), count) + dc * x, count);
        }
        S* const to = sums.row(taps_rows) + at;
        store_some<Part>(to, load_some<Part>(static_cast<const S*>(to), count) + dc, count);
        if (job.dgate.data != nullptr) {
          store_some<Part>(job.dgate.row(first + i) + at, value * load_some<Part>(job.dy.row(first + i) + at, count), count);
        }
        if (job.write == Write::none) continue;
        S* const dx_to = job.y.row(first + i) + at;
        Vec<S> dx = job.write == Write::add ? load_some<Part>(static_cast<const S*>(dx_to), count) : Vec<S>{};
        for (Index k = 0; k < taps_rows && i + k < rows; ++k) {
          dx = dx + load_some<Part>(job.taps.row(k) + at, count) * short_convolution_dc<S, Part>(job, first + i + k, at, count);
        }
        store_some<Part>(dx_to, dx, count);
      }
    }
  }
}

/// Calls work(taps, registers, part, channel, count) with constants that cover the width: `Wide` registers at a time, then
/// single ones, then the rest of less than one.
template <class S, int K, int Wide, class Work>
inline void for_channels(Index width, Work&& work) {
  constexpr auto taps = std::integral_constant<int, K>{};
  Index c = 0;
  for (; c + Wide * lanes<S> <= width; c += Wide * lanes<S>)
    work(taps, std::integral_constant<int, Wide>{}, std::false_type{}, c, lanes<S>);
  for (; c + lanes<S> <= width; c += lanes<S>) work(taps, std::integral_constant<int, 1>{}, std::false_type{}, c, lanes<S>);
  if (c < width) work(taps, std::integral_constant<int, 1>{}, std::true_type{}, c, width - c);
}
/// The same with K among the specialised numbers of taps, or 0. A number of taps known to the compiler (Known > 0) brings
/// its own case alone.
template <class S, Index Known, int Wide2, int Wide3, int Wide4, class Work>
inline void for_channels_and_taps(Index taps, Index width, Work&& work) {
  const auto among = [&](auto count, auto wide) {
    if constexpr (Known == 0 || Known == count()) return for_channels<S, count(), wide()>(width, work);
  };
  if (taps == 2) {
    among(std::integral_constant<int, 2>{}, std::integral_constant<int, Wide2>{});
  } else if (taps == 3) {
    among(std::integral_constant<int, 3>{}, std::integral_constant<int, Wide3>{});
  } else if (taps == 4) {
    among(std::integral_constant<int, 4>{}, std::integral_constant<int, Wide4>{});
  } else if constexpr (Known < 2 || Known > 4) {
    for_channels<S, 0, 2>(width, work);
  }
}

template <class S>
ByPosition<S> by_position(Rows<const S> bias) {
  return bias.rows == 0 ? ByPosition<S>{} : ByPosition<S>{bias.data, bias.rows == 1 ? 0 : bias.stride};
}

/// dbias[i] += the sum over all sequences of dc[i], for a bias of its own at every position.
template <class S>
void add_position_bias_gradient(Context<Cpu>& ctx, const Batch& batch, Rows<const S> gate, Rows<const S> dy, Rows<S> dbias) {
  constexpr Index block = 16;
  ctx.parallel(ceil_div(batch.length, block), [&](Index b, Arena&) {
    for (Index s = 0; s < batch.sequences; ++s) {
      const Index first = batch.begin(s);
      for (Index i = b * block; i < (b + 1) * block && i < batch.size(s); ++i) {
        for (Index c = 0; c < dy.width; ++c) {
          dbias(i, c) += gate.rows > 0 ? dy(first + i, c) * gate(first + i, c) : dy(first + i, c);
        }
      }
    }
  });
}

}  // namespace cpu::inline COYOTE_ISA

/// y[i] = (sum_{k = 0 .. min(i, K-1)} taps[k] x[i-k] + bias), times gate[i] when there is one; i counts inside each sequence.
/// Shapes: x, gate, y [rows, D]; taps [K, D]; bias [0, 1 or at least the longest sequence, D]. Any K; 2, 3 and 4 keep taps and
/// past rows in registers. Cost: 2 K D flop per row; x is read and y written once. K: the number of taps if the caller knows
/// it, else 0.
template <class S, Index K = 0>
void short_convolution(Context<Cpu>& ctx, const Batch& batch, Rows<const S> x, Rows<const S> taps, Rows<const S> bias,
                       Rows<const S> gate, Rows<S> y) {
  constexpr Index block = cpu::short_convolution_rows;
  cpu::ShortConvolution<S> job{x, taps, cpu::by_position(bias), gate, {}, y, {}};
  if (gate.rows == 0) job.gate.data = nullptr;
  const Index rows = batch.rows();
  ctx.parallel(ceil_div(rows, block), [&](Index b, Arena&) {
    cpu::for_channels_and_taps<S, K, 4, 4, 2>(taps.rows, x.width, [&](auto k, auto registers, auto part, Index c, Index count) {
      cpu::for_pieces(batch, b * block, std::min(rows, (b + 1) * block), [&](Index first, Index, Index begin, Index end) {
        cpu::short_convolution_piece<S, k(), registers(), part()>(job, first, begin, end, c, count);
      });
    });
  });
}

/// Gradients of short_convolution, with dc = dy * gate (or dy): dgate = dy * (value before the gate), which is computed
/// again; dx[i] = sum_k taps[k] dc[i+k], by `write`; dtaps[k] += sum_i dc[i] x[i-k]; dbias += dc, summed as bias is shared.
/// dgate, dtaps and dbias without rows are not wanted. One pass over x and dy.
template <class S, Index K = 0>
void short_convolution_backward(Context<Cpu>& ctx, const Batch& batch, Rows<const S> x, Rows<const S> taps, Rows<const S> bias,
                                Rows<const S> gate, Rows<const S> dy, Rows<S> dx, Write write, Rows<S> dgate, Rows<S> dtaps,
                                Rows<S> dbias) {
  constexpr Index block = cpu::short_convolution_rows;
  cpu::ShortConvolution<S> job{x, taps, cpu::by_position(bias), gate, dy, dx, dgate, write};
  if (gate.rows == 0) job.gate.data = nullptr;
  if (gate.rows == 0 || dgate.rows == 0) job.dgate.data = nullptr;
  const Index rows = batch.rows(), blocks = ceil_div(rows, block), width = x.width;
  const auto frame = ctx.frame();
  const Rows<S> sums = ctx.make<S>(blocks, (taps.rows + 1) * width);
  ctx.parallel(blocks, [&](Index b, Arena&) {
    const Rows<S> mine(sums.row(b), taps.rows + 1, width);
    std::fill(mine.data, mine.data + sums.width, S{});
    cpu::for_channels_and_taps<S, K, 4, 4, 1>(taps.rows, width, [&](auto k, auto registers, auto part, Index c, Index count) {
      cpu::for_pieces(batch, b * block, std::min(rows, (b + 1) * block), [&](Index first, Index size, Index begin, Index end) {
        cpu::short_convolution_backward_piece<S, k(), registers(), part()>(job, first, size, begin, end, c, count, mine);
      });
    });
  });
  for (Index k = 0; k <= taps.rows; ++k) {
    const bool wanted = k < taps.rows ? dtaps.rows > 0 : dbias.rows == 1;
    if (!wanted) continue;
    S* const to = k < taps.rows ? dtaps.row(k) : dbias.row(0);
    for (Index b = 0; b < blocks; ++b) {
      for (Index c = 0; c < width; ++c) to[c] += sums(b, k * width + c);
    }
  }
  if (dbias.rows > 1) cpu::add_position_bias_gradient<S>(ctx, batch, gate, dy, dbias);
}

}  // namespace coyote::inline v0

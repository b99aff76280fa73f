// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/operations/cpu/simd.hpp"

namespace coyote::inline v0 {
namespace cpu::inline COYOTE_ISA {

/// Register tile of a product: tile_rows x (2 registers) sums stay in registers while the inner dimension runs by.
/// 12 x 2 of the 32 registers of AVX-512, 6 x 2 of the 16 of the others.
inline constexpr int tile_rows = COYOTE_SIMD_BYTES == 64 ? 12 : 6;
inline constexpr int tile_registers = 2;
template <class S>
inline constexpr Index tile_columns = tile_registers* lanes<S>;
/// Rows of b in one panel: a panel of tile_columns fits in half of a 64 KiB first-level cache.
inline constexpr Index panel_depth = 256;

/// Elements of a matrix by a row and a column stride: what a product reads of its left side.
template <class S>
struct Left {
  const S* data;
  Index row, column;
};

/// c[i, :] = init[i, :] + sum_p a[i, p] b[p, :] for Height rows and Registers registers of columns, of which `columns`
/// are stored; init absent (nullptr) is 0. `Lines` tells how a is strided: the compiler then forms short addresses.
enum class Lines { rows, columns };
/// Never inlined: inside a larger function the compilers keep part of the sums in memory.
template <class S, int Height, int Registers, Lines A>
[[gnu::noinline]] void tile(Index depth, const S* a, Index a_stride, const S* b, Index b_stride, const S* init, Index init_stride,
                            S* c, Index c_stride, Index columns) {
  constexpr Index step = lanes<S>;
  Vec<S> sum[Height][Registers];
  if (init == nullptr) {
    COYOTE_UNROLL for (int i = 0; i < Height; ++i) { COYOTE_UNROLL for (int r = 0; r < Registers; ++r) sum[i][r] = Vec<S>{}; }
  } else if (columns == Registers * step) {
    COYOTE_UNROLL for (int i = 0; i < Height; ++i) {
      COYOTE_UNROLL for (int r = 0; r < Registers; ++r) sum[i][r] = load(init + i * init_stride + r * step);
    }
  } else {
    COYOTE_UNROLL for (int i = 0; i < Height; ++i) {
      COYOTE_UNROLL for (int r = 0; r < Registers; ++r) {
        sum[i][r] =
            load_part(init + i * init_stride + std::min(columns, r * step), std::clamp<Index>(columns - r * step, 0, step));
      }
    }
  }
  if constexpr (A == Lines::rows) {
    const S* thirds[(Height + 2) / 3];
    COYOTE_UNROLL for (int t = 0; t < (Height + 2) / 3; ++t) thirds[t] = a + 3 * t * a_stride;
    for (Index p = 0; p < depth; ++p) {
      Vec<S> right[Registers];
      COYOTE_UNROLL for (int r = 0; r < Registers; ++r) right[r] = load(b + r * step);
      COYOTE_UNROLL for (int i = 0; i < Height; ++i) {
        const S left = thirds[i / 3][(i % 3) * a_stride + p];
        COYOTE_UNROLL for (int r = 0; r < Registers; ++r) sum[i][r] += left * right[r];
      }
      b += b_stride;
    }
  } else {
    for (Index p = 0; p < depth; ++p) {
      Vec<S> right[Registers];
      COYOTE_UNROLL for (int r = 0; r < Registers; ++r) right[r] = load(b + r * step);
      COYOTE_UNROLL for (int i = 0; i < Height; ++i) {
        const S left = a[i];
        COYOTE_UNROLL for (int r = 0; r < Registers; ++r) sum[i][r] += left * right[r];
      }
      a += a_stride;
      b += b_stride;
    }
  }
  if (columns == Registers * step) {
    COYOTE_UNROLL for (int i = 0; i < Height; ++i) {
      COYOTE_UNROLL for (int r = 0; r < Registers; ++r) store(c + i * c_stride + r * step, sum[i][r]);
    }
  } else {
    COYOTE_UNROLL for (int i = 0; i < Height; ++i) {
      COYOTE_UNROLL for (int r = 0; r < Registers; ++r) {
        store_part(c + i * c_stride + std::min(columns, r * step), sum[i][r], std::clamp<Index>(columns - r * step, 0, step));
      }
    }
  }
}

/// The same for one row: registers of partial sums over even and odd p hide the latency of the additions.
template <class S, int Registers>
inline void row_tile(Index depth, const S* a, Index a_stride, const S* b, Index b_stride, const S* init, S* c, Index columns) {
  constexpr Index step = lanes<S>;
  Vec<S> sum[2][Registers];
  COYOTE_UNROLL for (int r = 0; r < Registers; ++r) {
    sum[0][r] = Vec<S>{};
    sum[1][r] = Vec<S>{};
  }
  if (init != nullptr) {
    COYOTE_UNROLL for (int r = 0; r < Registers; ++r) {
      sum[0][r] = load_part(init + std::min(columns, r * step), std::clamp<Index>(columns - r * step, 0, step));
    }
  }
  Index p = 0;
  for (; p + 2 <= depth; p += 2) {
    COYOTE_UNROLL for (int h = 0; h < 2; ++h) {
      const S left = a[(p + h) * a_stride];
      COYOTE_UNROLL for (int r = 0; r < Registers; ++r) sum[h][r] += left * load(b + h * b_stride + r * step);
    }
    b += 2 * b_stride;
  }
  if (p < depth) {
    const S left = a[p * a_stride];
    COYOTE_UNROLL for (int r = 0; r < Registers; ++r) sum[0][r] += left * load(b + r * step);
  }
  COYOTE_UNROLL for (int r = 0; r < Registers; ++r) {
    store_part(c + std::min(columns, r * step), sum[0][r] + sum[1][r], std::clamp<Index>(columns - r * step, 0, step));
  }
}

/// All rows of a against one panel (Registers registers of columns, `columns` of them stored).
template <class S, int Registers, Lines A>
inline void panel(Index rows, Index depth, const S* a, Index a_stride, const S* b, Index b_stride, const S* init,
                  Index init_stride, S* c, Index c_stride, Index columns) {
  constexpr Index across = A == Lines::rows ? 0 : 1;
  const auto at = [&](Index i) { return a + i * (across == 1 ? 1 : a_stride); };
  const auto start = [&](Index i) { return init == nullptr ? nullptr : init + i * init_stride; };
  Index i = 0;
  for (; i + tile_rows <= rows; i += tile_rows) {
    tile<S, tile_rows, Registers, A>(depth, at(i), a_stride, b, b_stride, start(i), init_stride, c + i * c_stride, c_stride,
                                     columns);
  }
  for (; i + 4 <= rows; i += 4) {
    tile<S, 4, Registers, A>(depth, at(i), a_stride, b, b_stride, start(i), init_stride, c + i * c_stride, c_stride, columns);
  }
  for (; i < rows; ++i) {
    row_tile<S, Registers>(depth, at(i), A == Lines::rows ? 1 : a_stride, b, b_stride, start(i), c + i * c_stride, columns);
  }
}

/// A matrix on the right side of products, cut into panels of tile_columns: panel n begins at n * depth * tile_columns
/// and holds its rows one after another, filled up with zeros.
template <class S>
constexpr Index packed_size(Index depth, Index width) {
  return round_up(width, tile_columns<S>) * depth;
}

/// Copies `columns` columns of rows of b into a panel of tile_columns.
template <class S>
inline void pack_panel(const S* b, Index b_stride, Index depth, Index columns, S* to) {
  for (Index p = 0; p < depth; ++p, b += b_stride, to += tile_columns<S>) {
    if (columns == tile_columns<S>) {
      COYOTE_UNROLL for (int r = 0; r < tile_registers; ++r) store(to + r * lanes<S>, load(b + r * lanes<S>));
    } else {
      for (Index c = 0; c < tile_columns<S>; ++c) to[c] = c < columns ? b[c] : S{};
    }
  }
}

/// to[c, r] = from[r, c] for a square of `lanes` rows and columns.
template <class S>
inline void transpose_square(const S* from, Index from_stride, S* to, Index to_stride) {
  constexpr int n = static_cast<int>(lanes<S>);
  Vec<S> v[n];
  COYOTE_UNROLL for (int i = 0; i < n; ++i) v[i] = load(from + i * from_stride);
  // Butterflies: exchange the off-diagonal halves of 2d x 2d squares, for d = n/2 .. 1.
  swap_halves<n / 2, S>(v);
  COYOTE_UNROLL for (int i = 0; i < n; ++i) store(to + i * to_stride, v[i]);
}

/// to[c, r] = from[r, c], columns r >= rows of `to` filled with zeros up to `padded`.
template <class S>
inline void transpose(const S* from, Index from_stride, Index rows, Index width, S* to, Index to_stride, Index padded) {
  constexpr Index n = lanes<S>;
  Index r = 0;
  for (; r + n <= rows; r += n) {
    Index c = 0;
    for (; c + n <= width; c += n) transpose_square(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    for (; c < width; ++c) {
      for (Index i = 0; i < n; ++i) to[c * to_stride + r + i] = from[(r + i) * from_stride + c];
    }
  }
  for (; r < padded; ++r) {
    for (Index c = 0; c < width; ++c) to[c * to_stride + r] = r < rows ? from[r * from_stride + c] : S{};
  }
}

/// The panel of rows first .. first + columns - 1 of b, transposed: what a b^T reads.
template <class S>
inline void pack_panel_transposed(const S* b, Index b_stride, Index depth, Index columns, S* to) {
  transpose(b, b_stride, columns, depth, to, tile_columns<S>, tile_columns<S>);
}

template <class S>
inline void pack(Rows<const S> b, S* to) {
  for (Index j = 0; j < b.width; j += tile_columns<S>, to += b.rows * tile_columns<S>) {
    pack_panel(b.data + j, b.stride, b.rows, std::min(tile_columns<S>, b.width - j), to);
  }
}
/// Packs b^T.
template <class S>
inline void pack_transposed(Rows<const S> b, S* to) {
  for (Index j = 0; j < b.rows; j += tile_columns<S>, to += b.width * tile_columns<S>) {
    pack_panel_transposed(b.row(j), b.stride, b.width, std::min(tile_columns<S>, b.rows - j), to);
  }
}

/// c = init + a b, with b packed [depth, c.width]; init has c's shape by its stride (0: one row for all), or is absent.
template <class S, Lines A = Lines::rows>
inline void product_packed(Rows<const S> a, const S* b, Index depth, const S* init, Index init_stride, Rows<S> c) {
  for (Index first = 0; first < depth || first == 0; first += panel_depth) {
    const Index deep = std::min(panel_depth, depth - first);
    const S* from = A == Lines::rows ? a.data + first : a.row(first);
    const S* begin = first == 0 ? init : c.data;
    const Index begin_stride = first == 0 ? init_stride : c.stride;
    for (Index j = 0; j < c.width; j += tile_columns<S>) {
      panel<S, tile_registers, A>(c.rows, deep, from, a.stride, b + j * depth + first * tile_columns<S>, tile_columns<S>,
                                  begin == nullptr ? nullptr : begin + j, begin_stride, c.data + j, c.stride,
                                  std::min(tile_columns<S>, c.width - j));
    }
  }
}

enum class Right { plain, transposed };

/// c = init + a b (or b^T) with panels packed on the stack where that pays: a tail of columns, b^T, or far rows.
template <class S, Lines A, Right B>
inline void product_blocked(Rows<const S> a, Rows<const S> b, Index depth, const S* init, Index init_stride, Rows<S> c) {
  alignas(64) S packed[panel_depth * tile_columns<S>];
  const bool far = c.rows >= 4 * tile_rows && b.stride * static_cast<Index>(sizeof(S)) > 1024;
  for (Index first = 0; first < depth || first == 0; first += panel_depth) {
    const Index deep = std::min(panel_depth, depth - first);
    const S* from = A == Lines::rows ? a.data + first : a.row(first);
    const S* begin = first == 0 ? init : c.data;
    const Index begin_stride = first == 0 ? init_stride : c.stride;
    for (Index j = 0; j < c.width; j += tile_columns<S>) {
      const Index columns = std::min(tile_columns<S>, c.width - j);
      const S* right = packed;
      Index right_stride = tile_columns<S>;
      if constexpr (B == Right::transposed) {
        pack_panel_transposed(b.row(j) + first, b.stride, deep, columns, packed);
      } else if (far || columns < tile_columns<S>) {
        pack_panel(b.row(first) + j, b.stride, deep, columns, packed);
      } else {
        right = b.row(first) + j;
        right_stride = b.stride;
      }
      const S* start = begin == nullptr ? nullptr : begin + j;
      if (columns <= lanes<S>) {
        panel<S, 1, A>(c.rows, deep, from, a.stride, right, right_stride, start, begin_stride, c.data + j, c.stride, columns);
      } else {
        panel<S, tile_registers, A>(c.rows, deep, from, a.stride, right, right_stride, start, begin_stride, c.data + j, c.stride,
                                    columns);
      }
    }
  }
}

/// c[i, j] = init[i, j] + sum_p a[i, p] b[j, p] for few rows of a: b is read once, where it lies, four rows at a time.
template <class S>
inline void product_nt_few(Rows<const S> a, Rows<const S> b, const S* init, Index init_stride, Rows<S> c) {
  constexpr Index step = lanes<S>;
  const Index whole = a.width / step * step, rest = a.width - whole;
  for (Index j = 0; j < b.rows; j += 4) {
    const Index count = std::min<Index>(4, b.rows - j);
    const S* right[4];
    for (Index n = 0; n < 4; ++n) right[n] = b.row(j + std::min(n, count - 1));
    for (Index i = 0; i < c.rows; ++i) {
      const S* left = a.row(i);
      Vec<S> sum[4] = {};
      for (Index p = 0; p < whole; p += step) {
        const Vec<S> l = load(left + p);
        COYOTE_UNROLL for (int n = 0; n < 4; ++n) sum[n] += l * load(right[n] + p);
      }
      if (rest > 0) {
        const Vec<S> l = load_part(left + whole, rest);
        COYOTE_UNROLL for (int n = 0; n < 4; ++n) sum[n] += l * load_part(right[n] + whole, rest);
      }
      for (Index n = 0; n < count; ++n) {
        c(i, j + n) = horizontal_sum<S>(sum[n]) + (init == nullptr ? S{} : init[i * init_stride + j + n]);
      }
    }
  }
}

/// c (=|+=) a b. One thread; allocates nothing.
template <class S>
void product(Rows<const S> a, Rows<const S> b, Rows<S> c, Write write) {
  if (write == Write::none) return;
  product_blocked<S, Lines::rows, Right::plain>(a, b, a.width, write == Write::add ? c.data : nullptr, c.stride, c);
}
/// c (=|+=) a b^T. One thread; allocates nothing.
template <class S>
void product_nt(Rows<const S> a, Rows<const S> b, Rows<S> c, Write write) {
  if (write == Write::none) return;
  const S* init = write == Write::add ? c.data : nullptr;
  if (c.rows < 8) {
    product_nt_few(a, b, init, c.stride, c);
  } else {
    product_blocked<S, Lines::rows, Right::transposed>(a, b, a.width, init, c.stride, c);
  }
}
/// c (=|+=) a^T b. One thread; allocates nothing.
template <class S>
void product_tn(Rows<const S> a, Rows<const S> b, Rows<S> c, Write write) {
  if (write == Write::none) return;
  product_blocked<S, Lines::columns, Right::plain>(a, b, a.rows, write == Write::add ? c.data : nullptr, c.stride, c);
}

/// to = factor * from, over `width` elements; in place is legal.
template <class S>
inline void copy_scaled(S factor, const S* from, S* to, Index width) {
  Index c = 0;
  for (; c + lanes<S> <= width; c += lanes<S>) store<S>(to + c, factor * load(from + c));
  for (; c < width; ++c) to[c] = factor * from[c];
}
/// to += factor * x.
template <class S>
inline void add_scaled(S factor, const S* x, S* to, Index width) {
  Index c = 0;
  for (; c + lanes<S> <= width; c += lanes<S>) store<S>(to + c, load(to + c) + factor * load(x + c));
  for (; c < width; ++c) to[c] += factor * x[c];
}

/// y[i, :] += x[i, :]; one row of x for all rows when its stride is 0.
template <class S>
inline void add_rows(const S* x, Index x_stride, Rows<S> y) {
  for (Index i = 0; i < y.rows; ++i) add_scaled(S(1), x + i * x_stride, y.row(i), y.width);
}

/// to[c] += sum_i x[i, c], in four interleaved sums of rows.
template <class S>
inline void add_column_sums(Rows<const S> x, S* to) {
  constexpr Index step = lanes<S>;
  for (Index c = 0; c < x.width; c += step) {
    const Index count = std::min(step, x.width - c);
    Vec<S> sum[4] = {};
    if (count == step) {
      for (Index i = 0; i < x.rows; ++i) sum[i % 4] += load(x.row(i) + c);
    } else {
      for (Index i = 0; i < x.rows; ++i) sum[i % 4] += load_part(x.row(i) + c, count);
    }
    store_part(to + c, load_part(to + c, count) + ((sum[0] + sum[1]) + (sum[2] + sum[3])), count);
  }
}

/// c += a^T b where rows of a and b lie far apart: both are first copied side by side, a in strips of tile_rows columns,
/// because neighbouring elements of a column would share few sets of the first-level cache.
template <class S>
inline void add_product_tn_far(Rows<const S> a, Rows<const S> b, Rows<S> c, Arena& scratch) {
  const Context<Cpu>::Frame frame(scratch);
  const auto make = [&](Index count) { return static_cast<S*>(scratch.allocate(static_cast<std::size_t>(count) * sizeof(S))); };
  S* strips = make(round_up(a.width, tile_rows) * a.rows);
  S* panels = make(packed_size<S>(b.rows, b.width));
  pack(b, panels);
  for (Index i = 0; i < a.width; i += tile_rows) {
    S* to = strips + i * a.rows;
    const S* from = a.data + i;
    if (i + tile_rows <= a.width) {
      for (Index p = 0; p < a.rows; ++p, from += a.stride, to += tile_rows) std::memcpy(to, from, tile_rows * sizeof(S));
    } else {
      for (Index p = 0; p < a.rows; ++p, from += a.stride, to += tile_rows) std::copy_n(from, a.width - i, to);
    }
  }
  for (Index j = 0; j < b.width; j += tile_columns<S>) {
    const Index columns = std::min(tile_columns<S>, b.width - j);
    for (Index i = 0; i < a.width; i += tile_rows) {
      S* to = c.row(i) + j;
      panel<S, tile_registers, Lines::columns>(std::min<Index>(tile_rows, a.width - i), a.rows, strips + i * a.rows, tile_rows,
                                               panels + j * b.rows, tile_columns<S>, to, c.stride, to, c.stride, columns);
    }
  }
}

/// Rows of a block of a product: about 2^20 multiply-adds, so that handing out a block costs nothing beside it.
inline Index product_block_rows(Index depth, Index width) {
  const Index wanted = (Index{1} << 20) / std::max<Index>(1, depth * width);
  return std::clamp<Index>(round_up(wanted, 48), 48, 768);
}

/// Calls f(first row, rows, first position) for the pieces of rows first .. first + count - 1 inside each sequence.
template <class F>
inline void for_each_piece(const Batch& batch, Index first, Index count, F&& f) {
  Index s = 0;
  if (batch.offsets.empty()) {
    s = first / batch.length;
  } else {
    s = std::upper_bound(batch.offsets.begin(), batch.offsets.end(), first) - batch.offsets.begin() - 1;
  }
  for (const Index last = first + count; first < last; ++s) {
    const Index rows = std::min(last, batch.end(s)) - first;
    f(first, rows, first - batch.begin(s));
    first += rows;
  }
}

}  // namespace cpu::inline COYOTE_ISA

/// y[i, :] = x[i, :] weight + bias. weight [in, out]. bias: 0 rows (none), 1 row, or one row per position inside each
/// sequence (at least as many as the longest has).
template <class S>
void linear(Context<Cpu>& ctx, const Batch& batch, Rows<const S> x, Rows<const S> weight, Rows<const S> bias, Rows<S> y) {
  const Index block = cpu::product_block_rows(weight.rows, weight.width);
  const bool by_position = bias.rows > 1;
  const S* init = bias.rows == 1 ? bias.data : nullptr;
  const auto add_bias = [&](Index first, Index rows) {
    cpu::for_each_piece(batch, first, rows, [&](Index row, Index count, Index position) {
      cpu::add_rows(bias.row(position), bias.stride, y.slice(row, count));
    });
  };
  if (x.rows <= 2 * cpu::tile_rows) {
    cpu::product_blocked<S, cpu::Lines::rows, cpu::Right::plain>(x, weight, weight.rows, init, 0, y);
    if (by_position) add_bias(0, x.rows);
    return;
  }
  const auto frame = ctx.frame();
  S* packed = ctx.template make<S>(1, cpu::packed_size<S>(weight.rows, weight.width)).data;
  cpu::pack(weight, packed);
  ctx.parallel(ceil_div(x.rows, block), [&](Index b, Arena&) {
    const Index first = b * block, rows = std::min(block, x.rows - first);
    cpu::product_packed(x.slice(first, rows), packed, weight.rows, init, 0, y.slice(first, rows));
    if (by_position) add_bias(first, rows);
  });
}

/// dx (=|+=) dy weight^T; dweight += x^T dy; dbias += the sum of dy over rows (or over sequences, by position). Absent
/// dweight or dbias (0 rows) are not wanted. Sums over rows are made of fixed chunks, added in order.
template <class S>
void linear_backward(Context<Cpu>& ctx, const Batch& batch, Rows<const S> x, Rows<const S> weight, Rows<const S> dy, Rows<S> dx,
                     Write write, Rows<S> dweight, Rows<S> dbias) {
  const Index rows = dy.rows, in = weight.rows, out = weight.width;
  const bool wants_dx = write != Write::none && dx.rows > 0;
  const bool wants_weight = dweight.rows > 0, wants_sums = dbias.rows == 1;
  const auto frame = ctx.frame();
  S* packed = nullptr;
  if (wants_dx) {
    packed = ctx.template make<S>(1, cpu::packed_size<S>(out, in)).data;
    cpu::pack_transposed(weight, packed);
  }
  // Fixed chunks of whole blocks; each has its own partial dweight and dbias. Few when the weights are many.
  const Index block = 192;
  const Index blocks = ceil_div(rows, block);
  const Index most = std::clamp<Index>((Index{1} << 20) / std::max<Index>(1, in * out), 4, 16);
  const Index per_chunk = ceil_div(blocks, most), chunks = ceil_div(blocks, per_chunk);
  const Index partial = (wants_weight ? in * out : 0) + (wants_sums ? out : 0);
  const Rows<S> partials = ctx.template make<S>(chunks > 1 ? chunks : 0, partial);
  const bool far = std::min(x.stride, dy.stride) * static_cast<Index>(sizeof(S)) >= 1024;
  ctx.parallel(chunks, [&](Index chunk, Arena& scratch) {
    // One chunk adds where the sums belong, several to parts of their own.
    Rows<S> weights = dweight;
    S* sums = dbias.data;
    if (chunks > 1) {
      std::fill_n(partials.row(chunk), partial, S{});
      if (wants_weight) weights = {partials.row(chunk), in, out};
      sums = partials.row(chunk) + (wants_weight ? in * out : 0);
    }
    for (Index b = chunk * per_chunk; b < std::min(blocks, (chunk + 1) * per_chunk); ++b) {
      const Index first = b * block, count = std::min(block, rows - first);
      const Rows<const S> part = dy.slice(first, count);
      if (wants_dx) {
        const Rows<S> to = dx.slice(first, count);
        cpu::product_packed(part, packed, out, write == Write::add ? to.data : nullptr, to.stride, to);
      }
      if (wants_weight && far) cpu::add_product_tn_far<S>(x.slice(first, count), part, weights, scratch);
      if (wants_weight && !far) cpu::product_tn<S>(x.slice(first, count), part, weights, Write::add);
      if (wants_sums) cpu::add_column_sums(part, sums);
    }
  });
  if (chunks > 1 && partial > 0) {
    ctx.parallel(in * out > (Index{1} << 16) ? in : 1, [&](Index b, Arena&) {
      const bool split = in * out > (Index{1} << 16);
      for (Index i = split ? b : 0; i < (split ? b + 1 : in); ++i) {
        for (Index chunk = 0; wants_weight && chunk < chunks; ++chunk) {
          cpu::add_rows<S>(partials.row(chunk) + i * out, 0, dweight.slice(i, 1));
        }
      }
      if (b == 0 && wants_sums) {
        for (Index chunk = 0; chunk < chunks; ++chunk) cpu::add_rows<S>(partials.row(chunk) + partial - out, 0, dbias);
      }
    });
  }
  if (dbias.rows > 1) {
    constexpr Index positions = 64;
    ctx.parallel(ceil_div(batch.length, positions), [&](Index b, Arena&) {
      for (Index s = 0; s < batch.sequences; ++s) {
        const Index first = b * positions, count = std::min(positions, batch.size(s) - first);
        if (count > 0) cpu::add_rows<S>(dy.row(batch.begin(s) + first), dy.stride, dbias.slice(first, count));
      }
    });
  }
}

}  // namespace coyote::inline v0

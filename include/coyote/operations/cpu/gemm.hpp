// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/operations/cpu/simd.hpp"

namespace coyote::inline v0::cpu::inline COYOTE_ISA {

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
template <class S, int Registers, Lines A>
inline void row_tile(Index depth, const S* a, Index stride, const S* b, Index b_stride, const S* init, S* c, Index columns) {
  constexpr Index step = lanes<S>;
  const Index a_stride = A == Lines::rows ? 1 : stride;
  const bool whole = columns == Registers * step;
  Vec<S> sum[2][Registers];
  COYOTE_UNROLL for (int r = 0; r < Registers; ++r) {
    sum[0][r] = Vec<S>{};
    sum[1][r] = Vec<S>{};
  }
  if (init != nullptr) {
    COYOTE_UNROLL for (int r = 0; r < Registers; ++r) {
      sum[0][r] = whole ? load(init + r * step)
                        : load_part(init + std::min(columns, r * step), std::clamp<Index>(columns - r * step, 0, step));
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
    const Vec<S> total = sum[0][r] + sum[1][r];
    if (whole) {
      store(c + r * step, total);
    } else {
      store_part(c + std::min(columns, r * step), total, std::clamp<Index>(columns - r * step, 0, step));
    }
  }
}

/// All rows of a against one panel (Registers registers of columns, `columns` of them stored). Compiled once for all
/// its users.
template <class S, int Registers, Lines A>
[[gnu::noinline]] void tall_panel(Index rows, Index depth, const S* a, Index a_stride, const S* b, Index b_stride, const S* init,
                                  Index init_stride, S* c, Index c_stride, Index columns) {
  const auto at = [&](Index i) { return a + i * (A == Lines::rows ? a_stride : 1); };
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
    row_tile<S, Registers, A>(depth, at(i), a_stride, b, b_stride, start(i), c + i * c_stride, columns);
  }
}

/// The same for any number of rows: a single one, a decoding step, takes the short way.
template <class S, int Registers, Lines A>
inline void panel(Index rows, Index depth, const S* a, Index a_stride, const S* b, Index b_stride, const S* init,
                  Index init_stride, S* c, Index c_stride, Index columns) {
  if (rows == 1) return row_tile<S, Registers, A>(depth, a, a_stride, b, b_stride, init, c, columns);
  tall_panel<S, Registers, A>(rows, depth, a, a_stride, b, b_stride, init, init_stride, c, c_stride, columns);
}

/// Elements of a packed right side. It is cut into blocks of panel_depth rows, those into panels of tile_columns, which hold
/// their rows one after another, filled up with zeros: a product walks through memory without a leap.
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

enum class Right { plain, transposed };

/// Packs the panel of columns j .. j + tile_columns - 1 of b, or of b^T, in all blocks of rows.
template <class S, Right B>
inline void pack_columns(Rows<const S> b, Index j, S* packed) {
  const Index depth = B == Right::plain ? b.rows : b.width, width = B == Right::plain ? b.width : b.rows;
  const Index columns = std::min(tile_columns<S>, width - j);
  for (Index first = 0; first < depth; first += panel_depth) {
    const Index deep = std::min(panel_depth, depth - first);
    S* const to = packed + first * round_up(width, tile_columns<S>) + j * deep;
    if constexpr (B == Right::plain) {
      pack_panel(b.row(first) + j, b.stride, deep, columns, to);
    } else {
      pack_panel_transposed(b.row(j) + first, b.stride, deep, columns, to);
    }
  }
}

/// Columns whose panels pass through the second-level cache for every tile of rows.
template <class S>
inline constexpr Index packed_columns = 1024 / static_cast<Index>(sizeof(S));

/// c = init + a b, with b packed [depth, c.width]; init has c's shape by its stride (0: one row for all), or is absent. A
/// tile's rows of a stay in the first-level cache, copied there when they lie far apart, while the panels of b pass.
template <class S, Lines A = Lines::rows>
void product_packed(Rows<const S> a, const S* b, Index depth, const S* init, Index init_stride, Rows<S> c) {
  // A little more than the depth, so that rows do not fall on the same lines of the cache.
  constexpr Index apart = panel_depth + 64 / static_cast<Index>(sizeof(S));
  alignas(64) S copy[tile_rows * apart];
  const bool far = c.width > tile_columns<S> && a.stride * static_cast<Index>(sizeof(S)) > 1024;
  const Index padded = round_up(c.width, tile_columns<S>);
  for (Index group = 0; group < c.width; group += packed_columns<S>) {
    const Index end = std::min(c.width, group + packed_columns<S>);
    for (Index first = 0; first < depth || first == 0; first += panel_depth) {
      const Index deep = std::min(panel_depth, depth - first);
      const S* begin = first == 0 ? init : c.data;
      const Index begin_stride = first == 0 ? init_stride : c.stride;
      for (Index i = 0; i < c.rows; i += tile_rows) {
        const Index rows = std::min<Index>(tile_rows, c.rows - i);
        const S* left = A == Lines::rows ? a.row(i) + first : a.row(first) + i;
        Index left_stride = a.stride;
        if (far) {
          left_stride = A == Lines::rows ? apart : tile_rows;
          if constexpr (A == Lines::rows) {
            for (Index r = 0; r < rows; ++r) std::copy_n(left + r * a.stride, deep, copy + r * apart);
          } else if (rows == tile_rows) {
            for (Index p = 0; p < deep; ++p) std::copy_n(left + p * a.stride, tile_rows, copy + p * tile_rows);
          } else {
            for (Index p = 0; p < deep; ++p) std::copy_n(left + p * a.stride, rows, copy + p * tile_rows);
          }
          left = copy;
        }
        for (Index j = group; j < end; j += tile_columns<S>) {
          tall_panel<S, tile_registers, A>(rows, deep, left, left_stride, b + first * padded + j * deep, tile_columns<S>,
                                           begin == nullptr ? nullptr : begin + i * begin_stride + j, begin_stride, c.row(i) + j,
                                           c.stride, std::min(tile_columns<S>, c.width - j));
        }
      }
    }
  }
}

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

}  // namespace coyote::inline v0::cpu::inline COYOTE_ISA

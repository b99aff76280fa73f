// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/operations/cpu/gemm.hpp"

namespace coyote::inline v0 {

namespace cpu::inline COYOTE_ISA {

/// Rows of a block, what one thread multiplies at a time: whole tiles of rows, of depth enough for the weights' gradient.
inline constexpr Index linear_block = 252;
static_assert(linear_block % tile_rows == 0 && linear_block <= panel_depth);
/// Products of fewer rows (a decoding step) read the weights where they lie: packing would dominate.
inline constexpr Index few_rows = 128;

/// The weights (or their transpose) packed in the context's memory, once for all blocks and threads.
template <class S, Right B>
const S* pack_weight(Context<Cpu>& ctx, Rows<const S> weight) {
  const Index depth = B == Right::plain ? weight.rows : weight.width, width = B == Right::plain ? weight.width : weight.rows;
  S* const packed = ctx.template make<S>(1, packed_size<S>(depth, width)).data;
  // Waking threads costs more than packing small weights.
  const Index together = std::max<Index>(1, (Index{1} << 16) / (depth * tile_columns<S>)) * tile_columns<S>;
  ctx.parallel(ceil_div(width, together), [&](Index part, Arena&) {
    for (Index j = part * together; j < std::min(width, (part + 1) * together); j += tile_columns<S>) {
      pack_columns<S, B>(weight, j, packed);
    }
  });
  return packed;
}

/// dweight += x^T dy for one block of rows.
template <class S>
void linear_weight_gradient(Rows<const S> x, Rows<const S> dy, Rows<S> dweight, Arena& scratch) {
  if (x.rows < few_rows || dy.stride * static_cast<Index>(sizeof(S)) <= 1024) return product_tn<S>(x, dy, dweight, Write::add);
  const Context<Cpu>::Frame frame(scratch);
  S* const packed = static_cast<S*>(scratch.allocate(static_cast<std::size_t>(packed_size<S>(dy.rows, dy.width)) * sizeof(S)));
  for (Index j = 0; j < dy.width; j += tile_columns<S>) pack_columns<S, Right::plain>(dy, j, packed);
  product_packed<S, Lines::columns>(x, packed, x.rows, dweight.data, dweight.stride, dweight);
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
  const S* const bias_row = bias.rows == 1 ? bias.data : nullptr;
  const auto add_bias = [&](Index first, Index rows) {
    if (bias.rows <= 1) return;
    cpu::for_each_piece(batch, first, rows, [&](Index row, Index count, Index position) {
      cpu::add_rows(bias.row(position), bias.stride, y.slice(row, count));
    });
  };
  if (x.rows < cpu::few_rows) {
    cpu::product_blocked<S, cpu::Lines::rows, cpu::Right::plain>(x, weight, weight.rows, bias_row, 0, y);
    return add_bias(0, x.rows);
  }
  const auto frame = ctx.frame();
  const S* const packed = cpu::pack_weight<S, cpu::Right::plain>(ctx, weight);
  ctx.parallel(ceil_div(x.rows, cpu::linear_block), [&](Index b, Arena&) {
    const Index first = b * cpu::linear_block, rows = std::min(cpu::linear_block, x.rows - first);
    cpu::product_packed<S>(x.slice(first, rows), packed, weight.rows, bias_row, 0, y.slice(first, rows));
    add_bias(first, rows);
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
  // Fixed chunks of whole blocks; each has its own partial dweight and dbias. Few when the weights are many.
  constexpr Index block = cpu::linear_block;
  const Index blocks = ceil_div(rows, block);
  const Index most = std::clamp<Index>((Index{1} << 20) / std::max<Index>(1, in * out), 4, 16);
  const Index per_chunk = ceil_div(blocks, most), chunks = ceil_div(blocks, per_chunk);
  const Index partial = (wants_weight ? in * out : 0) + (wants_sums ? out : 0);
  const Rows<S> partials = ctx.template make<S>(chunks > 1 ? chunks : 0, partial);
  const S* const packed = wants_dx && rows >= cpu::few_rows ? cpu::pack_weight<S, cpu::Right::transposed>(ctx, weight) : nullptr;
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
      if (packed != nullptr) {
        const Rows<S> to = dx.slice(first, count);
        cpu::product_packed<S>(part, packed, out, write == Write::add ? to.data : nullptr, to.stride, to);
      } else if (wants_dx) {
        cpu::product_nt<S>(part, weight, dx.slice(first, count), write);
      }
      if (wants_weight) cpu::linear_weight_gradient<S>(x.slice(first, count), part, weights, scratch);
      if (wants_sums) cpu::add_column_sums(part, sums);
    }
  });
  if (chunks > 1 && partial > 0) {
    // Every column of the partials is one sum over chunks, in order.
    constexpr Index strip = 4096;
    ctx.parallel(ceil_div(partial, strip), [&](Index b, Arena&) {
      const Index first = b * strip, count = std::min(strip, partial - first);
      S* to = partials.data + first;
      for (Index chunk = 1; chunk < chunks; ++chunk) cpu::add_rows<S>(partials.row(chunk) + first, 0, Rows<S>(to, 1, count));
    });
    if (wants_weight) {
      for (Index i = 0; i < in; ++i) cpu::add_rows<S>(partials.data + i * out, 0, dweight.slice(i, 1));
    }
    if (wants_sums) cpu::add_rows<S>(partials.data + partial - out, 0, dbias);
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

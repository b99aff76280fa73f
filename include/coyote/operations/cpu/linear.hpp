// SPDX-License-Identifier: Apache-2.0
#pragma once

// g++ 12 takes the undefined operands of some AVX-512 intrinsics for forgotten variables (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <algorithm>

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/operations/cpu/gemm.hpp"

namespace coyote::inline v0 {

namespace cpu::inline COYOTE_ISA {

/// Products of many rows are Eigen's; those of few (a decoding step), which its packing would dominate, our own.
inline constexpr Index few_rows = 128;
/// Rows of a block, what one thread multiplies at a time: more for wide weights, which each block packs anew.
inline Index linear_block(Index in, Index out) { return std::clamp<Index>(round_up(in * out / 256, 256), 256, 1024); }

/// Eigen's sizes of panels, with room for its packed panels from our scratch memory instead of malloc.
template <class S>
class PackingSpace : public Eigen::internal::level3_blocking<S, S> {
 public:
  PackingSpace(Index rows, Index columns, Index depth, Arena& scratch) {
    this->m_mc = rows;
    this->m_nc = columns;
    this->m_kc = depth;
    Eigen::internal::computeProductBlockingSizes<S, S, 1>(this->m_kc, this->m_mc, this->m_nc, Index{1});
    this->m_blockA = static_cast<S*>(scratch.allocate(static_cast<std::size_t>(this->m_mc * this->m_kc) * sizeof(S)));
    this->m_blockB = static_cast<S*>(scratch.allocate(static_cast<std::size_t>(this->m_kc * this->m_nc) * sizeof(S)));
  }
};

/// c += a b by Eigen's blocked product, c column-major, a and b in the storage orders named; a row-major matrix is the
/// transpose of a column-major one. The expression `c.noalias() += a * b` would do the same and compile, for each combination,
/// products of small matrices and of vectors as well, which never come here: 5 seconds instead of 2.
template <class S, int OrderA, int OrderB>
void add_product(Index rows, Index columns, Index depth, Rows<const S> a, Rows<const S> b, Rows<S> c, Arena& scratch) {
  namespace eigen = Eigen::internal;
  const Context<Cpu>::Frame frame(scratch);
  PackingSpace<S> blocking(rows, columns, depth, scratch);
  eigen::general_matrix_matrix_product<Index, S, OrderA, false, S, OrderB, false, Eigen::ColMajor, 1>::run(
      rows, columns, depth, a.data, a.stride, b.data, b.stride, c.data, 1, c.stride, S(1), blocking, nullptr);
}

/// y = x weight (+ bias, one row)
template <class S>
void linear_rows(Rows<const S> x, Rows<const S> weight, const S* bias, Rows<S> y, Arena& scratch) {
  if (x.rows < few_rows) return product_blocked<S, Lines::rows, Right::plain>(x, weight, weight.rows, bias, 0, y);
  for (Index i = 0; i < y.rows; ++i) bias == nullptr ? std::fill_n(y.row(i), y.width, S{}) : std::copy_n(bias, y.width, y.row(i));
  add_product<S, Eigen::ColMajor, Eigen::ColMajor>(weight.width, x.rows, weight.rows, weight, x, y, scratch);
}

/// dx (=|+=) dy weight^T
template <class S>
void linear_input_gradient(Rows<const S> dy, Rows<const S> weight, Rows<S> dx, Write write, Arena& scratch) {
  if (dy.rows < few_rows) return product_nt<S>(dy, weight, dx, write);
  for (Index i = 0; write == Write::overwrite && i < dx.rows; ++i) std::fill_n(dx.row(i), dx.width, S{});
  add_product<S, Eigen::RowMajor, Eigen::ColMajor>(weight.rows, dy.rows, weight.width, weight, dy, dx, scratch);
}

/// dweight += x^T dy
template <class S>
void linear_weight_gradient(Rows<const S> x, Rows<const S> dy, Rows<S> dweight, Arena& scratch) {
  if (x.rows < few_rows) return product_tn<S>(x, dy, dweight, Write::add);
  add_product<S, Eigen::ColMajor, Eigen::RowMajor>(dy.width, x.width, x.rows, dy, x, dweight, scratch);
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
  const Index block = cpu::linear_block(weight.rows, weight.width);
  ctx.parallel(ceil_div(x.rows, block), [&](Index b, Arena& scratch) {
    const Index first = b * block, rows = std::min(block, x.rows - first);
    cpu::linear_rows<S>(x.slice(first, rows), weight, bias.rows == 1 ? bias.data : nullptr, y.slice(first, rows), scratch);
    if (bias.rows > 1) {
      cpu::for_each_piece(batch, first, rows, [&](Index row, Index count, Index position) {
        cpu::add_rows(bias.row(position), bias.stride, y.slice(row, count));
      });
    }
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
  const Index block = cpu::linear_block(in, out), blocks = ceil_div(rows, block);
  const Index most = std::clamp<Index>((Index{1} << 20) / std::max<Index>(1, in * out), 4, 16);
  const Index per_chunk = ceil_div(blocks, most), chunks = ceil_div(blocks, per_chunk);
  const Index partial = (wants_weight ? in * out : 0) + (wants_sums ? out : 0);
  const Rows<S> partials = ctx.template make<S>(chunks > 1 ? chunks : 0, partial);
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
      if (wants_dx) cpu::linear_input_gradient<S>(part, weight, dx.slice(first, count), write, scratch);
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

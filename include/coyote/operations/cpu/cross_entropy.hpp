// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <span>

#include "coyote/operations/cpu/gemm.hpp"
#include "coyote/operations/cpu/math.hpp"

namespace coyote::inline v0 {
namespace cpu::inline COYOTE_ISA {

/// Rows of one chunk: their probabilities, V of them each, are in memory at once.
inline constexpr Index loss_chunk = 256;
/// Vocabulary entries that are worked on while they are near.
inline constexpr Index loss_strip = 96;

/// What a row block of the loss leaves behind: one entry per row.
template <class S>
struct LossRows {
  double* losses;    ///< negative log likelihoods
  Token* predicted;  ///< may be absent
};

/// A block of at most tile_columns rows: scores [V, rows] transposed, so that a row is a lane and no operand but the
/// hidden rows is transposed. Leaves exp(score - largest) with the label's sum taken off, that is the gradient times
/// the sum, and the inverse sums; dhidden (when wanted) is complete.
template <class S>
void loss_block(Rows<const S> hidden, Rows<const S> embedding, const Token* labels, S weight, double* losses, Token* predicted,
                S* scores, S* inverse, Rows<S> dhidden, bool wants_slopes, Arena& scratch) {
  constexpr Index wide = tile_columns<S>, step = lanes<S>;
  const Index depth = hidden.width, vocabulary = embedding.rows, count = hidden.rows;
  const Context<Cpu>::Frame frame(scratch);
  S* columns = static_cast<S*>(scratch.allocate(static_cast<std::size_t>(depth * wide) * sizeof(S)));
  transpose(hidden.data, hidden.stride, count, depth, columns, wide, wide);

  Vec<S> most[tile_registers];
  for (Vec<S>& m : most) m = broadcast<S>(-std::numeric_limits<S>::infinity());
  for (Index v = 0; v < vocabulary; v += loss_strip) {
    const Index n = std::min(loss_strip, vocabulary - v);
    product_packed<S>(embedding.slice(v, n), columns, depth, nullptr, 0, Rows<S>(scores + v * wide, n, wide));
    for (Index i = v; i < v + n; ++i) {
      COYOTE_UNROLL for (int r = 0; r < tile_registers; ++r) most[r] = vector_max<S>(most[r], load(scores + i * wide + r * step));
    }
  }
  alignas(64) S peaks[wide], sums[wide], targets[wide];
  for (int r = 0; r < tile_registers; ++r) store<S>(peaks + r * step, most[r]);
  for (Index i = 0; i < count; ++i) targets[i] = scores[labels[i] * wide + i];
  if (predicted != nullptr) {
    // The first entry that equals the largest.
    using I = detail::Bits<S>;
    Vec<I> best[tile_registers];
    for (Vec<I>& b : best) b = broadcast<I>(static_cast<I>(vocabulary));
    for (Index v = 0; v < vocabulary; ++v) {
      const Vec<I> here = broadcast<I>(static_cast<I>(v));
      COYOTE_UNROLL for (int r = 0; r < tile_registers; ++r) {
        best[r] = ((load(scores + v * wide + r * step) == most[r]) & (here < best[r])) ? here : best[r];
      }
    }
    for (Index i = 0; i < count; ++i) {
      const I found = best[i / step][i % step];
      predicted[i] = static_cast<Token>(found < static_cast<I>(vocabulary) ? found : 0);  // all NaN: 0
    }
  }
  Vec<S> total[tile_registers] = {};
  for (Index v = 0; v < vocabulary; v += loss_strip) {
    // Sums of strips, so that a long vocabulary loses no digits.
    Vec<S> part[tile_registers] = {};
    for (Index i = v; i < std::min(v + loss_strip, vocabulary); ++i) {
      COYOTE_UNROLL for (int r = 0; r < tile_registers; ++r) {
        const Vec<S> e = vector_exp_negative<S>(load(scores + i * wide + r * step) - most[r]);
        part[r] += e;
        if (wants_slopes) store<S>(scores + i * wide + r * step, e);
      }
    }
    for (int r = 0; r < tile_registers; ++r) total[r] += part[r];
  }
  for (int r = 0; r < tile_registers; ++r) store<S>(sums + r * step, total[r]);
  for (Index i = 0; i < count; ++i) {
    losses[i] = std::log(static_cast<double>(sums[i])) + (static_cast<double>(peaks[i]) - static_cast<double>(targets[i]));
  }
  if (!wants_slopes) return;
  for (Index i = 0; i < wide; ++i) inverse[i] = i < count ? weight / sums[i] : S{};
  for (Index i = 0; i < count; ++i) scores[labels[i] * wide + i] -= sums[i];
  product_tn<S>(Rows<const S>(scores, vocabulary, count, wide), embedding, dhidden, Write::overwrite);
  for (Index i = 0; i < count; ++i) copy_scaled<S>(inverse[i], dhidden.row(i), dhidden.row(i), depth);
}

}  // namespace cpu::inline COYOTE_ISA

/// The mean over rows of the negative log likelihood (nats) of labels[i] under softmax(hidden[i] embedding^T).
/// hidden [n, D]; embedding [V, D]; n >= 1. predicted (may be empty) receives the likeliest entry of each row, the first of
/// equals; losses (may be empty) each row's term. dhidden [n, D] is overwritten with the gradient of the mean,
/// dembedding [V, D] is added to; both have 0 rows when only the loss is wanted. At most 256 rows of probabilities are
/// in memory at once. A NaN among a row's scores makes its loss NaN. Throws when a label is not in 0 .. V - 1.
template <class S>
double cross_entropy(Context<Cpu>& ctx, Rows<const S> hidden, Rows<const S> embedding, std::span<const Token> labels,
                     std::span<Token> predicted, std::span<double> losses, Rows<S> dhidden, Rows<S> dembedding) {
  const Index rows = hidden.rows, vocabulary = embedding.rows, depth = hidden.width;
  if (static_cast<Index>(labels.size()) != rows || rows < 1) {
    throw Error("cross entropy", "one label per row and at least one row", words(labels.size(), " labels for ", rows, " rows"));
  }
  for (Index i = 0; i < rows; ++i) {
    const Token label = labels[static_cast<std::size_t>(i)];
    if (label < 0 || label >= vocabulary) {
      throw Error("cross entropy", words("labels in 0 .. ", vocabulary - 1), words("label ", label, " in labelled row ", i));
    }
  }
  constexpr Index block = cpu::tile_columns<S>;
  const bool wants_slopes = dhidden.rows > 0;
  const S weight = S(1) / static_cast<S>(rows);
  const auto frame = ctx.frame();
  const Rows<double> terms = ctx.template make<double>(1, rows);
  const Index chunk_rows = std::min(cpu::loss_chunk, round_up(rows, block)), chunk_blocks = chunk_rows / block;
  // [block][V][rows of the block]
  const Index size = vocabulary * block;
  S* scores = wants_slopes ? ctx.template make<S>(chunk_blocks, size).data : nullptr;
  S* inverse = wants_slopes ? ctx.template make<S>(1, chunk_rows).data : nullptr;
  const Rows<S> weighted = ctx.template make<S>(wants_slopes ? chunk_rows : 0, depth);
  for (Index first = 0; first < rows; first += chunk_rows) {
    const Index count = std::min(chunk_rows, rows - first), blocks = ceil_div(count, block);
    ctx.parallel(blocks, [&](Index b, Arena& scratch) {
      const Index row = first + b * block, n = std::min(block, rows - row);
      S* own = wants_slopes ? scores + b * size : static_cast<S*>(scratch.allocate(static_cast<std::size_t>(size) * sizeof(S)));
      S* inverses = wants_slopes ? inverse + b * block : nullptr;
      cpu::loss_block<S>(hidden.slice(row, n), embedding, labels.data() + row, weight, terms.data + row,
                         predicted.empty() ? nullptr : predicted.data() + row, own, inverses,
                         wants_slopes ? dhidden.slice(row, n) : Rows<S>{}, wants_slopes, scratch);
      for (Index i = 0; wants_slopes && i < n; ++i) {
        cpu::copy_scaled<S>(inverses[i], hidden.row(row + i), weighted.row(b * block + i), depth);
      }
    });
    if (dembedding.rows > 0 && wants_slopes) {
      constexpr Index strip = 2 * cpu::loss_strip;
      ctx.parallel(ceil_div(vocabulary, strip), [&](Index part, Arena&) {
        const Index v = part * strip, n = std::min(strip, vocabulary - v);
        for (Index b = 0; b < blocks; ++b) {
          const Index held = std::min(block, count - b * block);
          cpu::product<S>(Rows<const S>(scores + b * size + v * block, n, held, block), weighted.slice(b * block, held),
                          dembedding.slice(v, n), Write::add);
        }
      });
    }
  }
  double sum = 0;
  for (Index i = 0; i < rows; ++i) sum += terms.data[i];
  if (!losses.empty()) std::copy_n(terms.data, rows, losses.data());
  return sum / static_cast<double>(rows);
}

/// logits = hidden embedding^T. hidden [n, D], embedding [V, D], logits [n, V].
template <class S>
void head_logits(Context<Cpu>& ctx, Rows<const S> hidden, Rows<const S> embedding, Rows<S> logits) {
  const Index strip = std::max<Index>(256, round_up((Index{1} << 17) / std::max<Index>(1, hidden.width), 64));
  const Index tall = 192, strips = ceil_div(embedding.rows, strip), talls = ceil_div(hidden.rows, tall);
  ctx.parallel(strips * talls, [&](Index task, Arena&) {
    const Index row = task / strips * tall, v = task % strips * strip;
    const Index n = std::min(tall, hidden.rows - row), m = std::min(strip, embedding.rows - v);
    cpu::product_nt<S>(hidden.slice(row, n), embedding.slice(v, m), logits.slice(row, n).columns(v, m), Write::overwrite);
  });
}

}  // namespace coyote::inline v0

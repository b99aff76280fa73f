// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/cross_entropy_tiles.cuh"
#include "coyote/operations/cuda/sums.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// Cross entropy of a tied head on Hopper, bf16, up to 256 wide, whose scores never leave the multiprocessor that multiplies
// them. With h_i the hidden rows, e_v the table, y_i the labels, s_iv = <h_i, e_v> and p_iv = exp(s_iv) / sum_w exp(s_iw):
//
//     loss_i = log(sum_v exp(s_iv)) - s_iy                                       (row parts, joined by finish_rows)
//     dh_i   = (sum_{v != y} p_iv e_v - (1 - p_iy) e_y) / rows                   (the same two)
//     de_v  += sum_i (p_iv - [v = y_i]) h_i / rows                               (table parts, joined by add_table_parts)
//
// The first two are an attention whose keys and values both are the table: one pass of 2 products. de_v takes one more pass of 2
// products, with the table's rows kept and the hidden ones streamed. In all 8 n V D flop and 2 n V exponentials (forward only: 2
// and 1) instead of the 6 n V D flop and the 14 bytes a score of three products with scores in memory. The label's own score is
// kept out of all sums over v and joins at the end, so that small losses and their gradients do not cancel.
//
// Both passes are cut over (kept tiles) x (parts of the streamed ones), enough to fill the device; parts are joined in order.

/// For blockIdx.x's kept rows of `hidden` and blockIdx.y's part of the table: what a RowPart says and, where slopes are wanted,
/// sums[part, row, :] = sum of exp2(s log2(e) - shift) e_v, over all v but the label; and the label's score.
template <int Width, bool Slopes>
__global__ void __launch_bounds__(loss_shape(Width).threads(), loss_shape(Width).blocks)
    wgmma_row_parts(const bf16* hidden, const bf16* table, const Token* labels, int rows, int vocabulary, LossCut cut,
                    float* label_scores, RowPart* parts, float* sums) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr LossShape shape = loss_shape(Width);
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t words[1 + 2 * shape.stages];
  const LossTiles<Width> tiles(memory, words, hidden, table, nullptr, cut);
  const int group = warpgroup(), lane = threadIdx.x % 32, t = lane % 4;
  const int first_row = (static_cast<int>(blockIdx.x) * shape.groups + group) * 64;
  const int row = first_row + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;  // and row + 8
  const int first_tile = static_cast<int>(blockIdx.y) * cut.each;
  const int label[2] = {row < rows ? labels[row] : -1, row + 8 < rows ? labels[row + 8] : -1};

  // A row's shift follows its largest score, but only when that has grown by more than a factor of 2^8 in what is summed.
  constexpr float growth = 8 * ln_2;
  float best[2] = {-INFINITY, -INFINITY}, shift[2] = {-1e30f, -1e30f}, limit[2] = {-1e30f, -1e30f}, total[2] = {0, 0};
  int place[2] = {no_place, no_place};
  float s[32] = {}, factor[2];
  bool grows;
  // Scores of tile n become weights; where shifts grow, `factor` takes earlier sums along.
  const auto weigh = [&](int n) {
    const int column = (first_tile + n) * 64;
    if (column + 64 > vocabulary) {
#pragma unroll
      for (int e = 0; e < 32; ++e) {
        if (column + 8 * (e / 4) + 2 * t + e % 2 >= vocabulary) s[e] = -INFINITY;
      }
    }
    grows = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = label[half] - column;
      if (0 <= at && at < 64 && at % 8 / 2 == t) {
#pragma unroll
        for (int m = 0; m < 8; ++m) {
#pragma unroll
          for (int e = 4 * m + 2 * half; e < 4 * m + 2 * half + 2; ++e) {
            if (8 * m + 2 * t + e % 2 == at) {
              label_scores[row + 8 * half] = s[e];
              s[e] = -INFINITY;
            }
          }
        }
      }
      float low = s[2 * half], high = s[2 * half + 1];
#pragma unroll
      for (int m = 1; m < 8; ++m) {
        low = fmaxf(low, s[4 * m + 2 * half]);
        high = fmaxf(high, s[4 * m + 2 * half + 1]);
      }
      const float highest = fmaxf(low, high);
      if (highest > best[half]) {
        best[half] = highest;
        place[half] = (first_tile + n) * 8 + t;
      }
      grows = grows || highest > limit[half];
    }
    grows = __any_sync(0xFFFFFFFFu, grows);
    if (grows) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = fmaxf(best[half], __shfl_xor_sync(0xFFFFFFFFu, best[half], 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, 2));
        const float to = fmaxf(shift[half], highest * log2_e);
        factor[half] = exp2_fast(shift[half] - to);
        total[half] *= factor[half];
        shift[half] = to;
        limit[half] = fmaxf(limit[half], highest + growth);
      }
    }
    float sums_of_four[4] = {0, 0, 0, 0};  // short chains of additions
#pragma unroll
    for (int e = 0; e < 32; ++e) {
      s[e] = exp2_fast(fmaf(s[e], log2_e, -shift[e % 4 / 2]));
      sums_of_four[e % 4] += s[e];
    }
    total[0] += sums_of_four[0] + sums_of_four[1];
    total[1] += sums_of_four[2] + sums_of_four[3];
  };
  LossSums<Width> out;
  out.clear();
  tiles.wait(0);
  multiply_scores(s, tiles.kept(group), tiles.tile(0));
  wait_products<0>();
  pin(s);
  weigh(0);
  if constexpr (Slopes) out.weights(s);
  for (int n = 1; n < tiles.count; ++n) {
    // The tensor cores have tile n - 1 to add while scores of tile n become weights.
    tiles.wait(n);
    multiply_scores(s, tiles.kept(group), tiles.tile(n));
    if constexpr (Slopes) {
      out.add(tiles.tile(n - 1));
      wait_products<1>();
    } else {
      wait_products<0>();
    }
    pin(s);
    weigh(n);
    if constexpr (Slopes) {
      out.finish();
      if (grows) out.scale(factor[0], factor[1]);
      out.weights(s);
    }
    tiles.release(n - 1);
    tiles.refill(n);
  }
  const Index padded = Index{gridDim.x} * shape.groups * 64, part = blockIdx.y;
  if constexpr (Slopes) {
    out.add(tiles.tile(tiles.count - 1));
    out.finish();
    out.store(sums + (part * padded + first_row) * Width);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int reach = 1; reach < 4; reach *= 2) {
      total[half] += __shfl_xor_sync(0xFFFFFFFFu, total[half], reach);
      const float other = __shfl_xor_sync(0xFFFFFFFFu, best[half], reach);
      const int its_place = __shfl_xor_sync(0xFFFFFFFFu, place[half], reach);
      if (other == best[half]) {
        place[half] = place[half] / 8 == its_place / 8 ? place[half] / 8 * 8 + 4 : min(place[half], its_place);
      } else if (other > best[half]) {
        best[half] = other;
        place[half] = its_place;
      }
    }
    if (t == 0) parts[part * padded + row + 8 * half] = {shift[half], total[half], best[half], place[half]};
  }
#endif
}

/// The index of the likeliest entry of a row by the scores of the columns where the largest one is; by a warp. The label, whose
/// score is not among these, is left out.
template <int Width>
__device__ int find_best(const uint4* hidden, const uint4* table, Index row, int place, int vocabulary, int label) {
  constexpr int lanes = Width / 8, together = 32 / lanes;  // lanes to a candidate, candidates at a time
  const int lane = threadIdx.x % 32, column = lane % lanes * 8, t = place % 8;
  const auto dot = [](const uint4& a, const uint4& b) {
    const auto pair = [](std::uint32_t x, std::uint32_t y) {
      const float low = __uint_as_float(x << 16) * __uint_as_float(y << 16);
      return fmaf(__uint_as_float(x & 0xFFFF0000u), __uint_as_float(y & 0xFFFF0000u), low);
    };
    return (pair(a.x, b.x) + pair(a.y, b.y)) + (pair(a.z, b.z) + pair(a.w, b.w));
  };
  const uint4 own = hidden[chunk_place(Width, row, column)];
  const uint4* const tile = table + chunk_place(Width, Index{place / 8} * 64, 0);
  float best = -INFINITY;
  int found = no_place;
  const int candidates = t < 4 ? 16 : 64;
#pragma unroll 4
  for (int c = lane / lanes; c < candidates; c += together) {
    const int r = t < 4 ? c / 2 * 8 + 2 * t + c % 2 : c, v = place / 8 * 64 + r;
    float score = dot(own, tile[panel_place(r, column)]);  // rows up to the tile's end exist and are 0
#pragma unroll
    for (int reach = lanes / 2; reach > 0; reach /= 2) score += __shfl_xor_sync(0xFFFFFFFFu, score, reach);
    if (v < vocabulary && v != label && score > best) {
      best = score;
      found = v;
    }
  }
#pragma unroll
  for (int reach = lanes; reach < 32; reach *= 2) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, best, reach);
    const int its = __shfl_xor_sync(0xFFFFFFFFu, found, reach);
    if (other > best || (other == best && its < found)) {
      best = other;
      found = its;
    }
  }
  return found;
}

/// What finish_rows reads and writes.
struct RowEnds {
  const RowPart* row_parts;  // [parts, padded]
  const float *sums, *label_scores;
  const uint4 *hidden_tiles, *table_tiles;
  const Token* labels;
  Rows<const float> table;
  int parts, rows, padded, vocabulary;
  float weight;
  double* losses;
  Token* predicted;
  Rows<bf16> dhidden;
  float* terms;  // for each tile of 64 rows their log2(sum of exp(s)), then their labels
};

/// Joins the parts of a row; a warp each. Loss, likeliest entry, the hidden row's gradient.
template <int Width, bool Slopes>
__global__ void __launch_bounds__(256) finish_rows_kernel(RowEnds r) {
  follow();
  const int row = static_cast<int>(blockIdx.x * 8 + threadIdx.x / 32), lane = threadIdx.x % 32;
  if (row >= r.padded) return;
  float* const terms = Slopes ? r.terms + row / 64 * 128 + row % 64 : nullptr;
  if (row >= r.rows) {
    if (Slopes && lane == 0) {
      terms[0] = INFINITY;
      terms[64] = __int_as_float(-1);
    }
    return;
  }
  // Loads begin before what they are multiplied with is known: these kernels' time is that of memory to answer.
  constexpr int own = Width / 32, together = Width == 64 ? 8 : 4;
  float part_sums[Slopes ? together : 1][own];
  const auto load_sums = [&](int first) {
#pragma unroll
    for (int p = 0; p < together; ++p) {
      const float* const from = r.sums + ((first + p) * Index{r.padded} + row) * Width + lane * own;
      using Vector = std::conditional_t<own == 2, float2, float4>;
      constexpr int size = own == 2 ? 2 : 4;
#pragma unroll
      for (int e = 0; e < own; e += size) {
        *reinterpret_cast<Vector*>(part_sums[p] + e) =
            first + p < r.parts ? *reinterpret_cast<const Vector*>(from + e) : Vector{};
      }
    }
  };
  if constexpr (Slopes) load_sums(0);
  RowPart mine{-1e30f, 0, -INFINITY, no_place};
  if (lane < r.parts) mine = r.row_parts[lane * Index{r.padded} + row];
  const int label = r.labels[row];
  const float label_score = r.label_scores[row];
  float shift = mine.shift;
#pragma unroll
  for (int reach = 16; reach > 0; reach /= 2) shift = fmaxf(shift, __shfl_xor_sync(0xFFFFFFFFu, shift, reach));
  float others = mine.total * exp2_fast(mine.shift - shift);
#pragma unroll
  for (int reach = 16; reach > 0; reach /= 2) others += __shfl_xor_sync(0xFFFFFFFFu, others, reach);
  // log(others e^shift + e^label) - label, in the form that does not cancel
  const float ahead = shift * ln_2 - label_score;
  float loss = ahead <= 0 ? log1pf(others * expf(ahead)) : ahead + logf(others + expf(-ahead));
  if (label_score == INFINITY) loss = NAN;
  const float log_sum = (label_score + loss) * log2_e;
  if (lane == 0) r.losses[row] = static_cast<double>(loss);

  if constexpr (Slopes) {
    if (lane == 0) {
      terms[0] = log_sum;
      terms[64] = __int_as_float(label);
    }
    const float factor = exp2_fast(mine.shift - log_sum), rest = -expm1f(-loss);
    float sum[own] = {};
    for (int first = 0; first < r.parts; first += together) {
      if (first > 0) load_sums(first);
#pragma unroll
      for (int p = 0; p < together; ++p) {
        if (first + p >= r.parts) break;
        const float f = __shfl_sync(0xFFFFFFFFu, factor, first + p);
#pragma unroll
        for (int e = 0; e < own; ++e) sum[e] = fmaf(f, part_sums[p][e], sum[e]);
      }
    }
    bf16* const to = r.dhidden.row(row);
    const float* const entry = r.table.row(label);
#pragma unroll
    for (int e = 0; e < own; ++e) {
      const int c = lane * own + e;
      if (c < r.table.width) to[c] = __float2bfloat16((sum[e] - rest * to_float(__float2bfloat16(entry[c]))) * r.weight);
    }
  }

  if (r.predicted == nullptr) return;
  float best = mine.best;
  int place = mine.place;
#pragma unroll
  for (int reach = 16; reach > 0; reach /= 2) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, best, reach);
    const int its = __shfl_xor_sync(0xFFFFFFFFu, place, reach);
    if (other > best || (other == best && its < place)) {
      best = other;
      place = its;
    }
  }
  int found = label;
  if (place != no_place && !(best < label_score)) {
    const int other = find_best<Width>(r.hidden_tiles, r.table_tiles, row, place, r.vocabulary, label);
    if (other != no_place) found = best > label_score ? other : min(other, label);
  }
  if (lane == 0) r.predicted[row] = found;
}

/// For blockIdx.x's kept rows of the table and blockIdx.y's part of the hidden ones: sums[part, v, :] = sum over the part's rows
/// i of (p_iv - [v = y_i]) h_i.
template <int Width>
__global__ void __launch_bounds__(loss_shape(Width).threads(), loss_shape(Width).blocks)
    wgmma_table_parts(const bf16* hidden, const bf16* table, const float* terms, LossCut cut, float* sums) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr LossShape shape = loss_shape(Width);
  extern __shared__ unsigned char memory[];
  __shared__ __align__(8) std::uint64_t words[1 + 2 * shape.stages];
  const LossTiles<Width> tiles(memory, words, table, hidden, terms, cut);
  const int group = warpgroup(), lane = threadIdx.x % 32, t = lane % 4;
  const int first_entry = (static_cast<int>(blockIdx.x) * shape.groups + group) * 64;
  const int warp_entry = first_entry + static_cast<int>(threadIdx.x) % 128 / 32 * 16;
  float s[32] = {};
  const auto weigh = [&](int n) {
    const std::uint32_t log_sums = tiles.row_terms(n), labels = log_sums + 256;
#pragma unroll
    for (int m = 0; m < 8; ++m) {
      float low, high;
      asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(low), "=f"(high) : "r"(log_sums + 32 * m + 8 * t));
#pragma unroll
      for (int e = 0; e < 4; ++e) s[4 * m + e] = exp2_fast(fmaf(s[4 * m + e], log2_e, -(e % 2 == 0 ? low : high)));
    }
    // Few warps hold the entry that is the label of one of the rows.
    const auto label_of = [&](int i) {
      int label;
      asm volatile("ld.shared.s32 %0, [%1];" : "=r"(label) : "r"(labels + 4 * i));
      return label;
    };
    const auto is_here = [&](int label) { return static_cast<unsigned>(label - warp_entry) < 16; };
    if (__any_sync(0xFFFFFFFFu, is_here(label_of(lane)) || is_here(label_of(lane + 32)))) {
#pragma unroll
      for (int m = 0; m < 8; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (label_of(8 * m + 2 * t + e % 2) == warp_entry + lane / 4 + e / 2 * 8) s[4 * m + e] -= 1;
        }
      }
    }
  };
  LossSums<Width> out;
  out.clear();
  tiles.wait(0);
  multiply_scores(s, tiles.kept(group), tiles.tile(0));
  wait_products<0>();
  pin(s);
  weigh(0);
  out.weights(s);
  for (int n = 1; n < tiles.count; ++n) {
    tiles.wait(n);
    multiply_scores(s, tiles.kept(group), tiles.tile(n));
    out.add(tiles.tile(n - 1));
    wait_products<1>();
    pin(s);
    weigh(n);
    out.finish();
    out.weights(s);
    tiles.release(n - 1);
    tiles.refill(n);
  }
  out.add(tiles.tile(tiles.count - 1));
  out.finish();
  out.store(sums + (Index{blockIdx.y} * gridDim.x * shape.groups * 64 + first_entry) * Width);
#endif
}

/// dtable[v, :] += weight * (sums[0, v, :] + sums[1, v, :] + ...); the last block works out the loss, the mean of all terms.
template <class S>
__global__ void __launch_bounds__(256) add_table_parts_kernel(const float* sums, int width, int parts, Index padded, float weight,
                                                              Rows<S> dtable, const double* losses, int rows, double* loss) {
  follow();
  if (blockIdx.x == gridDim.x - 1) return add_parts(losses, rows, 1 / static_cast<double>(rows), loss);
  const Index at = (Index{blockIdx.x} * 256 + threadIdx.x) * 4, v = at / width;
  const int c = static_cast<int>(at % width);
  if (v >= dtable.rows || c >= dtable.width) return;
  float4 sum = {0, 0, 0, 0};
#pragma unroll 4
  for (int p = 0; p < parts; ++p) {
    const float4 x = *reinterpret_cast<const float4*>(sums + p * padded * width + at);
    sum = {sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w};
  }
  float* const to = dtable.row(v) + c;
  if (c + 4 <= dtable.width && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    const float4 old = *reinterpret_cast<const float4*>(to);
    *reinterpret_cast<float4*>(to) = {fmaf(weight, sum.x, old.x), fmaf(weight, sum.y, old.y), fmaf(weight, sum.z, old.z),
                                      fmaf(weight, sum.w, old.w)};
  } else {
    const float values[4] = {sum.x, sum.y, sum.z, sum.w};
    for (int e = 0; e < 4 && c + e < dtable.width; ++e) to[e] = fmaf(weight, values[e], to[e]);
  }
}

/// The loss, its terms, likeliest entries and gradients, as cross_entropy gives them.
template <int Width>
void launch_wgmma_cross_entropy(Context<Cuda>& context, Rows<const bf16> hidden, Rows<const float> table, const Token* labels,
                                Token* predicted, double* losses, Rows<bf16> dhidden, Rows<float> dtable, double* loss) {
  constexpr LossShape shape = loss_shape(Width);
  constexpr Index kept = 64 * shape.groups;
  const cudaStream_t stream = context.stream();
  const int rows = static_cast<int>(hidden.rows), vocabulary = static_cast<int>(table.rows);
  const int row_blocks = static_cast<int>(ceil_div(rows, kept)), table_blocks = static_cast<int>(ceil_div(vocabulary, kept));
  const int slots = shape.blocks * context.limits().multiprocessors;
  const Index padded_rows = row_blocks * kept, padded_entries = table_blocks * kept;
  const bool slopes = dhidden.rows > 0;

  const Index hidden_chunks = padded_rows * Width / 8, table_chunks = padded_entries * Width / 8;
  bf16* const hidden_tiles = context.make<bf16>(padded_rows, Width).data;
  bf16* const table_tiles = context.make<bf16>(padded_entries, Width).data;
  launch_following(context, &lay_tiles_kernel<bf16>, "launch of lay_tiles",
                   static_cast<unsigned>(ceil_div(hidden_chunks + table_chunks, 256)), 256, 0, hidden, table, Width,
                   reinterpret_cast<uint4*>(hidden_tiles), hidden_chunks, reinterpret_cast<uint4*>(table_tiles), table_chunks);

  const LossCut cut = loss_cut(row_blocks, static_cast<int>(ceil_div(vocabulary, 64)), slots);
  const int parts = cut.parts();
  float* const label_scores = context.make<float>(1, padded_rows).data;
  RowPart* const row_parts = context.make<RowPart>(parts, padded_rows).data;
  float* const sums = slopes ? context.make<float>(parts * padded_rows, Width).data : nullptr;
  float* const terms = slopes ? context.make<float>(2, padded_rows).data : nullptr;
  const auto pass = [&](auto* kernel, const char* name, int blocks, const LossCut& cut_, const auto&... arguments) {
    launch_following(context, kernel, name, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(cut_.parts())),
                     static_cast<unsigned>(shape.threads()), static_cast<std::size_t>(shape.bytes()), arguments...);
  };
  pass(slopes ? &wgmma_row_parts<Width, true> : &wgmma_row_parts<Width, false>, "launch of wgmma_row_parts", row_blocks, cut,
       hidden_tiles, table_tiles, labels, rows, vocabulary, cut, label_scores, row_parts, sums);

  const RowEnds ends{.row_parts = row_parts,
                     .sums = sums,
                     .label_scores = label_scores,
                     .hidden_tiles = reinterpret_cast<const uint4*>(hidden_tiles),
                     .table_tiles = reinterpret_cast<const uint4*>(table_tiles),
                     .labels = labels,
                     .table = table,
                     .parts = parts,
                     .rows = rows,
                     .padded = static_cast<int>(padded_rows),
                     .vocabulary = vocabulary,
                     .weight = static_cast<float>(1 / static_cast<double>(rows)),
                     .losses = losses,
                     .predicted = predicted,
                     .dhidden = dhidden,
                     .terms = terms};
  launch_following(context, slopes ? &finish_rows_kernel<Width, true> : &finish_rows_kernel<Width, false>,
                   "launch of finish_rows", dim3(static_cast<unsigned>(ceil_div(padded_rows, 8))), 256, 0, ends);
  if (!slopes || dtable.rows == 0) {
    add_parts_kernel<double><<<1, 256, 0, stream>>>(losses, rows, 1 / static_cast<double>(rows), loss);
    COYOTE_CUDA_CHECK_LAUNCH("add_parts");
    return;
  }

  const LossCut row_cut = loss_cut(table_blocks, static_cast<int>(ceil_div(rows, 64)), slots);
  float* const table_sums = context.make<float>(row_cut.parts() * padded_entries, Width).data;
  pass(wgmma_table_parts<Width>, "launch of wgmma_table_parts", table_blocks, row_cut, hidden_tiles, table_tiles, terms, row_cut,
       table_sums);
  launch_following(context, &add_table_parts_kernel<float>, "launch of add_table_parts",
                   dim3(static_cast<unsigned>(ceil_div(vocabulary * Index{Width} / 4, 256) + 1)), 256, 0,
                   static_cast<const float*>(table_sums), Width, row_cut.parts(), padded_entries, ends.weight, dtable,
                   static_cast<const double*>(losses), rows, loss);
}

/// False when the device or the width does not suit: the general path takes over. A template so that only those who call it
/// compile it.
template <class S>
bool wgmma_cross_entropy(Context<Cuda>& context, Rows<const S> hidden, Rows<const float> table, const Token* labels,
                         Token* predicted, double* losses, Rows<S> dhidden, Rows<float> dtable, double* loss) {
  if (!context.limits().is_hopper() || hidden.width > 256 || hidden.rows > (1 << 24) || table.rows > (1 << 24)) return false;
  const auto launch = [&](auto width) {
    launch_wgmma_cross_entropy<decltype(width)::value>(context, hidden, table, labels, predicted, losses, dhidden, dtable, loss);
  };
  if (hidden.width <= 64) {
    launch(std::integral_constant<int, 64>{});
  } else if (hidden.width <= 128) {
    launch(std::integral_constant<int, 128>{});
  } else {
    launch(std::integral_constant<int, 256>{});
  }
  return true;
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

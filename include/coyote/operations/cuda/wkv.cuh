// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/cuda/wkv_backward.cuh"
#include "coyote/operations/cuda/wkv_team.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

template <class S>
__global__ void __launch_bounds__(row_threads)
    wkv_step_kernel(Rows<float> state, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k, Rows<const S> v,
                    Rows<S> y) {
  follow();
  const Index c = Index{blockIdx.y} * blockDim.x + threadIdx.x, s = Index{blockIdx.x} * blockDim.y + threadIdx.y, width = y.width;
  if (c >= width || s >= y.rows) return;
  WkvSums sums{state(s, c), state(s, width + c), state(s, 2 * width + c)};
  const float key = wkv_log2_e * to_float(k(s, c)), value = to_float(v(s, c));
  y(s, c) = from_float<S>(WkvOutput(sums, wkv_log2_e * bonus(0, c), key, value).value);
  sums = combine(sums, wkv_log2_e * expf(decay(0, c)), {value, 1.0f, key});
  state(s, c) = sums.first;
  state(s, width + c) = sums.second;
  state(s, 2 * width + c) = sums.highest;
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// How many rows of checkpoints wkv wants to write in training, each 3 * width numbers: one for every 64 rows of a sequence.
inline Index wkv_checkpoints(const Context<Cuda>&, const Batch& batch) {
  if (batch.offsets.empty()) return batch.sequences * ceil_div(batch.length, cuda::wkv_checkpoint_rows);
  return batch.rows() / cuda::wkv_checkpoint_rows + batch.sequences;
}

/// See the Reference's wkv. Every row is read from memory once, by one block a sequence and group of channels or by a team of
/// them. Floor: k, v and y once; about 30 instructions a number.
template <class S>
void wkv(Context<Cuda>& context, const Batch& batch, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
         Rows<const S> v, Rows<S> y, Rows<float> checkpoints) {
  if (y.empty()) return;
  constexpr int rows = 16, channels = 4 / static_cast<int>(sizeof(S));
  const cuda::WkvProblem<S> problem{cuda::sequences_of(batch), decay, bonus, k, v, checkpoints};
  const auto start = [&](auto n, auto bytes) {
    using Tile = cuda::WkvTile<n(), rows>;
    const Index units = batch.sequences * ceil_div(y.width, 32 * n());
    using TeamStages = cuda::WkvStages<Tile, S, bytes(), cuda::wkv_team_stages>;
    const cuda::WkvBlock team = cuda::wkv_team_block(context.limits(), units, batch.length, rows, TeamStages::warp_bytes,
                                                     sizeof(cuda::SharedWkvSums<n()>));
    if (team.team > 1) {
      const auto frame = context.frame();
      cuda::launch_teams(context, team.team, static_cast<unsigned>(units * team.team), 32 * (team.warps + n()),
                         team.warps * TeamStages::warp_bytes + cuda::WkvPipe<n()>::bytes(team.warps),
                         cuda::wkv_team_kernel<Tile, bytes(), S>, problem, team,
                         cuda::make_letters(context, units, team, 32 * n()), y);
    } else {
      const cuda::WkvBlock block = cuda::wkv_block(context, batch, ceil_div(y.width, 32 * n()), rows);
      cuda::launch_teams(context, 1, static_cast<unsigned>(units), 32 * block.warps,
                         block.warps * cuda::WkvStages<Tile, S, bytes(), cuda::wkv_stages>::warp_bytes +
                             cuda::WkvExchange<n(), false>::bytes(block.warps),
                         cuda::wkv_kernel<Tile, bytes(), S>, problem, block, y);
    }
  };
  cuda::with_packs<S>(
      y.width,
      [&](auto all) {
        if constexpr (all() > 1) {
          start(std::integral_constant<int, channels>{}, std::integral_constant<int, 16>{});
        } else {
          cuda::with_packs_of<S, 4>(
              y.width, [&](auto n) { start(n, std::integral_constant<int, n() * sizeof(S)>{}); }, k, v, y);
        }
      },
      k, v, y);
}

/// Gradients of wkv: dk and dv are overwritten, ddecay and dbonus (absent: not wanted) added to. Floor: k, v, dy, dk and dv once.
template <class S>
void wkv_backward(Context<Cuda>& context, const Batch& batch, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
                  Rows<const S> v, Rows<const float> checkpoints, Rows<const S> dy, Rows<S> dk, Rows<S> dv, Rows<float> ddecay,
                  Rows<float> dbonus) {
  if (dy.empty()) return;
  const auto frame = context.frame();
  const Rows<float> states(const_cast<float*>(checkpoints.data), checkpoints.rows, checkpoints.width, checkpoints.stride);
  const Index width = dy.width, groups = ceil_div(width, 32);
  const cuda::WkvBlock block = cuda::wkv_backward_block(context.limits(), batch.sequences * groups, batch.length);
  const cuda::PartialSums partial = ddecay.rows > 0 || dbonus.rows > 0
                                        ? context.make_partial_sums(batch.sequences * block.team, 2 * width)
                                        : cuda::PartialSums{};
  const cuda::WkvProblem<S> problem{cuda::sequences_of(batch), decay, bonus, k, v, states};
  const auto start = [&](auto teamed) {
    cuda::launch_teams(context, block.team, static_cast<unsigned>(batch.sequences * groups * block.team), 32 * block.warps,
                       cuda::WkvExchange<1, teamed()>::bytes(block.warps), cuda::wkv_backward_kernel<teamed(), S>, problem, block,
                       cuda::make_letters(context, batch.sequences * groups, block, 32),
                       cuda::WkvGradients<S>{dy, dk, dv, partial.rows});
  };
  block.team > 1 ? start(std::true_type{}) : start(std::false_type{});
  if (ddecay.rows > 0) {
    cuda::add_column_sums(context, partial, ddecay, dbonus);
  } else if (dbonus.rows > 0) {
    cuda::add_column_sums(context, cuda::PartialSums{partial.rows.columns(width, width), partial.waits}, dbonus);
  }
}

/// One row of every sequence. state [sequences, 3 * width]: numerators, denominators, highest exponents.
template <class S>
void wkv_step(Context<Cuda>& context, Rows<float> state, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
              Rows<const S> v, Rows<S> y) {
  if (y.empty()) return;
  cuda::launch_following(context, &cuda::wkv_step_kernel<S>, "launch of wkv_step", cuda::row_grid(y.rows, y.width),
                         cuda::row_block(y.width), 0, state, decay, bonus, k, v, y);
}

}  // namespace coyote::inline v0

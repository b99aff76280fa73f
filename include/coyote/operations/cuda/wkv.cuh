// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/cuda/wkv_backward.cuh"
#include "coyote/operations/cuda/wkv_forward.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

template <class S>
__global__ void __launch_bounds__(row_threads)
    wkv_step_kernel(Rows<float> state, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k, Rows<const S> v,
                    Rows<S> y) {
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

/// See the Reference's wkv. Every row is read once. Floor: k, v and y once; about 25 instructions a number.
template <class S>
void wkv(Context<Cuda>& context, const Batch& batch, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
         Rows<const S> v, Rows<S> y, Rows<float> checkpoints) {
  if (y.empty()) return;
  const auto launch = [&](auto tile, auto bytes) {
    using Tile = decltype(tile);
    const Index groups = ceil_div(y.width, Tile::lanes * Tile::N);
    const cuda::WkvBlock block = cuda::wkv_block(context, batch, groups, Tile::warp_rows, 2);
    const cuda::WkvProblem<S> problem{cuda::sequences_of(batch), decay, bonus, k, v, checkpoints};
    cuda::launch_clusters(
        context, block.cluster, static_cast<unsigned>(batch.sequences * groups * block.cluster), 32 * block.warps,
        block.warps * cuda::WkvStages<Tile, S, bytes()>::warp_bytes,
        block.cluster > 1 ? cuda::wkv_kernel<Tile, bytes(), true, S> : cuda::wkv_kernel<Tile, bytes(), false, S>, problem, block,
        y);
  };
  // Half as many channels a warp where whole ones do not fill the device.
  constexpr int channels = 4 / static_cast<int>(sizeof(S));
  const bool few = batch.sequences * ceil_div(y.width, 32 * channels) < context.limits().multiprocessors;
  const auto launch_packs = [&](auto n, auto bytes) {
    few ? launch(cuda::WkvTile<n(), 16, 16>{}, bytes) : launch(cuda::WkvTile<n(), 16, 32>{}, bytes);
  };
  cuda::with_packs<S>(
      y.width,
      [&](auto all) {
        if constexpr (all() > 1) {
          launch_packs(std::integral_constant<int, channels>{}, std::integral_constant<int, 16>{});
        } else {
          cuda::with_packs_of<S, 4>(
              y.width, [&](auto n) { launch_packs(n, std::integral_constant<int, n() * sizeof(S)>{}); }, k, v, y);
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
  const cuda::WkvBlock block = cuda::wkv_block(context, batch, groups, cuda::wkv_slice, 2);
  const Rows<float> partial =
      ddecay.rows > 0 || dbonus.rows > 0 ? context.make<float>(batch.sequences * block.cluster, 2 * width) : Rows<float>();
  const cuda::WkvProblem<S> problem{cuda::sequences_of(batch), decay, bonus, k, v, states};
  cuda::launch_clusters(context, block.cluster, static_cast<unsigned>(batch.sequences * groups * block.cluster), 32 * block.warps,
                        0, block.cluster > 1 ? cuda::wkv_backward_kernel<1, true, S> : cuda::wkv_backward_kernel<1, false, S>,
                        problem, block, cuda::WkvGradients<S>{dy, dk, dv, partial});
  if (ddecay.rows > 0) {
    cuda::add_column_sums(context, partial, ddecay, dbonus);
  } else if (dbonus.rows > 0) {
    cuda::add_column_sums(context, partial.columns(width, width), dbonus);
  }
}

/// One row of every sequence. state [sequences, 3 * width]: numerators, denominators, highest exponents.
template <class S>
void wkv_step(Context<Cuda>& context, Rows<float> state, Rows<const float> decay, Rows<const float> bonus, Rows<const S> k,
              Rows<const S> v, Rows<S> y) {
  if (y.empty()) return;
  cuda::wkv_step_kernel<S>
      <<<cuda::row_grid(y.rows, y.width), cuda::row_block(y.width), 0, context.stream()>>>(state, decay, bonus, k, v, y);
  COYOTE_CUDA_CHECK_LAUNCH("wkv_step");
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "coyote/operations/cuda/decoding.cuh"
#include "coyote/operations/cuda/norm.cuh"

namespace coyote::inline v0 {
namespace cuda {

/// The mixtures of a token shift: parameters, and where each goes.
template <class S, int Copies>
struct TokenShifts {
  NormRule<float> norm;
  const float* mix[Copies];
  Rows<float> before;
  Rows<const S> u;
  Rows<S> y;
  bool is_settled;  ///< parameters and `before` are
};

inline namespace COYOTE_CUDA_ARCHITECTURES {

inline constexpr int most_shift_threads = 1024;

/// A block has a row, a thread N neighbours of it. Everything but the row itself is read before it is there.
template <int N, class S, int Copies>
__global__ void __launch_bounds__(most_shift_threads) token_shifts_kernel(TokenShifts<S, Copies> p) {
  __shared__ float sums[2][32];
  const Index row = blockIdx.x;
  const auto width = static_cast<int>(p.u.width), column = static_cast<int>(threadIdx.x) * N;
  const bool inside = column < width;
  const auto none = make_pack<N>([](int) { return 0.0f; });
  const auto read = [&](const float* from) { return inside && from != nullptr ? load<N>(from + column) : none; };
  let_next_start();
  if (!p.is_settled) wait_for_previous();
  Pack<N> mix[Copies];
#pragma unroll
  for (int n = 0; n < Copies; ++n) mix[n] = read(p.mix[n]);
  const Pack<N> then = read(p.before.row(row)), scale = read(p.norm.scale.data), shift = read(p.norm.shift.data);
  if (p.is_settled) wait_for_previous();
  Pack<N> now = inside ? load<N>(p.u.row(row) + column) : none;
  const auto sum_over_row = [&](float(&of_warp)[32], float x) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2) x += __shfl_xor_sync(0xffffffffu, x, half);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
    for (unsigned w = 0; w < (blockDim.x + 31) / 32; ++w) sum += of_warp[w];
    return sum;
  };
  const auto own_sum = [&](auto&& term) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) sum += inside ? term(now[i]) : 0.0f;
    return sum;
  };
  const auto n = static_cast<float>(width);
  const float mean = p.norm.kind == NormKind::layer ? sum_over_row(sums[0], own_sum([](float x) { return x; })) / n : 0.0f;
  const float squares = sum_over_row(sums[1], own_sum([&](float x) { return (x - mean) * (x - mean); }));
  const float inverse = 1.0f / sqrtf(squares / n + p.norm.epsilon);
  if (!inside) return;
  // Rounded as if it had been in memory.
  now = make_pack<N>([&](int i) { return to_float(from_float<S>(fmaf((now[i] - mean) * inverse, scale[i], shift[i]))); });
#pragma unroll
  for (int copy = 0; copy < Copies; ++copy) {
    store<N>(p.y.row(row) + copy * width + column,
             make_pack<N>([&](int i) { return mix[copy][i] * now[i] + (1.0f - mix[copy][i]) * then[i]; }));
  }
  store<N>(p.before.row(row) + column, now);
}

}  // namespace COYOTE_CUDA_ARCHITECTURES
}  // namespace cuda

/// y[:, n] = mixes[n] * now + (1 - mixes[n]) * before per channel, for every n side by side, with now = norm(u); then before =
/// now. One pass for rows of up to 1024 packs. Floor: the bytes once.
template <class S, std::size_t Copies>
void token_shifts_step(Context<Cuda>& context, const Step& at, const NormRule<float>& norm,
                       const std::array<Rows<const float>, Copies>& mixes, Rows<float> before, Rows<const S> u, Rows<S> y) {
  if (u.empty()) return;
  cuda::TokenShifts<S, static_cast<int>(Copies)> p{norm, {}, before, u, y, context.is_settled(norm.scale.data, norm.shift.data)};
  bool packs = true;
  for (std::size_t n = 0; n < Copies; ++n) {
    p.mix[n] = mixes[n].data;
    p.is_settled = p.is_settled && context.is_settled(p.mix[n]);
    packs = packs && cuda::reads_packs<4>(mixes[n]);
  }
  const auto launch = [&](auto n) {
    const Index threads = round_up(ceil_div(u.width, Index{n()}), Index{32});
    cuda::launch_following(context, &cuda::token_shifts_kernel<n(), S, static_cast<int>(Copies)>, "launch of token_shifts",
                           dim3(static_cast<unsigned>(u.rows)), dim3(static_cast<unsigned>(threads)), 0, p);
  };
  packs = packs && u.width % 4 == 0 && cuda::reads_packs<4>(before) && cuda::reads_packs<4>(u) && cuda::reads_packs<4>(y) &&
          cuda::reads_packs<4>(norm.scale) && cuda::reads_packs<4>(norm.shift);
  if (packs && u.width <= 4 * cuda::most_shift_threads) return launch(std::integral_constant<int, 4>{});
  if (u.width <= cuda::most_shift_threads) return launch(std::integral_constant<int, 1>{});
  const auto frame = context.frame();
  const Rows<const S> now = cuda::normalised(context, norm, u);
  for (std::size_t n = 0; n < Copies; ++n) {
    token_shift_step<S>(context, mixes[n], before, now, y.columns(static_cast<Index>(n) * u.width, u.width));
  }
  store_rows<S>(context, at, now, before);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/norm.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// How a norm's threads cover a row: a team of 1 .. 32 neighbouring lanes, of which each keeps up to `packs` packs of N elements
/// in registers; 0: the row does not fit, and is read again for every sum.
struct RowTeam {
  int lanes = 32, packs = 0;

  friend constexpr bool operator==(RowTeam, RowTeam) = default;
  /// @param most  elements that a lane keeps at most
  static constexpr RowTeam of(Index width, int n, int most) {
    const Index packs = ceil_div(width, n);
    const auto lanes = static_cast<int>(std::min<Index>(32, static_cast<Index>(std::bit_ceil(static_cast<std::size_t>(packs)))));
    const Index each = static_cast<Index>(std::bit_ceil(static_cast<std::size_t>(ceil_div(packs, lanes))));
    return {lanes, each * n <= most ? static_cast<int>(each) : 0};
  }
};

/// The sum over a team's lanes, in all of them.
__device__ inline float team_sum(float x, int lanes) {
  for (int half = lanes / 2; half > 0; half /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, half);
  return x;
}

/// Calls f(p, column) for the packs of a lane that lie in a row.
template <int N, int Packs, class F>
__device__ void for_each_pack(int lane, int lanes, std::int32_t width, F&& f) {
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const std::int32_t column = (p * lanes + lane) * N;
    if (column < width) f(p, column);
  }
}

struct NormProblem {
  NormKind kind;
  float epsilon;
  int lanes;

  /// The mean and the reciprocal deviation from sums over a row.
  __device__ float inverse(float squares, float n) const { return 1.0f / sqrtf(squares / n + epsilon); }
};

/// Rows of the block that are of no use repeat the last one: all lanes of a warp take part in every shuffle.
template <int N, int Packs, class S>
__global__ void __launch_bounds__(row_threads) normalise_kernel(NormProblem problem, Rows<const S> x, Rows<const float> scale,
                                                                Rows<const float> shift, Rows<S> y, Rows<float> statistics) {
  const int lanes = problem.lanes, lane = static_cast<int>(threadIdx.x) % lanes;
  const std::int64_t wanted = static_cast<std::int64_t>(blockIdx.x) * (row_threads / lanes) + threadIdx.x / lanes;
  const std::int64_t row = wanted < x.rows ? wanted : x.rows - 1;
  const auto width = static_cast<std::int32_t>(x.width);
  const auto n = static_cast<float>(width);
  const bool centre = problem.kind == NormKind::layer;
  const S* from = x.row(row);
  S* to = y.row(row);
  float mean = 0, inverse = 0;
  const auto write = [&](std::int32_t column, const Pack<N>& values) {
    const Pack<N> s = load<N>(scale.data + column);
    Pack<N> result = make_pack<N>([&](int i) { return (values[i] - mean) * inverse * s[i]; });
    if (shift.rows > 0) {
      const Pack<N> t = load<N>(shift.data + column);
#pragma unroll
      for (int i = 0; i < N; ++i) result[i] += t[i];
    }
    if (wanted < x.rows) store<N>(to + column, result);
  };
  if constexpr (Packs > 0) {
    Pack<N> values[Packs];
    for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) { values[p] = load<N>(from + column); });
    if (centre) {
      float sum = 0;
      for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t) {
#pragma unroll
        for (int i = 0; i < N; ++i) sum += values[p][i];
      });
      mean = team_sum(sum, lanes) / n;
    }
    float squares = 0;
    for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t) {
#pragma unroll
      for (int i = 0; i < N; ++i) squares += (values[p][i] - mean) * (values[p][i] - mean);
    });
    inverse = problem.inverse(team_sum(squares, lanes), n);
    for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) { write(column, values[p]); });
  } else {
    if (centre) {
      float sum = 0;
      for (std::int32_t column = lane * N; column < width; column += lanes * N) {
        const Pack<N> values = load<N>(from + column);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += values[i];
      }
      mean = team_sum(sum, lanes) / n;
    }
    float squares = 0;
    for (std::int32_t column = lane * N; column < width; column += lanes * N) {
      const Pack<N> values = load<N>(from + column);
#pragma unroll
      for (int i = 0; i < N; ++i) squares += (values[i] - mean) * (values[i] - mean);
    }
    inverse = problem.inverse(team_sum(squares, lanes), n);
    for (std::int32_t column = lane * N; column < width; column += lanes * N) write(column, load<N>(from + column));
  }
  if (statistics.rows > 0 && lane == 0 && wanted < x.rows) {
    statistics(row, 0) = mean;
    statistics(row, 1) = inverse;
  }
}

/// dx, and where `partial` has rows also the sums for dscale and dshift: block b's rows into partial.row(b), dscale's in columns
/// 0 .. width - 1 and dshift's behind. Rows of one lane's team are every gridDim.x * teams-th.
template <int N, int Packs, class S>
__global__ void __launch_bounds__(row_threads)
    normalise_backward_kernel(NormProblem problem, Rows<const S> x, Rows<const float> scale, Rows<const float> statistics,
                              Rows<const S> dy, Rows<S> dx, Write write, Rows<float> partial) {
  const int lanes = problem.lanes, lane = static_cast<int>(threadIdx.x) % lanes, teams = row_threads / lanes;
  const auto width = static_cast<std::int32_t>(x.width);
  const auto n = static_cast<float>(width);
  const bool centre = problem.kind == NormKind::layer;
  Pack<N> dscale[Packs > 0 ? Packs : 1], dshift[Packs > 0 ? Packs : 1];
#pragma unroll
  for (int p = 0; p < Packs; ++p) dscale[p] = dshift[p] = make_pack<N>([](int) { return 0.0f; });

  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * teams;
  // As many turns for all teams of a block, so that all lanes take part in every shuffle.
  for (std::int64_t turn = static_cast<std::int64_t>(blockIdx.x) * teams; turn < x.rows; turn += step) {
    const std::int64_t wanted = turn + threadIdx.x / lanes;
    const bool real = wanted < x.rows;
    const std::int64_t row = real ? wanted : x.rows - 1;
    const S* from = x.row(row);
    const S* gradient = dy.row(row);
    const float mean = statistics(row, 0), inverse = statistics(row, 1);
    float sum_g = 0, sum_gn = 0;
    const auto finish = [&](std::int32_t column, const Pack<N>& g, const Pack<N>& normed) {
      Pack<N> result = make_pack<N>([&](int i) { return inverse * (g[i] - sum_g - normed[i] * sum_gn); });
      S* to = dx.row(row) + column;
      if (write == Write::add) {
        const Pack<N> before = load<N>(static_cast<const S*>(to));
#pragma unroll
        for (int i = 0; i < N; ++i) result[i] += before[i];
      }
      store<N>(to, result);
    };
    const auto read = [&](std::int32_t column, Pack<N>& g, Pack<N>& normed) {
      g = load<N>(gradient + column);
      normed = load<N>(from + column);
#pragma unroll
      for (int i = 0; i < N; ++i) normed[i] = (normed[i] - mean) * inverse;
    };
    const auto rescale = [&](std::int32_t column, Pack<N>& g, const Pack<N>& normed) {
      const Pack<N> s = load<N>(scale.data + column);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        g[i] *= s[i];
        sum_g += g[i];
        sum_gn += g[i] * normed[i];
      }
    };
    const auto average = [&] {
      sum_g = centre ? team_sum(sum_g, lanes) / n : 0.0f;
      sum_gn = team_sum(sum_gn, lanes) / n;
    };
    if constexpr (Packs > 0) {
      Pack<N> g[Packs], normed[Packs];
      for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) { read(column, g[p], normed[p]); });
      for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
        if (real) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            dscale[p][i] += g[p][i] * normed[p][i];
            dshift[p][i] += g[p][i];
          }
        }
        rescale(column, g[p], normed[p]);
      });
      average();
      if (real && write != Write::none) {
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) { finish(column, g[p], normed[p]); });
      }
    } else {
      Pack<N> g, normed;
      for (std::int32_t column = lane * N; column < width; column += lanes * N) {
        read(column, g, normed);
        rescale(column, g, normed);
      }
      average();
      if (!real || write == Write::none) continue;
      for (std::int32_t column = lane * N; column < width; column += lanes * N) {
        read(column, g, normed);
        const Pack<N> s = load<N>(scale.data + column);
#pragma unroll
        for (int i = 0; i < N; ++i) g[i] *= s[i];
        finish(column, g, normed);
      }
    }
  }
  if constexpr (Packs > 0) {
    if (partial.rows == 0) return;
    // First the teams of a warp, then the warps one after the other.
    extern __shared__ float sums[];
    const int warp = static_cast<int>(threadIdx.x) / 32, in_warp = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        for (int other = lanes; other < 32; other *= 2) {
          dscale[p][i] += __shfl_xor_sync(0xFFFFFFFFu, dscale[p][i], other);
          dshift[p][i] += __shfl_xor_sync(0xFFFFFFFFu, dshift[p][i], other);
        }
      }
    }
    for (int turn = 0; turn < row_threads / 32; ++turn) {
      if (warp == turn && in_warp < lanes) {
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const float before = turn == 0 ? 0.0f : sums[column + i], before_shift = turn == 0 ? 0.0f : sums[width + column + i];
            sums[column + i] = before + dscale[p][i];
            sums[width + column + i] = before_shift + dshift[p][i];
          }
        });
      }
      __syncthreads();
    }
    for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < 2 * width; c += row_threads) {
      partial(blockIdx.x, c) = sums[c];
    }
  }
}

/// dy * (x - mean) * inverse and dy, for rows that do not fit into a team's registers.
template <class S, bool Normed>
struct NormParameterGradient {
  Rows<const S> x, dy;
  Rows<const float> statistics;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> g = load<N>(dy.row(row) + column);
    if constexpr (!Normed) return g;
    const Pack<N> values = load<N>(x.row(row) + column);
    const float mean = statistics(row, 0), inverse = statistics(row, 1);
    return make_pack<N>([&](int i) { return g[i] * (values[i] - mean) * inverse; });
  }
};

/// Calls use(N, packs, team), the first two as constants, for the widest packs that all `views` allow.
template <class S, class Use, class... Views>
void with_row_team(Index width, Use&& use, Views... views) {
  with_packs<S>(
      width,
      [&](auto n) {
        const RowTeam team = RowTeam::of(width, n(), n() == 1 ? 8 : 32);
        const auto if_packs = [&](auto packs) {
          if (team.packs == packs()) use(n, packs, team);
        };
        if_packs(std::integral_constant<int, 0>{});
        if_packs(std::integral_constant<int, 1>{});
        if_packs(std::integral_constant<int, 2>{});
        if_packs(std::integral_constant<int, 4>{});
        if constexpr (n() <= 4) if_packs(std::integral_constant<int, 8>{});
      },
      views...);
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y = (x - mean) / sqrt(variance + epsilon) * scale + shift over each row's channels (layer), or
/// y = x / sqrt(mean of squares + epsilon) * scale (root_mean_square). A row stays in the registers of 1 to 32 lanes.
/// Floor: x and y once.
template <class S>
void normalise(Context<Cuda>& context, NormKind kind, float epsilon, Rows<const S> x, Rows<const float> scale,
               Rows<const float> shift, Rows<S> y, Rows<float> statistics) {
  if (x.empty()) return;
  cuda::with_row_team<S>(
      x.width,
      [&](auto n, auto packs, cuda::RowTeam team) {
        constexpr int N = n(), Packs = packs();
        const auto blocks = static_cast<unsigned>(ceil_div(x.rows, cuda::row_threads / team.lanes));
        cuda::normalise_kernel<N, Packs, S>
            <<<blocks, cuda::row_threads, 0, context.stream()>>>({kind, epsilon, team.lanes}, x, scale, shift, y, statistics);
        COYOTE_CUDA_CHECK_LAUNCH("normalise");
      },
      x, y, scale, shift);
}

/// Gradients of normalise: with n = (x - mean) * inverse and g = dy * scale,
/// dx = inverse * (g - [layer: mean(g)] - n * mean(g * n)); dscale += sum dy * n; dshift += sum dy. One pass over x and dy makes
/// dx and, block by block, the sums over rows. Floor: x, dy and dx once.
template <class S>
void normalise_backward(Context<Cuda>& context, NormKind kind, Rows<const S> x, Rows<const float> scale,
                        Rows<const float> statistics, Rows<const S> dy, Rows<S> dx, Write write, Rows<float> dscale,
                        Rows<float> dshift) {
  if (x.empty() || (write == Write::none && dscale.rows == 0)) return;
  cuda::with_row_team<S>(
      x.width,
      [&](auto n, auto packs, cuda::RowTeam team) {
        constexpr int N = n(), Packs = packs();
        const auto frame = context.frame();
        const bool sums = Packs > 0 && dscale.rows > 0;
        const Index wanted = ceil_div(x.rows, cuda::row_threads / team.lanes);
        const Index blocks = sums ? std::min(wanted, cuda::most_partial_rows) : wanted;
        const Rows<float> partial = sums ? context.make<float>(blocks, 2 * x.width) : Rows<float>();
        cuda::normalise_backward_kernel<N, Packs, S>
            <<<static_cast<unsigned>(blocks), cuda::row_threads, static_cast<std::size_t>(partial.width) * sizeof(float),
               context.stream()>>>({kind, 0.0f, team.lanes}, x, scale, statistics, dy, dx, write, partial);
        COYOTE_CUDA_CHECK_LAUNCH("normalise_backward");
        if (sums) {
          cuda::add_column_sums(context, partial, dscale, dshift);
        } else if (dscale.rows > 0) {
          cuda::sum_rows<S>(context, x.rows, cuda::NormParameterGradient<S, true>{x, dy, statistics}, dscale, x, dy);
          if (dshift.rows > 0) {
            cuda::sum_rows<S>(context, x.rows, cuda::NormParameterGradient<S, false>{x, dy, statistics}, dshift, x, dy);
          }
        }
      },
      x, dy, dx, scale);
}

}  // namespace coyote::inline v0

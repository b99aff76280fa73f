// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>

#include "coyote/operations/cuda/column_sums.cuh"
#include "coyote/operations/norm.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// How a norm's threads cover a row: a team of 1 .. 256 neighbouring threads, of which each keeps up to `packs` packs of N
/// elements in registers; 0: the row does not fit, and is read again for every sum.
struct RowTeam {
  int lanes = row_threads, packs = 0;

  friend constexpr bool operator==(RowTeam, RowTeam) = default;
  /// A thread keeps at most 16 elements, or 8 where they are not neighbours.
  static constexpr RowTeam of(Index width, int n) {
    const Index packs = ceil_div(width, n), most = n == 1 ? 8 : 16 / n;
    const auto power = [](Index x) { return static_cast<Index>(std::bit_ceil(static_cast<std::size_t>(x))); };
    const Index lanes = packs <= 32 ? power(packs) : std::clamp<Index>(power(ceil_div(packs, most)), 32, row_threads);
    const Index each = power(ceil_div(packs, lanes));
    return {static_cast<int>(lanes), each <= most ? static_cast<int>(each) : 0};
  }
};

/// Adds up Count numbers over the threads of a team, for all of them; all threads of the block take part. What one call leaves in
/// shared memory, the next but one overwrites.
template <int Count>
class TeamSums {
 public:
  __device__ TeamSums(float (*shared)[row_threads / 32], int lanes) : shared_(shared), lanes_(lanes) {}

  __device__ void operator()(float (&x)[Count]) {
    for (int half = (lanes_ < 32 ? lanes_ : 32) / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < Count; ++i) x[i] += __shfl_xor_sync(0xFFFFFFFFu, x[i], half);
    }
    if (lanes_ <= 32) return;
    float(*slots)[row_threads / 32] = shared_ + turn_ * Count;
    turn_ ^= 1;
    const int warp = static_cast<int>(threadIdx.x) / 32, first = static_cast<int>(threadIdx.x) / lanes_ * lanes_ / 32;
    if (threadIdx.x % 32 == 0) {
#pragma unroll
      for (int i = 0; i < Count; ++i) slots[i][warp] = x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < Count; ++i) {
      x[i] = slots[i][first];
      for (int w = 1; w < lanes_ / 32; ++w) x[i] += slots[i][first + w];
    }
  }

 private:
  float (*shared_)[row_threads / 32];
  int lanes_, turn_ = 0;
};

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
};

/// The rows that a team makes side by side, so that the loads of all are under way before the first sum.
COYOTE_HOST_DEVICE constexpr int rows_together(int n, int packs) { return packs == 0 ? 1 : packs * n <= 8 ? 4 : 2; }

/// Teams of a block whose rows are behind the end repeat the last one: all threads take part in every sum.
template <int N, int Packs, class S>
__global__ void __launch_bounds__(row_threads) normalise_kernel(NormProblem problem, Rows<const S> x, Rows<const float> scale,
                                                                Rows<const float> shift, Rows<S> y, Rows<float> statistics) {
  constexpr int together = rows_together(N, Packs);
  __shared__ float shared[2 * together][row_threads / 32];
  const int lanes = problem.lanes, lane = static_cast<int>(threadIdx.x) % lanes;
  TeamSums<together> sum_over(shared, lanes);
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * (row_threads / lanes) + threadIdx.x / lanes) * together;
  const auto row_at = [&](int r) { return first + r < x.rows ? first + r : x.rows - 1; };
  const auto width = static_cast<std::int32_t>(x.width);
  const auto n = static_cast<float>(width);
  float mean[together] = {}, inverse[together] = {};
  const auto average = [&] {
    if (problem.kind == NormKind::layer) {
      sum_over(mean);
#pragma unroll
      for (int r = 0; r < together; ++r) mean[r] /= n;
    }
  };
  const auto invert = [&] {
    sum_over(inverse);
#pragma unroll
    for (int r = 0; r < together; ++r) inverse[r] = 1.0f / sqrtf(inverse[r] / n + problem.epsilon);
  };
  const auto write = [&](int r, std::int32_t column, const Pack<N>& values, const Pack<N>& s, const Pack<N>& t) {
    if (first + r >= x.rows) return;
    store<N>(y.row(first + r) + column,
             make_pack<N>([&](int i) { return fmaf((values[i] - mean[r]) * inverse[r], s[i], t[i]); }));
  };
  const auto shift_at = [&](std::int32_t column) {
    return shift.rows > 0 ? load<N>(shift.data + column) : make_pack<N>([](int) { return 0.0f; });
  };
  if constexpr (Packs > 0) {
    RawPack<N, S> raw[together][Packs];
    Pack<N> s[Packs], t[Packs];
#pragma unroll
    for (int r = 0; r < together; ++r) {
      for_each_pack<N, Packs>(lane, lanes, width,
                              [&](int p, std::int32_t column) { raw[r][p] = load_raw<N>(x.row(row_at(r)) + column); });
    }
    for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
      s[p] = load<N>(scale.data + column);
      t[p] = shift_at(column);
    });
    const auto add_up = [&](auto& sums, auto&& term) {
#pragma unroll
      for (int r = 0; r < together; ++r) {
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t) {
          const Pack<N> values = raw[r][p].floats();
#pragma unroll
          for (int i = 0; i < N; ++i) sums[r] += term(r, values[i]);
        });
      }
    };
    if (problem.kind == NormKind::layer) add_up(mean, [](int, float value) { return value; });
    average();
    add_up(inverse, [&](int r, float value) { return (value - mean[r]) * (value - mean[r]); });
    invert();
#pragma unroll
    for (int r = 0; r < together; ++r) {
      for_each_pack<N, Packs>(lane, lanes, width,
                              [&](int p, std::int32_t column) { write(r, column, raw[r][p].floats(), s[p], t[p]); });
    }
  } else {
    const S* from = x.row(row_at(0));
    const auto add_up = [&](float& sum, auto&& term) {
      for (std::int32_t column = lane * N; column < width; column += lanes * N) {
        const Pack<N> values = load<N>(from + column);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += term(values[i]);
      }
    };
    if (problem.kind == NormKind::layer) add_up(mean[0], [](float value) { return value; });
    average();
    add_up(inverse[0], [&](float value) { return (value - mean[0]) * (value - mean[0]); });
    invert();
    for (std::int32_t column = lane * N; column < width; column += lanes * N) {
      write(0, column, load<N>(from + column), load<N>(scale.data + column), shift_at(column));
    }
  }
  if (statistics.rows == 0 || lane != 0) return;
#pragma unroll
  for (int r = 0; r < together; ++r) {
    if (first + r < x.rows) {
      statistics(first + r, 0) = mean[r];
      statistics(first + r, 1) = inverse[r];
    }
  }
}

/// dx, and where `partial` has rows also the sums for dscale and dshift: block b's rows into partial.row(b), dscale's in columns
/// 0 .. width - 1 and dshift's behind. A team's rows are every gridDim.x * teams-th; it reads the next one before it works on
/// one.
template <int N, int Packs, class S>
__global__ void __launch_bounds__(row_threads, Packs* N <= 8 ? 4 : 2)
    normalise_backward_kernel(NormProblem problem, Rows<const S> x, Rows<const float> scale, Rows<const float> statistics,
                              Rows<const S> dy, Rows<S> dx, Write write, Rows<float> partial) {
  __shared__ float shared[4][row_threads / 32];
  const int lanes = problem.lanes, lane = static_cast<int>(threadIdx.x) % lanes, teams = row_threads / lanes;
  TeamSums<2> sum_over(shared, lanes);
  const auto width = static_cast<std::int32_t>(x.width);
  const auto n = static_cast<float>(width);
  const bool centre = problem.kind == NormKind::layer;
  // Narrow rows leave their registers to more blocks instead.
  constexpr bool ahead = Packs * N > 8;
  constexpr int kept = Packs > 0 ? Packs : 1;
  Pack<N> dscale[kept], dshift[kept], s[kept];
  RawPack<N, S> values[kept], gradients[kept];
  float mean = 0, inverse = 0;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * teams;
  const auto read = [&](std::int64_t wanted) {
    const std::int64_t row = wanted < x.rows ? wanted : x.rows - 1;
    mean = statistics(row, 0);
    inverse = statistics(row, 1);
    if constexpr (Packs > 0) {
      for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
        values[p] = load_raw<N>(x.row(row) + column);
        gradients[p] = load_raw<N>(dy.row(row) + column);
      });
    }
  };
  for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
    s[p] = load<N>(scale.data + column);
    dscale[p] = dshift[p] = make_pack<N>([](int) { return 0.0f; });
  });
  std::int64_t wanted = static_cast<std::int64_t>(blockIdx.x) * teams + threadIdx.x / lanes;
  if (ahead) read(wanted);
  // As many turns for all teams of a block, so that all threads take part in every sum.
  for (std::int64_t turn = static_cast<std::int64_t>(blockIdx.x) * teams; turn < x.rows; turn += step, wanted += step) {
    const bool real = wanted < x.rows;
    if (!ahead) read(wanted);
    float sums[2] = {};  // of g and of g * normed
    const float mean_now = mean, inverse_now = inverse;
    const auto finish = [&](std::int32_t column, const Pack<N>& g, const Pack<N>& normed) {
      Pack<N> result = make_pack<N>([&](int i) { return inverse_now * (g[i] - sums[0] - normed[i] * sums[1]); });
      S* to = dx.row(wanted) + column;
      if (write == Write::add) {
        const Pack<N> before = load<N>(static_cast<const S*>(to));
#pragma unroll
        for (int i = 0; i < N; ++i) result[i] += before[i];
      }
      store<N>(to, result);
    };
    const auto average = [&] {
      sum_over(sums);
      sums[0] = centre ? sums[0] / n : 0.0f;
      sums[1] /= n;
    };
    if constexpr (Packs > 0) {
      Pack<N> g[Packs], normed[Packs];
      for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t) {
        g[p] = gradients[p].floats();
        normed[p] = values[p].floats();
#pragma unroll
        for (int i = 0; i < N; ++i) {
          normed[p][i] = (normed[p][i] - mean_now) * inverse_now;
          if (real) {
            dscale[p][i] = fmaf(g[p][i], normed[p][i], dscale[p][i]);
            dshift[p][i] += g[p][i];
          }
          g[p][i] *= s[p][i];
          sums[0] += g[p][i];
          sums[1] = fmaf(g[p][i], normed[p][i], sums[1]);
        }
      });
      if (ahead && turn + step < x.rows) read(wanted + step);
      average();
      if (real && write != Write::none) {
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) { finish(column, g[p], normed[p]); });
      }
    } else {
      const std::int64_t row = real ? wanted : x.rows - 1;
      const auto at = [&](std::int32_t column, Pack<N>& g, Pack<N>& normed) {
        const Pack<N> factor = load<N>(scale.data + column);
        g = load<N>(dy.row(row) + column);
        normed = load<N>(x.row(row) + column);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          normed[i] = (normed[i] - mean_now) * inverse_now;
          g[i] *= factor[i];
        }
      };
      Pack<N> g, normed;
      for (std::int32_t column = lane * N; column < width; column += lanes * N) {
        at(column, g, normed);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          sums[0] += g[i];
          sums[1] = fmaf(g[i], normed[i], sums[1]);
        }
      }
      average();
      for (std::int32_t column = lane * N; real && write != Write::none && column < width; column += lanes * N) {
        at(column, g, normed);
        finish(column, g, normed);
      }
    }
  }
  if constexpr (Packs > 0) {
    if (partial.rows == 0) return;
    // First the teams of a warp, then the warps, or wider teams, one after the other.
    extern __shared__ float totals[];
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
    const int group = lanes < 32 ? 32 : lanes, mine = static_cast<int>(threadIdx.x) / group;
    for (int turn = 0; turn < row_threads / group; ++turn) {
      if (mine == turn && static_cast<int>(threadIdx.x) % group < lanes) {
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            totals[column + i] = (turn == 0 ? 0.0f : totals[column + i]) + dscale[p][i];
            totals[width + column + i] = (turn == 0 ? 0.0f : totals[width + column + i]) + dshift[p][i];
          }
        });
      }
      __syncthreads();
    }
    for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < 2 * width; c += row_threads) {
      partial(blockIdx.x, c) = totals[c];
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
        const RowTeam team = RowTeam::of(width, n());
        const auto if_packs = [&](auto packs) {
          if (team.packs == packs()) use(n, packs, team);
        };
        if_packs(std::integral_constant<int, 0>{});
        if_packs(std::integral_constant<int, 1>{});
        if_packs(std::integral_constant<int, 2>{});
        if constexpr (n() <= 4) if_packs(std::integral_constant<int, 4>{});
        if constexpr (n() == 1) if_packs(std::integral_constant<int, 8>{});
      },
      views...);
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y = (x - mean) / sqrt(variance + epsilon) * scale + shift over each row's channels (layer), or
/// y = x / sqrt(mean of squares + epsilon) * scale (root_mean_square). A row stays in the registers of 1 to 256 threads.
/// Floor: x and y once.
template <class S>
void normalise(Context<Cuda>& context, NormKind kind, float epsilon, Rows<const S> x, Rows<const float> scale,
               Rows<const float> shift, Rows<S> y, Rows<float> statistics) {
  if (x.empty()) return;
  cuda::with_row_team<S>(
      x.width,
      [&](auto n, auto packs, cuda::RowTeam team) {
        constexpr int N = n(), Packs = packs();
        const auto blocks =
            static_cast<unsigned>(ceil_div(x.rows, cuda::row_threads / team.lanes * cuda::rows_together(N, Packs)));
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

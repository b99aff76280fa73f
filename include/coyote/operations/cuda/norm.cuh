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
  follow();
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

/// Gradients that a norm's backward pass reads and writes. dx (=|+=) the norm's gradient (+ skip, what else the input receives:
/// absent, or of dx's shape).
template <class S>
struct NormGradients {
  Rows<const S> dy, skip;
  Rows<S> dx;
  Write write;
  Rows<float> partial;  // [blocks, 2 * width]: each block's sums for dscale, and behind them for dshift; absent if not wanted
};

/// How many rows a team takes on at once going backward, and how many blocks a multiprocessor has room for then.
COYOTE_HOST_DEVICE constexpr int rows_together_backward(int n, int packs) {
  return packs == 0 || packs > 4 || packs * n > 8 ? 1 : 4;
}

/// A team's rows lie gridDim.x * teams * together apart. All teams of a block make as many turns, so that all threads take part
/// in every sum.
template <int N, int Packs, class S>
__global__ void __launch_bounds__(row_threads, 2)
    normalise_backward_kernel(NormProblem problem, Rows<const S> x, Rows<const float> scale, Rows<const float> statistics,
                              NormGradients<S> gradients) {
  follow();
  constexpr int together = rows_together_backward(N, Packs), kept = Packs > 0 ? Packs : 1;
  __shared__ float shared[4 * together][row_threads / 32];
  const int lanes = problem.lanes, lane = static_cast<int>(threadIdx.x) % lanes, teams = row_threads / lanes;
  TeamSums<2 * together> sum_over(shared, lanes);
  const auto width = static_cast<std::int32_t>(x.width);
  const auto n = static_cast<float>(width);
  const bool centre = problem.kind == NormKind::layer;
  Pack<N> dscale[kept], dshift[kept], s[kept];
  RawPack<N, S> values[together][kept], dy[together][kept];
  float mean[together], inverse[together];
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * teams * together;
  const auto row_at = [&](std::int64_t wanted) { return wanted < x.rows ? wanted : x.rows - 1; };
  const auto read = [&](std::int64_t first) {
#pragma unroll
    for (int r = 0; r < together; ++r) {
      const std::int64_t row = row_at(first + r);
      mean[r] = statistics(row, 0);
      inverse[r] = statistics(row, 1);
      if constexpr (Packs > 0) {
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
          values[r][p] = load_raw<N>(x.row(row) + column);
          dy[r][p] = load_raw<N>(gradients.dy.row(row) + column);
        });
      }
    }
  };
  for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
    s[p] = load<N>(scale.data + column);
    dscale[p] = dshift[p] = make_pack<N>([](int) { return 0.0f; });
  });
  std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * teams + threadIdx.x / lanes) * together;
  read(first);
  for (std::int64_t turn = static_cast<std::int64_t>(blockIdx.x) * teams * together; turn < x.rows; turn += step, first += step) {
    float sums[2 * together] = {};  // of each row's g, and of its g * normed
    const auto average = [&] {
      sum_over(sums);
#pragma unroll
      for (int r = 0; r < together; ++r) {
        sums[2 * r] = centre ? sums[2 * r] / n : 0.0f;
        sums[2 * r + 1] /= n;
      }
    };
    const auto finish = [&](int r, std::int32_t column, const Pack<N>& g, const Pack<N>& normed) {
      Pack<N> result = make_pack<N>([&](int i) { return inverse[r] * (g[i] - sums[2 * r] - normed[i] * sums[2 * r + 1]); });
      S* to = gradients.dx.row(first + r) + column;
      const auto include = [&](const S* more) {
        const Pack<N> values_there = load<N>(more);
#pragma unroll
        for (int i = 0; i < N; ++i) result[i] += values_there[i];
      };
      if (gradients.skip.rows > 0) include(gradients.skip.row(first + r) + column);
      if (gradients.write == Write::add) include(to);
      store<N>(to, result);
    };
    const auto writes = [&](int r) { return first + r < x.rows && gradients.write != Write::none; };
    const auto normed_of = [&](int r, const Pack<N>& value) {
      return make_pack<N>([&](int i) { return (value[i] - mean[r]) * inverse[r]; });
    };
    const auto scaled = [&](const Pack<N>& g, const Pack<N>& factor) {
      return make_pack<N>([&](int i) { return g[i] * factor[i]; });
    };
    if constexpr (Packs > 0) {
#pragma unroll
      for (int r = 0; r < together; ++r) {
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t) {
          const Pack<N> g = dy[r][p].floats(), normed = normed_of(r, values[r][p].floats()), gs = scaled(g, s[p]);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            if (first + r < x.rows) {
              dscale[p][i] = fmaf(g[i], normed[i], dscale[p][i]);
              dshift[p][i] += g[i];
            }
            sums[2 * r] += gs[i];
            sums[2 * r + 1] = fmaf(gs[i], normed[i], sums[2 * r + 1]);
          }
        });
      }
      average();
#pragma unroll
      for (int r = 0; r < together; ++r) {
        if (!writes(r)) continue;
        for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
          finish(r, column, scaled(dy[r][p].floats(), s[p]), normed_of(r, values[r][p].floats()));
        });
      }
    } else {
      const std::int64_t row = row_at(first);
      const auto for_all = [&](auto&& f) {
        for (std::int32_t column = lane * N; column < width; column += lanes * N) {
          f(column, scaled(load<N>(gradients.dy.row(row) + column), load<N>(scale.data + column)),
            normed_of(0, load<N>(x.row(row) + column)));
        }
      };
      for_all([&](std::int32_t, const Pack<N>& g, const Pack<N>& normed) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          sums[0] += g[i];
          sums[1] = fmaf(g[i], normed[i], sums[1]);
        }
      });
      average();
      if (writes(0)) {
        for_all([&](std::int32_t column, const Pack<N>& g, const Pack<N>& normed) { finish(0, column, g, normed); });
      }
    }
    if (turn + step < x.rows) read(first + step);
  }
  if constexpr (Packs > 0) {
    if (gradients.partial.rows == 0) return;
    // First the teams of a warp, then the warps, or wider teams, each of which has a line of shared memory.
    extern __shared__ float lines[];
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
    const int group = lanes < 32 ? 32 : lanes;
    float* line = lines + static_cast<int>(threadIdx.x) / group * 2 * width;
    if (static_cast<int>(threadIdx.x) % group < lanes) {
      for_each_pack<N, Packs>(lane, lanes, width, [&](int p, std::int32_t column) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          line[column + i] = dscale[p][i];
          line[width + column + i] = dshift[p][i];
        }
      });
    }
    __syncthreads();
    for (std::int32_t c = static_cast<std::int32_t>(threadIdx.x); c < 2 * width; c += row_threads) {
      float total = lines[c];
      for (int g = 1; g < row_threads / group; ++g) total += lines[g * 2 * width + c];
      gradients.partial(blockIdx.x, c) = total;
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
        cuda::launch_following(context, &cuda::normalise_kernel<N, Packs, S>, "launch of normalise", blocks, cuda::row_threads, 0,
                               cuda::NormProblem{kind, epsilon, team.lanes}, x, scale, shift, y, statistics);
      },
      x, y, scale, shift);
}

template <>
inline constexpr bool steps_normalise<Cuda, bf16> = true;

namespace cuda {

/// The rows of x normalised by a rule, in the current frame.
template <class S>
Rows<const S> normalised(Context<Cuda>& context, const NormRule<float>& norm, Rows<const S> x) {
  const Rows<S> y = context.make<S>(x.rows, x.width);
  normalise<S>(context, norm.kind, norm.epsilon, x, norm.scale, norm.shift, y, {});
  return y;
}

}  // namespace cuda

/// Gradients of normalise: with n = (x - mean) * inverse and g = dy * scale,
/// dx (=|+=) inverse * (g - [layer: mean(g)] - n * mean(g * n)) (+ skip, unless absent); dscale += sum dy * n; dshift += sum dy.
/// One pass over x and dy makes dx and, block by block, the sums over rows. Floor: x, dy and dx once.
template <class S>
void normalise_backward(Context<Cuda>& context, NormKind kind, Rows<const S> x, Rows<const float> scale,
                        Rows<const float> statistics, Rows<const S> dy, Rows<S> dx, Write write, Rows<float> dscale,
                        Rows<float> dshift, Rows<const S> skip = {}) {
  if (x.empty() || (write == Write::none && dscale.rows == 0)) return;
  cuda::with_row_team<S>(
      x.width,
      [&](auto n, auto packs, cuda::RowTeam team) {
        constexpr int N = n(), Packs = packs();
        const auto frame = context.frame();
        const bool sums = Packs > 0 && dscale.rows > 0;
        const int rows = cuda::row_threads / team.lanes * cuda::rows_together_backward(N, Packs);
        const Index wanted = ceil_div(x.rows, rows), resident = 2 * context.limits().multiprocessors;
        const Index blocks = sums ? std::min(wanted, resident) : wanted;
        const cuda::PartialSums partial = sums ? context.make_partial_sums(blocks, 2 * x.width) : cuda::PartialSums{};
        const Index lines = cuda::row_threads / std::max(team.lanes, 32);
        cuda::launch_following(context, &cuda::normalise_backward_kernel<N, Packs, S>, "launch of normalise_backward",
                               static_cast<unsigned>(blocks), cuda::row_threads,
                               static_cast<std::size_t>(lines * partial.rows.width) * sizeof(float),
                               cuda::NormProblem{kind, 0.0f, team.lanes}, x, scale, statistics,
                               cuda::NormGradients<S>{dy, skip, dx, write, partial.rows});
        if (sums) {
          cuda::add_column_sums(context, partial, dscale, dshift);
        } else if (dscale.rows > 0) {
          cuda::sum_rows<S>(context, x.rows, cuda::NormParameterGradient<S, true>{x, dy, statistics}, dscale, x, dy);
          if (dshift.rows > 0) {
            cuda::sum_rows<S>(context, x.rows, cuda::NormParameterGradient<S, false>{x, dy, statistics}, dshift, x, dy);
          }
        }
      },
      x, dy, dx, scale, skip);
}

/// A norm's two functions, to be compiled here or, with `extern`, elsewhere: see operations/cuda/compiled.
#define COYOTE_NORM(EXTERN, S)                                                                                              \
  EXTERN template void normalise<S>(Context<Cuda>&, NormKind, float, Rows<const S>, Rows<const float>, Rows<const float>,   \
                                    Rows<S>, Rows<float>);                                                                  \
  EXTERN template void normalise_backward<S>(Context<Cuda>&, NormKind, Rows<const S>, Rows<const float>, Rows<const float>, \
                                             Rows<const S>, Rows<S>, Write, Rows<float>, Rows<float>, Rows<const S>)
#ifdef COYOTE_CUDA_COMPILED
COYOTE_NORM(extern, float);
COYOTE_NORM(extern, bf16);
#endif

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "coyote/core/cuda/resident.cuh"
#include "coyote/operations/cuda/lags.cuh"
#include "coyote/operations/cuda/rowwise.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

// A few neighbours of a warp per row, side by side over its columns. With a handful of lags a row all of it is bytes: queries,
// keys, values and outputs once, the keys and values of other lags from the caches. Inner products go four at a time, so that
// four rows are on their way together.

/// The `Lanes` neighbours of a warp that share a row, N columns each of every N * Lanes.
template <int N_, int Lanes_>
struct RowGroup {
  static constexpr int N = N_, lanes = Lanes_, threads = 128;
  static_assert(lanes >= 4 && 32 % lanes == 0);

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % lanes; }
  __device__ static std::int64_t row() {
    return static_cast<std::int64_t>(blockIdx.x) * (threads / lanes) + static_cast<int>(threadIdx.x) / lanes;
  }
  static unsigned blocks(Index rows) { return static_cast<unsigned>(ceil_div(rows, threads / lanes)); }
  __device__ static unsigned mask() {
    return lanes == 32 ? 0xFFFFFFFFu : ((1u << lanes % 32) - 1) << threadIdx.x % 32 / lanes * lanes;
  }
  __device__ static void sync() { __syncwarp(mask()); }
  __device__ static float sum(float x) {
#pragma unroll
    for (int reach = lanes / 2; reach > 0; reach /= 2) x += __shfl_xor_sync(mask(), x, reach);
    return x;
  }
  /// Calls f(column) for the first columns of the lane's packs.
  template <class F>
  __device__ static void for_columns(Index width, F&& f) {
    for (int c = N * lane(); c < width; c += N * lanes) f(c);
  }
};

/// How many lags of a row there are, in every lane.
template <class Group>
__device__ int present_lags(const std::int32_t* lags, int count) {
  int present = 0;
  for (int base = 0; base < count; base += Group::lanes) {
    const int n = base + Group::lane();
    const int held = __popc(__ballot_sync(Group::mask(), n < count && lags[n] >= 0));
    present += held;
    if (held < Group::lanes) break;
  }
  return present;
}

/// products[t] = <x, rows[row - lags[t]]>; all lanes see them.
template <class Group, class S, class R>
__device__ void multiply_lagged(const S* x, Rows<const R> rows, Index row, const std::int32_t* lags, int present,
                                float* products) {
  constexpr int N = Group::N, together = 4;
  for (int t = 0; t < present; t += together) {
    const R* from[together];
    float sums[together] = {};
#pragma unroll
    for (int u = 0; u < together; ++u) from[u] = rows.row(row - lags[min(t + u, present - 1)]);
    Group::for_columns(rows.width, [&](int c) {
      const Pack<N> own = load<N>(x + c);
#pragma unroll
      for (int u = 0; u < together; ++u) {
        const Pack<N> other = load<N>(from[u] + c);
#pragma unroll
        for (int i = 0; i < N; ++i) sums[u] += own[i] * other[i];
      }
    });
#pragma unroll
    for (int u = 0; u < together; ++u) {
      const float sum = Group::sum(sums[u]);
      if (Group::lane() == u && t + u < present) products[t + u] = sum;
    }
  }
  Group::sync();
}

/// to = sum_t factors[t] rows[row - lags[t]]
template <class Group, class S, class R>
__device__ void add_lagged(const float* factors, Rows<const R> rows, Index row, const std::int32_t* lags, int present, S* to) {
  constexpr int N = Group::N;
  Group::for_columns(rows.width, [&](int c) {
    Pack<N> sum = make_pack<N>([](int) { return 0.0f; });
#pragma unroll 4
    for (int t = 0; t < present; ++t) {
      const float factor = factors[t];
      const Pack<N> other = load<N>(rows.row(row - lags[t]) + c);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += factor * other[i];
    }
    store<N>(to + c, sum);
  });
}

/// One row of the convolution, of which keys and values are row `row`.
template <class Group, bool Softmax, class S, class K>
__device__ void convolve_lagged(const S* q, Rows<const K> keys, Rows<const K> values, Index row, const std::int32_t* lags,
                                int count, float* weights, S* y) {
  const int present = present_lags<Group>(lags, count);
  multiply_lagged<Group>(q, keys, row, lags, present, weights);
  if constexpr (Softmax) {
    float highest = -INFINITY, sum = 0;
    for (int t = 0; t < present; ++t) highest = fmaxf(highest, weights[t]);
    Group::sync();
    for (int t = Group::lane(); t < present; t += Group::lanes) sum += weights[t] = expf(weights[t] - highest);
    sum = Group::sum(sum);
    for (int t = Group::lane(); t < present; t += Group::lanes) weights[t] /= sum;
    Group::sync();
  }
  add_lagged<Group>(weights, values, row, lags, present, y);
}

template <class Group, bool Softmax, class S>
__global__ void __launch_bounds__(Group::threads)
    convolve_lagged_rows(Rows<const std::int32_t> lags, Rows<const S> q, Rows<const S> k, Rows<const S> v, Rows<float> weights,
                         Rows<S> y) {
  const std::int64_t row = Group::row();
  if (row >= q.rows) return;
  convolve_lagged<Group, Softmax>(q.row(row), k, v, row, lags.row(row), static_cast<int>(lags.width), weights.row(row),
                                  y.row(row));
}

/// Gradients by scores and queries.
template <class Group, bool Softmax, class S>
__global__ void __launch_bounds__(Group::threads)
    convolve_lagged_queries(Rows<const std::int32_t> lags, Rows<const S> k, Rows<const S> v, Rows<const float> weights,
                            Rows<const S> dy, Rows<float> ds, Rows<S> dq) {
  const std::int64_t row = Group::row();
  if (row >= dy.rows) return;
  const int present = present_lags<Group>(lags.row(row), static_cast<int>(lags.width));
  multiply_lagged<Group>(dy.row(row), v, row, lags.row(row), present, ds.row(row));
  if constexpr (Softmax) {
    float mean = 0;
    for (int t = Group::lane(); t < present; t += Group::lanes) mean += weights(row, t) * ds(row, t);
    mean = Group::sum(mean);
    for (int t = Group::lane(); t < present; t += Group::lanes) ds(row, t) = weights(row, t) * (ds(row, t) - mean);
    Group::sync();
  }
  add_lagged<Group>(ds.row(row), k, row, lags.row(row), present, dq.row(row));
}

// Keys and values belong to the rows that use them. Pairs of a row and a lag, sorted by the row that they lead to, give every key
// its users in order; a group per key sums up, so that no sum depends on which block ran first.

/// The users of key j are order[begin[j]] .. order[end[j] - 1]: pair row * count + n is lag n of a row.
struct LagUsers {
  const std::int32_t *order, *begin, *end;
};

/// The row that each pair leads to; behind the last row where there is no lag.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    number_pairs(Rows<const std::int32_t> lags, std::uint32_t* leads_to, std::int32_t* pairs) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * Threads + threadIdx.x;
  if (pair >= lags.rows * lags.width) return;
  const std::int64_t row = pair / lags.width;
  const std::int32_t lag = lags(row, pair % lags.width);
  leads_to[pair] = static_cast<std::uint32_t>(lag < 0 ? lags.rows : row - lag);
  pairs[pair] = static_cast<std::int32_t>(pair);
}
/// Where each row's run begins and ends; 0 and 0 before, which stay where nobody leads to a row.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    find_runs(std::int64_t pairs, std::int64_t rows, const std::uint32_t* leads_to, std::int32_t* begin, std::int32_t* end) {
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * Threads + threadIdx.x;
  if (n >= pairs || leads_to[n] >= rows) return;
  const std::uint32_t row = leads_to[n];
  if (n == 0 || leads_to[n - 1] != row) begin[row] = static_cast<std::int32_t>(n);
  if (n + 1 == pairs || leads_to[n + 1] != row) end[row] = static_cast<std::int32_t>(n + 1);
}

template <class Group, class S>
__global__ void __launch_bounds__(Group::threads)
    convolve_lagged_keys(LagUsers users, int count, Rows<const float> weights, Rows<const float> ds, Rows<const S> q,
                         Rows<const S> dy, Rows<S> dk, Rows<S> dv) {
  constexpr int N = Group::N;
  const std::int64_t row = Group::row();
  if (row >= dk.rows) return;
  const std::int32_t first = users.begin[row], last = users.end[row];
  Group::for_columns(dk.width, [&](int c) {
    Pack<N> key = make_pack<N>([](int) { return 0.0f; }), value = key;
#pragma unroll 4
    for (std::int32_t n = first; n < last; ++n) {
      const std::int32_t pair = users.order[n], user = pair / count, t = pair % count;
      const float slope = ds(user, t), weight = weights(user, t);
      const Pack<N> query = load<N>(q.row(user) + c), gradient = load<N>(dy.row(user) + c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        key[i] += slope * query[i];
        value[i] += weight * gradient[i];
      }
    }
    store<N>(dk.row(row) + c, key);
    store<N>(dv.row(row) + c, value);
  });
}

/// Its arrays live in the caller's frame. Cost: a stable radix sort of rows * count pairs.
template <int Threads = 256>
LagUsers sort_lag_users(Context<Cuda>& context, Rows<const std::int32_t> lags) {
  const Index rows = lags.rows, pairs = rows * lags.width;
  const Rows<std::int32_t> runs = context.make<std::int32_t>(2, rows), numbers = context.make<std::int32_t>(2, pairs);
  const Rows<std::uint32_t> leads_to = context.make<std::uint32_t>(2, pairs);
  const auto blocks = static_cast<unsigned>(ceil_div(pairs, Threads));
  COYOTE_CUDA_CHECK(cudaMemsetAsync(runs.data, 0, static_cast<std::size_t>(2 * rows) * sizeof(std::int32_t), context.stream()));
  number_pairs<Threads><<<blocks, Threads, 0, context.stream()>>>(lags, leads_to.row(0), numbers.row(0));
  COYOTE_CUDA_CHECK_LAUNCH("number_pairs");
  const int bits = std::bit_width(static_cast<std::size_t>(rows));
  const auto sort = [&](void* scratch, std::size_t& bytes) {
    COYOTE_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch, bytes, leads_to.row(0), leads_to.row(1), numbers.row(0),
                                                      numbers.row(1), static_cast<int>(pairs), 0, bits, context.stream()));
  };
  std::size_t bytes = 0;
  sort(nullptr, bytes);
  sort(context.make<std::byte>(1, static_cast<Index>(bytes)).data, bytes);
  find_runs<Threads><<<blocks, Threads, 0, context.stream()>>>(pairs, rows, leads_to.row(1), runs.row(0), runs.row(1));
  COYOTE_CUDA_CHECK_LAUNCH("find_runs");
  return {numbers.row(1), runs.row(0), runs.row(1)};
}

/// A block per sequence enters its row into the state; its first warp convolves it.
template <class Group, bool Softmax, class L, class S>
__global__ void __launch_bounds__(128)
    convolve_lagged_step(const std::int32_t* position_now, Index capacity, Rows<const S> q, Rows<const S> k, Rows<const S> v,
                         const Token* new_tokens, Rows<float> keys, Rows<float> values, Rows<Token> tokens,
                         Rows<std::int32_t> index, Rows<std::int32_t> lags, Rows<float> weights, Rows<S> y) {
  const Index sequence = blockIdx.x, position = *position_now, row = sequence * capacity + position;
  for (Index c = threadIdx.x; c < k.width; c += 128) {
    keys(row, c) = to_float(k(sequence, c));
    values(row, c) = to_float(v(sequence, c));
  }
  if (threadIdx.x == 0) {
    if constexpr (L::uses_tokens) tokens(sequence, position) = new_tokens[sequence];
    L::append(Entries<std::int32_t>(index.row(sequence), index.width), Entries<const Token>(tokens.row(sequence), tokens.width),
              position, Entries<std::int32_t>(lags.row(sequence), L::count));
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  convolve_lagged<Group, Softmax>(q.row(sequence), Rows<const float>(keys), Rows<const float>(values), row, lags.row(sequence),
                                  static_cast<int>(L::count), weights.row(sequence), y.row(sequence));
}

/// Calls use(group, a RowGroup) with packs if all views have them and as many lanes as a row has work for.
template <class S, class Use, class... Views>
void with_row_groups(Index width, Use&& use, Views... views) {
  with_packs<S>(
      width,
      [&](auto packs) {
        constexpr int N = packs();
        if (width <= 8 * N) return use(RowGroup<N, 8>{});
        if (width <= 16 * N) return use(RowGroup<N, 16>{});
        use(RowGroup<N, 32>{});
      },
      views...);
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// See the Reference implementation. Weights are float. Floor: the bytes of q, k, v and y.
template <class S, bool Softmax>
void input_convolution(Context<Cuda>& context, const Batch&, Rows<const std::int32_t> lags, Rows<const S> q, Rows<const S> k,
                       Rows<const S> v, Rows<float> weights, Rows<S> y) {
  if (q.empty()) return;
  cuda::with_row_groups<S>(
      q.width,
      [&]<class Group>(Group) {
        cuda::convolve_lagged_rows<Group, Softmax, S>
            <<<Group::blocks(q.rows), Group::threads, 0, context.stream()>>>(lags, q, k, v, weights, y);
        COYOTE_CUDA_CHECK_LAUNCH("convolve_lagged_rows");
      },
      q, k, v, y);
}

/// See the Reference implementation. Deterministic: the users of a key are found by a stable sort. Floor: the bytes of q, k, v,
/// dy and of the three gradients, beside the sort of rows * count pairs.
template <class S, bool Softmax>
void input_convolution_backward(Context<Cuda>& context, const Batch&, Rows<const std::int32_t> lags, Rows<const S> q,
                                Rows<const S> k, Rows<const S> v, Rows<const float> weights, Rows<const S> dy, Rows<float> ds,
                                Rows<S> dq, Rows<S> dk, Rows<S> dv) {
  if (q.empty()) return;
  const auto frame = context.frame();
  const cuda::LagUsers users = cuda::sort_lag_users<>(context, lags);
  cuda::with_row_groups<S>(
      q.width,
      [&]<class Group>(Group) {
        cuda::convolve_lagged_queries<Group, Softmax, S>
            <<<Group::blocks(q.rows), Group::threads, 0, context.stream()>>>(lags, k, v, weights, dy, ds, dq);
        COYOTE_CUDA_CHECK_LAUNCH("convolve_lagged_queries");
        cuda::convolve_lagged_keys<Group, S><<<Group::blocks(q.rows), Group::threads, 0, context.stream()>>>(
            users, static_cast<int>(lags.width), weights, ds, q, dy, dk, dv);
        COYOTE_CUDA_CHECK_LAUNCH("convolve_lagged_keys");
      },
      q, k, v, dy, dq, dk, dv);
}

/// One decoding step; see the host's. The state and the position stand on the device.
template <class S, bool Softmax, LagSource L>
void input_convolution_decode(Context<Cuda>& context, const Step& at, Rows<const S> q, Rows<const S> k, Rows<const S> v,
                              Rows<float> keys, Rows<float> values, Rows<Token> tokens, Rows<std::int32_t> index, Rows<S> y) {
  if (q.empty()) return;
  const auto frame = context.frame();
  const ResidentStep<Cuda> resident(context, at);
  const DeviceStep& now = *static_cast<const Step&>(resident).device;
  const Rows<std::int32_t> lags = context.make<std::int32_t>(q.rows, L::count);
  const Rows<float> weights = context.make<float>(q.rows, L::count);
  cuda::with_packs<S>(
      q.width,
      [&](auto packs) {
        using Group = cuda::RowGroup<packs(), 32>;
        cuda::convolve_lagged_step<Group, Softmax, L, S><<<static_cast<unsigned>(q.rows), 128, 0, context.stream()>>>(
            now.position, keys.rows / q.rows, q, k, v, now.tokens, keys, values, tokens, index, lags, weights, y);
        COYOTE_CUDA_CHECK_LAUNCH("convolve_lagged_step");
      },
      q, k, v, y);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/attention_problem.cuh"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

// The general path: one warp per row and head goes through the row's keys one after another, lanes side by side over the
// head's columns. It serves every pattern, scalar, head size, stride and alignment. Gradients of keys are summed by a warp
// per key, from the rows that use it, so that every sum has a fixed order.
//
// Cost per pair of row and key: 2 (forward), 4 (backward by q), 4 (by k and v) multiply-adds per column, and five shuffles
// per inner product. Floor: that arithmetic on the float units for long rows; for a few keys per row the bytes of q, k, v, y.

inline constexpr int walk_warps = 4;

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
  return x;
}

/// The columns base + lane, base + lane + 32, ... of a row, PerLane of them.
template <int PerLane>
struct LaneRow {
  float x[PerLane];

  __device__ void clear() {
#pragma unroll
    for (int m = 0; m < PerLane; ++m) x[m] = 0;
  }
  template <class S>
  __device__ void read(const S* row, int base, int width) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < PerLane; ++m) {
      const int c = base + lane + 32 * m;
      x[m] = c < width ? to_float(row[c]) : 0.0f;
    }
  }
  template <class S>
  __device__ void write(S* row, int base, int width) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < PerLane; ++m) {
      const int c = base + lane + 32 * m;
      if (c < width) row[c] = from_float<S>(x[m]);
    }
  }
  template <class S>
  __device__ void add(float factor, const S* row, int base, int width) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < PerLane; ++m) {
      const int c = base + lane + 32 * m;
      if (c < width) x[m] += factor * to_float(row[c]);
    }
  }
  __device__ void multiply(float factor) {
#pragma unroll
    for (int m = 0; m < PerLane; ++m) x[m] *= factor;
  }
};

/// A row of a head for inner products: in registers when they hold it whole, else read again each time.
template <class S, int PerLane>
struct HeldRow {
  LaneRow<PerLane> part;
  const S* row;
  int width;

  __device__ HeldRow(const S* row_, int width_) : row(row_), width(width_) { part.read(row, 0, width); }
  /// The inner product, in every lane.
  template <class T>
  __device__ float dot(const T* other) const {
    const int lane = threadIdx.x % 32;
    float sum = 0;
#pragma unroll
    for (int m = 0; m < PerLane; ++m) {
      const int c = lane + 32 * m;
      if (c < width) sum += part.x[m] * to_float(other[c]);
    }
    for (int c = lane + 32 * PerLane; c < width; c += 32) sum += to_float(row[c]) * to_float(other[c]);
    return warp_sum(sum);
  }
};

/// Which row (or key) and head a warp has.
struct WalkTask {
  std::int64_t row, begin;
  std::int32_t position, size, head;
  bool exists;

  __device__ WalkTask(const Sequences& sequences, std::int32_t heads) {
    const std::int64_t task = static_cast<std::int64_t>(blockIdx.x) * walk_warps + threadIdx.x / 32;
    row = task / heads;
    head = static_cast<std::int32_t>(task % heads);
    exists = row < sequences.rows;
    if (!exists) return;
    position = sequences.position(row);
    begin = row - position;
    size = sequences.size(sequence_of(sequences, row));
  }
};

/// Stands for every interval pattern: kernels read the first keys that build_index found.
struct Intervals {};
template <class Pattern>
using KeysOf = std::conditional_t<IntervalPattern<Pattern>, Intervals, Pattern>;

/// Calls f(j) for the keys of a row.
template <class Pattern, class S, class F>
__device__ void for_each_key(const AttentionProblem<S>& p, const WalkTask& task, F&& f) {
  if constexpr (std::is_same_v<Pattern, Intervals>) {
    for (std::int32_t j = p.index.first == nullptr ? 0 : p.index.first[task.row]; j <= task.position; ++j) f(j);
  } else {
    Pattern::for_each_key(index_of<Pattern>(p.index, p.sequences, task.begin, task.size), task.size, task.position,
                          [&](Index j) { f(static_cast<std::int32_t>(j)); });
  }
}
/// Calls f(i) for the rows that use a key.
template <class Pattern, class S, class F>
__device__ void for_each_user(const AttentionProblem<S>& p, const WalkTask& task, F&& f) {
  if constexpr (std::is_same_v<Pattern, Intervals>) {
    for (std::int32_t i = task.position; i < task.size; ++i) {
      if (p.index.first == nullptr || p.index.first[task.begin + i] <= task.position) f(i);
    }
  } else {
    Pattern::for_each_user(Entries<const std::int32_t>(p.index.next + task.begin, task.size), task.size, task.position,
                           [&](Index i) { f(static_cast<std::int32_t>(i)); });
  }
}

template <class Pattern, class S, int PerLane>
__global__ void __launch_bounds__(32 * walk_warps) walk_forward(AttentionProblem<S> p, Rows<S> y, Rows<float> log_sum_exp) {
  const WalkTask task(p.sequences, p.heads);
  if (!task.exists) return;
  const int at = task.head * p.width;
  const HeldRow<S, PerLane> q(p.q.row(task.row) + at, p.width);
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  for (int base = 0; base < p.width; base += 32 * PerLane) {
    float most = -INFINITY, total = 0;
    LaneRow<PerLane> out;
    out.clear();
    for_each_key<Pattern>(p, task, [&](std::int32_t j) {
      const std::int64_t key = task.begin + j;
      const float score = p.scale * q.dot(p.k.row(key) + at);
      const float highest = score > most ? score : most, shift = highest == -INFINITY ? 0.0f : highest;
      const float shrink = expf(most - shift), w = expf(score - shift);
      most = highest;
      total = total * shrink + w;
      out.multiply(shrink);
      const float kept =
          p.dropout.active() ? p.dropout.factor(step, p.rule_row(task.row, task.head), static_cast<std::uint64_t>(key)) : 1.0f;
      out.add(w * kept, p.v.row(key) + at, base, p.width);
    });
    out.multiply(total == 0 ? 0.0f : 1 / total);
    out.write(y.row(task.row) + at, base, p.width);
    if (log_sum_exp.rows > 0 && base == 0 && threadIdx.x % 32 == 0) {
      log_sum_exp(task.row, task.head) = total == 0 ? -INFINITY : most + logf(total);
    }
  }
}

/// What backward is given besides the problem; delta [rows, heads] is the inner product of y and dy.
template <class S>
struct AttentionErrors {
  Rows<const S> y, dy;
  Rows<const float> log_sum_exp;
  Rows<float> delta;
};

/// dq_i = scale * sum_j p_ij (kept_ij <dy_i, v_j> - delta_i) k_j, and delta.
template <class Pattern, class S, int PerLane>
__global__ void __launch_bounds__(32 * walk_warps) walk_queries(AttentionProblem<S> p, AttentionErrors<S> e, Rows<S> dq) {
  const WalkTask task(p.sequences, p.heads);
  if (!task.exists) return;
  const int at = task.head * p.width;
  const HeldRow<S, PerLane> q(p.q.row(task.row) + at, p.width), dy(e.dy.row(task.row) + at, p.width);
  const float delta = dy.dot(e.y.row(task.row) + at), log = e.log_sum_exp(task.row, task.head);
  if (threadIdx.x % 32 == 0) e.delta(task.row, task.head) = delta;
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  for (int base = 0; base < p.width; base += 32 * PerLane) {
    LaneRow<PerLane> sum;
    sum.clear();
    for_each_key<Pattern>(p, task, [&](std::int32_t j) {
      const std::int64_t key = task.begin + j;
      const float weight = expf(not_positive(p.scale * q.dot(p.k.row(key) + at) - log));
      const float kept =
          p.dropout.active() ? p.dropout.factor(step, p.rule_row(task.row, task.head), static_cast<std::uint64_t>(key)) : 1.0f;
      sum.add(weight * (kept * dy.dot(p.v.row(key) + at) - delta), p.k.row(key) + at, base, p.width);
    });
    sum.multiply(p.scale);
    sum.write(dq.row(task.row) + at, base, p.width);
  }
}

/// dk_j = scale * sum_i p_ij (kept_ij <dy_i, v_j> - delta_i) q_i and dv_j = sum_i p_ij kept_ij dy_i.
template <class Pattern, class S, int PerLane>
__global__ void __launch_bounds__(32 * walk_warps)
    walk_keys(AttentionProblem<S> p, AttentionErrors<S> e, Rows<S> dk, Rows<S> dv) {
  const WalkTask task(p.sequences, p.heads);
  if (!task.exists) return;
  const int at = task.head * p.width;
  const HeldRow<S, PerLane> k(p.k.row(task.row) + at, p.width), v(p.v.row(task.row) + at, p.width);
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  for (int base = 0; base < p.width; base += 32 * PerLane) {
    LaneRow<PerLane> dkey, dvalue;
    dkey.clear();
    dvalue.clear();
    for_each_user<Pattern>(p, task, [&](std::int32_t i) {
      const std::int64_t row = task.begin + i;
      const S *q = p.q.row(row) + at, *dy = e.dy.row(row) + at;
      const float weight = expf(not_positive(p.scale * k.dot(q) - e.log_sum_exp(row, task.head)));
      const float kept =
          p.dropout.active() ? p.dropout.factor(step, p.rule_row(row, task.head), static_cast<std::uint64_t>(task.row)) : 1.0f;
      dkey.add(weight * (kept * v.dot(dy) - e.delta(row, task.head)), q, base, p.width);
      dvalue.add(weight * kept, dy, base, p.width);
    });
    dkey.multiply(p.scale);
    dkey.write(dk.row(task.row) + at, base, p.width);
    dvalue.write(dv.row(task.row) + at, base, p.width);
  }
}

/// The same for walked patterns that cannot be walked from the key's side: a block owns some neighbouring keys of a head,
/// lets every later row name its keys, and sums for those it owns. Cost: each row's walk length / keys times over.
inline constexpr int search_warps = 8, search_keys = 32;
template <class Pattern, class S, int PerLane>
__global__ void __launch_bounds__(32 * search_warps)
    search_users(AttentionProblem<S> p, AttentionErrors<S> e, int keys, Rows<S> dk, Rows<S> dv) {
  extern __shared__ float sums[];  // [2][keys][width]
  __shared__ std::uint32_t used[32 * search_warps];
  const std::int32_t s = blockIdx.y, size = p.sequences.size(s), head = blockIdx.z, first = blockIdx.x * keys;
  if (first >= size) return;
  const std::int64_t begin = p.sequences.begin(s);
  const int at = head * p.width, warp = threadIdx.x / 32, lane = threadIdx.x % 32, owned = min(keys, size - first);
  for (int n = threadIdx.x; n < 2 * keys * p.width; n += 32 * search_warps) sums[n] = 0;
  const auto index = index_of<Pattern>(p.index, p.sequences, begin, size);
  const std::uint64_t step = p.dropout.active() ? p.dropout.current_step() : 0;
  std::uint32_t own = 0;  // key n belongs to warp n % search_warps
  for (int n = warp; n < owned; n += search_warps) own |= 1u << n;
  for (std::int32_t chunk = first; chunk < size; chunk += 32 * search_warps) {
    __syncthreads();
    std::uint32_t mask = 0;
    const std::int32_t mine = chunk + static_cast<std::int32_t>(threadIdx.x);
    if (mine < size) {
      Pattern::for_each_key(index, size, mine, [&](Index j) {
        if (j >= first && j < first + owned) mask |= 1u << (j - first);
      });
    }
    used[threadIdx.x] = mask;
    __syncthreads();
    for (int group = 0; group < search_warps; ++group) {
      const std::uint32_t hits = used[32 * group + lane] & own;
      for (std::uint32_t rows = __ballot_sync(0xffffffffu, hits != 0); rows != 0; rows &= rows - 1) {
        const int source = __ffs(static_cast<int>(rows)) - 1;
        const std::int64_t row = begin + chunk + 32 * group + source;
        const S *q = p.q.row(row) + at, *dy = e.dy.row(row) + at;
        for (std::uint32_t left = __shfl_sync(0xffffffffu, hits, source); left != 0; left &= left - 1) {
          const int n = __ffs(static_cast<int>(left)) - 1;
          const std::int64_t key = begin + first + n;
          const HeldRow<S, PerLane> k(p.k.row(key) + at, p.width), v(p.v.row(key) + at, p.width);
          const float weight = expf(not_positive(p.scale * k.dot(q) - e.log_sum_exp(row, head)));
          const float kept =
              p.dropout.active() ? p.dropout.factor(step, p.rule_row(row, head), static_cast<std::uint64_t>(key)) : 1.0f;
          const float slope = weight * (kept * v.dot(dy) - e.delta(row, head));
          float *const dkey = sums + n * p.width, *const dvalue = dkey + keys * p.width;
          for (int c = lane; c < p.width; c += 32) {
            dkey[c] += slope * to_float(q[c]);
            dvalue[c] += weight * kept * to_float(dy[c]);
          }
        }
      }
    }
  }
  for (int n = warp; n < owned; n += search_warps) {
    for (int c = lane; c < p.width; c += 32) {
      dk(begin + first + n, at + c) = from_float<S>(p.scale * sums[n * p.width + c]);
      dv(begin + first + n, at + c) = from_float<S>(sums[(keys + n) * p.width + c]);
    }
  }
}

/// Calls f(std::integral_constant<int, n>) with the number of columns per lane that hold a head; wider heads go in passes.
template <class F>
void with_columns(int width, F&& f) {
  if (width <= 32) return f(std::integral_constant<int, 1>{});
  if (width <= 64) return f(std::integral_constant<int, 2>{});
  if (width <= 128) return f(std::integral_constant<int, 4>{});
  f(std::integral_constant<int, 8>{});
}

template <class Pattern, class S>
void launch_walk(cudaStream_t stream, const AttentionProblem<S>& p, Rows<S> y, Rows<float> log_sum_exp) {
  const auto blocks = static_cast<unsigned>(ceil_div(p.sequences.rows * p.heads, walk_warps));
  with_columns(p.width, [&](auto columns) {
    walk_forward<Pattern, S, decltype(columns)::value><<<blocks, 32 * walk_warps, 0, stream>>>(p, y, log_sum_exp);
  });
  COYOTE_CUDA_CHECK_LAUNCH("walk_forward");
}

template <class Pattern, class S>
void launch_walk_backward(cudaStream_t stream, const AttentionProblem<S>& p, const AttentionErrors<S>& e, Rows<S> dq, Rows<S> dk,
                          Rows<S> dv) {
  const auto blocks = static_cast<unsigned>(ceil_div(p.sequences.rows * p.heads, walk_warps));
  with_columns(p.width, [&](auto columns) {
    constexpr int per_lane = decltype(columns)::value;
    walk_queries<Pattern, S, per_lane><<<blocks, 32 * walk_warps, 0, stream>>>(p, e, dq);
    COYOTE_CUDA_CHECK_LAUNCH("walk_queries");
    if constexpr (std::is_same_v<Pattern, Intervals> || LinkedPattern<Pattern>) {
      walk_keys<Pattern, S, per_lane><<<blocks, 32 * walk_warps, 0, stream>>>(p, e, dk, dv);
      COYOTE_CUDA_CHECK_LAUNCH("walk_keys");
    } else {
      // Sums in 48 KB of shared memory, which need no permission.
      constexpr int budget = 46 * 1024 / (2 * sizeof(float));
      const int keys = p.width >= budget ? 1 : p.width * search_keys <= budget ? search_keys : budget / p.width;
      const dim3 grid(static_cast<unsigned>(ceil_div(p.sequences.length, keys)), static_cast<unsigned>(p.sequences.sequences),
                      static_cast<unsigned>(p.heads));
      const std::size_t bytes = 2 * sizeof(float) * static_cast<std::size_t>(keys * p.width);
      search_users<Pattern, S, per_lane><<<grid, 32 * search_warps, bytes, stream>>>(p, e, keys, dk, dv);
      COYOTE_CUDA_CHECK_LAUNCH("search_users");
    }
  });
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/rowwise.cuh"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// table[i][c] = (cos, sin) of the angle (first + i) * base^(-2c / head_dim), worked out in double: angles reach the length.
template <int Unused = 0>
__global__ void rotary_table_kernel(double base, std::int64_t first, const std::int32_t* device_first, bool backwards,
                                    std::int32_t head_dim, Rows<float2> table) {
  const Index element = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (element >= table.rows * table.width) return;
  const Index i = element / table.width, c = element % table.width;
  const std::int64_t begin = device_first != nullptr ? *device_first : first;
  const double angle = static_cast<double>(begin + i) * pow(base, -2.0 * static_cast<double>(c) / static_cast<double>(head_dim));
  double sine, cosine;
  sincos(angle, &sine, &cosine);
  table(i, c) = {static_cast<float>(cosine), static_cast<float>(backwards ? -sine : sine)};
}

/// One pair of neighbouring channels per thread.
template <class S>
__global__ void __launch_bounds__(row_threads)
    rotate_kernel(Sequences sequences, std::int32_t head_dim, Rows<const float2> table, Rows<S> x) {
  const std::int32_t pairs = head_dim / 2, pair = static_cast<std::int32_t>(blockIdx.y * blockDim.x + threadIdx.x);
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= x.rows || pair >= x.width / head_dim * pairs) return;
  const std::int32_t head = pair / pairs, c = pair % pairs;
  S* at = x.row(row) + head * head_dim + 2 * c;
  const float2 turn = table(sequences.position(row), c);
  const float a = to_float(at[0]), b = to_float(at[1]);
  at[0] = from_float<S>(a * turn.x - b * turn.y);
  at[1] = from_float<S>(a * turn.y + b * turn.x);
}

/// The same for a pack at a time, where no pack belongs to two heads.
template <class S>
struct Rotate {
  Sequences sequences;
  std::int32_t head_dim;
  Rows<const float2> table;
  Rows<const S> x;

  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    Pack<N> values = load<N>(x.row(row) + column);
    const float2* turns = table.row(sequences.position(row)) + column % head_dim / 2;
#pragma unroll
    for (int i = 0; i + 1 < N; i += 2) {
      const float a = values[i], b = values[i + 1];
      values[i] = a * turns[i / 2].x - b * turns[i / 2].y;
      values[i + 1] = a * turns[i / 2].y + b * turns[i / 2].x;
    }
    return values;
  }
};

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// Rotates the heads of every row of x in place, row i of a sequence by its position first + i; backwards: by the opposite
/// angle. `device_first`, if given, is read on the device in place of `first`.
template <class S>
void rotate(Context<Cuda>& context, const Batch& batch, Index heads, Index base, Index first, bool backwards, Rows<S> x,
            const std::int32_t* device_first = nullptr) {
  const Index head_dim = x.width / heads, pairs = head_dim / 2;
  if (pairs == 0 || x.empty()) return;
  const auto frame = context.frame();
  const Rows<float2> table = context.make<float2>(batch.length, pairs);
  const auto head = static_cast<std::int32_t>(head_dim);
  cuda::rotary_table_kernel<><<<static_cast<unsigned>(ceil_div(batch.length * pairs, 256)), 256, 0, context.stream()>>>(
      static_cast<double>(base), first, device_first, backwards, head, table);
  COYOTE_CUDA_CHECK_LAUNCH("rotary_table");
  const cuda::Sequences sequences = cuda::sequences_of(batch);
  if (head_dim % cuda::pack_size<S> == 0 && cuda::reads_packs<cuda::pack_size<S>>(x)) {
    cuda::map_rows(context, cuda::Rotate<S>{sequences, head, table, x}, Write::overwrite, x);
  } else {
    const Index all = heads * pairs;
    cuda::rotate_kernel<S><<<cuda::row_grid(x.rows, all), cuda::row_block(all), 0, context.stream()>>>(sequences, head, table, x);
    COYOTE_CUDA_CHECK_LAUNCH("rotate");
  }
}

/// Rotates a decoding step's row of every sequence.
template <class S>
void rotate_step(Context<Cuda>& context, const Step& at, Index heads, Index base, Rows<S> x) {
  rotate<S>(context, Batch{.sequences = x.rows, .length = 1}, heads, base, at.position, false, x,
            at.device == nullptr ? nullptr : at.device->position);
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/cuda/context.cuh"
#include "coyote/core/cuda/storage.cuh"
#include "coyote/operations/cuda/following.cuh"
#include "coyote/operations/cuda/pack.cuh"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

// Operations whose rows do not depend on each other. Each is one function object that gives N neighbours of a row,
//
//     template <int N> __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const;
//
// which map_rows writes where they belong: one pass over memory, in accesses of 16 bytes wherever the views allow them. Their
// floor is the bytes of their operands over the rate of a copy.

namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

inline constexpr int row_threads = 256;

/// How a block's threads cover rows: x packs side by side, y rows.
inline dim3 row_block(Index packs) {
  const auto x = static_cast<unsigned>(std::clamp<Index>(packs, 1, row_threads));
  return {x, row_threads / x};
}

/// A grid of row_block's blocks over rows (x) and packs (y), for kernels with a thread for every pack.
inline dim3 row_grid(Index rows, Index packs) {
  const dim3 block = row_block(packs);
  return {static_cast<unsigned>(ceil_div(rows, block.y)), static_cast<unsigned>(ceil_div(packs, block.x))};
}

/// y (=|+=) f. Every thread makes its packs of several rows before it writes the first: that many loads are under way.
template <int N, class S, class F>
__global__ void __launch_bounds__(row_threads) map_rows_kernel(Rows<S> y, F f, bool add) {
  follow();
  constexpr int together = N >= 8 ? 2 : 4;
  const auto column = static_cast<std::int32_t>((blockIdx.x * blockDim.x + threadIdx.x) * N);
  const auto rows = static_cast<std::int32_t>(y.rows);
  if (column >= y.width) return;
  const auto step = static_cast<std::int32_t>(gridDim.y * blockDim.y);
  for (std::int64_t first = blockIdx.y * blockDim.y + threadIdx.y; first < rows; first += std::int64_t{together} * step) {
    Pack<N> made[together];
#pragma unroll
    for (int u = 0; u < together; ++u) {
      const std::int64_t row = first + std::int64_t{u} * step;
      if (row < rows) made[u] = f.template operator()<N>(static_cast<std::int32_t>(row), column);
    }
#pragma unroll
    for (int u = 0; u < together; ++u) {
      const std::int64_t row = first + std::int64_t{u} * step;
      if (row >= rows) break;
      S* to = y.row(row) + column;
      if (add) {
        const Pack<N> before = load<N>(static_cast<const S*>(to));
#pragma unroll
        for (int i = 0; i < N; ++i) made[u][i] += before[i];
      }
      store<N>(to, made[u]);
    }
  }
}

template <int N, class S, class F>
void launch_map_rows(Context<Cuda>& context, const F& f, Write write, Rows<S> y) {
  const Index packs = y.width / N;
  const dim3 block = row_block(packs);
  // Sixteen blocks for each that fits: enough for an even end, few enough that starting them costs nothing.
  const Index columns = ceil_div(packs, block.x), most = std::max<Index>(1, 128 * context.limits().multiprocessors / columns);
  const dim3 grid(static_cast<unsigned>(columns),
                  static_cast<unsigned>(std::min({ceil_div(y.rows, block.y), most, Index{65535}})));
  launch_following(context, &map_rows_kernel<N, S, F>, "launch of map_rows", grid, block, 0, y, f, write == Write::add);
}

/// Calls use(N), a constant, for packs of `Bytes` bytes of type S, if `width` columns of all `views` can be read and written in
/// them, or else for single elements.
template <class S, int Bytes, class Use, class... Views>
void with_packs_of(Index width, Use&& use, Views... views) {
  constexpr int N = Bytes / static_cast<int>(sizeof(S));
  if (width % N == 0 && (reads_packs<N>(views) && ...)) {
    use(std::integral_constant<int, N>{});
  } else {
    use(std::integral_constant<int, 1>{});
  }
}
template <class S, class Use, class... Views>
void with_packs(Index width, Use&& use, Views... views) {
  with_packs_of<S, 16>(width, use, views...);
}

/// y (=|+=) f, which reads rows of `views`.
template <class S, class F, class... Views>
void map_rows(Context<Cuda>& context, const F& f, Write write, Rows<S> y, Views... views) {
  if (write == Write::none || y.empty()) return;
  with_packs<S>(
      y.width, [&](auto packs) { launch_map_rows<packs()>(context, f, write, y); }, y, views...);
}

/// One number everywhere.
struct Constant {
  float value;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t, std::int32_t) const {
    return make_pack<N>([&](int) { return value; });
  }
};
/// The rows of a view as they are.
template <class S>
struct SameRow {
  Rows<const S> x;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    return load<N>(x.row(row) + column);
  }
};

/// f of the elements of one place in each of some views.
template <class F, class... S>
struct Elements;
template <class F, class A>
struct Elements<F, A> {
  F f;
  Rows<const A> a;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> x = load<N>(a.row(row) + column);
    return make_pack<N>([&](int i) { return f(x[i]); });
  }
};
template <class F, class A, class B>
struct Elements<F, A, B> {
  F f;
  Rows<const A> a;
  Rows<const B> b;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const Pack<N> x = load<N>(a.row(row) + column), y = load<N>(b.row(row) + column);
    return make_pack<N>([&](int i) { return f(x[i], y[i]); });
  }
};

/// y (=|+=) f(x, ...), elementwise. What lies contiguous is one line of packs, whatever its width.
template <class S, class F, class... X>
void map_elements(Context<Cuda>& context, F f, Write write, Rows<S> y, Rows<const X>... x) {
  constexpr Index N = pack_size<S>;
  const Index size = y.rows * y.width;
  const auto contiguous = [](auto view) { return view.rows == 1 || view.stride == view.width; };
  if (size % N == 0 && size / N < (Index{1} << 31) && contiguous(y) && (contiguous(x) && ...)) {
    const auto line = [&]<class T>(Rows<T> view) { return Rows<T>(view.data, size / N, N); };
    map_rows(context, Elements<F, X...>{f, line(x)...}, write, line(y), line(x)...);
  } else {
    map_rows(context, Elements<F, X...>{f, x...}, write, y, x...);
  }
}

struct Same {
  __device__ float operator()(float x) const { return x; }
};
struct Plus {
  float number;
  __device__ float operator()(float x) const { return x + number; }
};
struct Product {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Total {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Complement {
  __device__ float operator()(float x) const { return 1.0f - x; }
};
}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y = x
template <class S>
void copy(Context<Cuda>& context, Rows<const S> x, Rows<S> y) {
  cuda::map_elements(context, cuda::Same{}, Write::overwrite, y, x);
}

/// y = 0
template <class S>
void clear(Context<Cuda>& context, Rows<S> y) {
  if (y.empty()) return;
  const auto size = sizeof(S);  // all bits zero is 0
  COYOTE_CUDA_CHECK(cudaMemset2DAsync(y.data, static_cast<std::size_t>(y.stride) * size, 0,
                                      static_cast<std::size_t>(y.width) * size, static_cast<std::size_t>(y.rows),
                                      context.stream()));
}

/// y = value
template <class S>
void set_all(Context<Cuda>& context, S value, Rows<S> y) {
  cuda::map_rows(context, cuda::Constant{cuda::to_float(value)}, Write::overwrite, y);
}

/// y (=|+=) x
template <class S>
void assign(Context<Cuda>& context, Rows<const S> x, Rows<S> y, Write write) {
  cuda::map_elements(context, cuda::Same{}, write, y, x);
}

/// y += a + b
template <class S>
void accumulate(Context<Cuda>& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  cuda::map_elements(context, cuda::Total{}, Write::add, y, a, b);
}

/// y += number, elementwise
template <class S>
void add_number(Context<Cuda>& context, parameter_t<S> number, Rows<S> y) {
  cuda::map_elements(context, cuda::Plus{number}, Write::overwrite, y, Rows<const S>(y));
}

/// y (=|+=) a * b, elementwise
template <class S>
void multiply(Context<Cuda>& context, Rows<const S> a, Rows<const S> b, Rows<S> y, Write write) {
  cuda::map_elements(context, cuda::Product{}, write, y, a, b);
}

/// y = a + b
template <class S>
void add(Context<Cuda>& context, Rows<const S> a, Rows<const S> b, Rows<S> y) {
  cuda::map_elements(context, cuda::Total{}, Write::overwrite, y, a, b);
}

/// y = 1 - x
template <class S>
void complement(Context<Cuda>& context, Rows<const S> x, Rows<S> y) {
  cuda::map_elements(context, cuda::Complement{}, Write::overwrite, y, x);
}

}  // namespace coyote::inline v0

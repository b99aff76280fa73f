// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/filters.cuh"
#include "coyote/operations/cuda/linear.cuh"
#include "coyote/operations/implicit.hpp"

namespace coyote::inline v0 {
namespace cuda::inline COYOTE_CUDA_ARCHITECTURES {

template <class P>
struct Windowed {
  Rows<const P> coarse, fine, x;
  template <int N>
  __device__ Pack<N> operator()(std::int32_t row, std::int32_t column) const {
    const auto block = static_cast<std::int32_t>(fine.rows);
    const Pack<N> slow = load<N>(coarse.row(row / block) + column), fast = load<N>(fine.row(row % block) + column);
    const Pack<N> values = load<N>(x.row(row) + column);
    return make_pack<N>([&](int i) { return values[i] * (slow[i] * fast[i]); });
  }
};

template <class P, class Activation>
struct NetActivation {
  Rows<const P> frequency, before;
  Rows<P> after;
  __device__ void operator()(Index t, Index k) const {
    P x = before(t, k);
    if constexpr (Activation::has_frequency) x *= frequency(0, k);
    after(t, k) = Activation::value(x);
  }
};
template <class P, class Activation>
struct NetActivationGradient {
  Rows<const P> frequency, before;
  Rows<P> dafter, dbefore;
  __device__ void operator()(Index t, Index k) const {
    if constexpr (Activation::has_frequency) {
      const P f = frequency(0, k), d = dafter(t, k) * Activation::slope(f * before(t, k));
      dbefore(t, k) = d * f;
      dafter(t, k) = d * before(t, k);
    } else {
      dbefore(t, k) = dafter(t, k) * Activation::slope(before(t, k));
    }
  }
};

// Nets with one small hidden layer, whose whole work is less than the launch of a kernel: one kernel forward, and one backward
// that leaves partial sums. A block goes through groups of eight rows, and backward through all columns of the output, 128 at a
// time. Hidden values lie in shared memory, units filled up with zeros to 16 or 32.

inline constexpr int small_net_rows = 8, small_net_columns = 128, small_net_threads = 256;

struct SmallNet {
  Rows<const float> frequency, features;
  NetMap<float> hidden, output;
};

template <class Activation, int Units>
__global__ void __launch_bounds__(small_net_threads)
    small_net_kernel(SmallNet net, Rows<float> before, Rows<float> after, Rows<float> out) {
  __shared__ __align__(16) float hidden[small_net_rows][Units];
  const auto units = static_cast<int>(before.width);
  const Index column = Index{blockIdx.y} * small_net_columns + threadIdx.x % small_net_columns;
  float weight[Units], bias = 0;
  if (column < out.width) {
#pragma unroll
    for (int k = 0; k < Units; ++k) weight[k] = k < units ? net.output.weight(k, column) : 0.0f;
    if (net.output.bias.rows > 0) bias = net.output.bias(0, column);
  }
  for (Index first = Index{blockIdx.x} * small_net_rows; first < out.rows; first += Index{gridDim.x} * small_net_rows) {
    for (int n = threadIdx.x; n < small_net_rows * Units; n += small_net_threads) {
      const int k = n % Units;
      const Index t = first + n / Units;
      float value = 0;
      if (t < out.rows && k < units) {
        float sum = net.hidden.bias(0, k);
        for (Index e = 0; e < net.features.width; ++e) sum = fmaf(net.features(t, e), net.hidden.weight(e, k), sum);
        if constexpr (Activation::has_frequency) {
          value = Activation::value(net.frequency(0, k) * sum);
        } else {
          value = Activation::value(sum);
        }
        if (blockIdx.y == 0) {
          before(t, k) = sum;
          after(t, k) = value;
        }
      }
      hidden[n / Units][k] = value;
    }
    __syncthreads();
#pragma unroll
    for (int r = threadIdx.x / small_net_columns; r < small_net_rows; r += small_net_threads / small_net_columns) {
      float sum = bias;
#pragma unroll
      for (int k = 0; k < Units; k += 4) {
        const float4 unit = *reinterpret_cast<const float4*>(&hidden[r][k]);
        sum = fmaf(unit.x, weight[k], fmaf(unit.y, weight[k + 1], fmaf(unit.z, weight[k + 2], fmaf(unit.w, weight[k + 3], sum))));
      }
      if (first + r < out.rows && column < out.width) out(first + r, column) = sum;
    }
    __syncthreads();
  }
}

/// Where a block leaves its sums for the gradients, one after the other in a row of `partial`: the output's weights and bias, the
/// hidden layer's weights and bias, and the frequencies. From its second group of rows on it adds to them.
struct SmallNetSums {
  float* to;
  bool adds;
  __device__ void operator()(Index place, float value) const { to[place] = adds ? to[place] + value : value; }
};

template <class Activation, int Units>
__global__ void __launch_bounds__(small_net_threads)
    small_net_backward_kernel(SmallNet net, Rows<const float> before, Rows<const float> after, Rows<const float> dout,
                              Rows<float> dfeatures, Rows<float> partial) {
  constexpr int rows = small_net_rows, columns = small_net_columns, threads = small_net_threads, halves = threads / columns;
  constexpr int pairs = rows * Units, shares = threads / pairs, padded = columns + 4, mine = Units / halves;
  static_assert(shares >= 1);
  __shared__ __align__(16) float hidden[rows][Units], errors[rows][padded], weights[Units][padded];
  __shared__ float dhidden[shares][rows][Units], dfrequency[rows][Units];
  follow();
  const auto units = static_cast<int>(before.width), features = static_cast<int>(net.features.width);
  const int thread = threadIdx.x, column = thread % columns, half = thread / columns;
  const int share = thread / pairs, row = thread % pairs / Units, unit = thread % Units;
  const Index width = dout.width, inner = (units + net.output.dbias.rows) * width;

  for (Index first = Index{blockIdx.x} * rows; first < dout.rows; first += Index{gridDim.x} * rows) {
    const SmallNetSums sums{partial.row(blockIdx.x), first >= Index{gridDim.x} * rows};
    const bool exists = first + row < dout.rows && unit < units;
    if (share == 0) hidden[row][unit] = exists ? after(first + row, unit) : 0.0f;
    float dafter = 0;
    for (Index start = 0; start < width; start += columns) {
      const Index c = start + column;
      float next_errors[rows / halves], next_weights[mine];
#pragma unroll
      for (int i = 0; i < rows / halves; ++i) {
        const Index t = first + halves * i + half;
        next_errors[i] = t < dout.rows && c < width ? dout(t, c) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < mine; ++i) {
        const int k = halves * i + half;
        next_weights[i] = k < units && c < width ? net.output.weight(k, c) : 0.0f;
      }
      __syncthreads();  // nobody reads the columns before any more
#pragma unroll
      for (int i = 0; i < rows / halves; ++i) errors[halves * i + half][column] = next_errors[i];
#pragma unroll
      for (int i = 0; i < mine; ++i) weights[halves * i + half][column] = next_weights[i];
      __syncthreads();
      float dweight[mine] = {}, dbias = 0;
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        const float error = errors[r][column];
        dbias += error;
#pragma unroll
        for (int i = 0; i < mine; ++i) dweight[i] = fmaf(hidden[r][half * mine + i], error, dweight[i]);
      }
      if (c < width) {
#pragma unroll
        for (int i = 0; i < mine; ++i) {
          if (half * mine + i < units) sums((half * mine + i) * width + c, dweight[i]);
        }
        if (half == 0 && net.output.dbias.rows > 0) sums(units * width + c, dbias);
      }
#pragma unroll 8
      for (int k = 4 * share; k < columns; k += 4 * shares) {
        const float4 error = *reinterpret_cast<const float4*>(&errors[row][k]);
        const float4 weight = *reinterpret_cast<const float4*>(&weights[unit][k]);
        dafter = fmaf(error.x, weight.x, fmaf(error.y, weight.y, fmaf(error.z, weight.z, fmaf(error.w, weight.w, dafter))));
      }
    }
    dhidden[share][row][unit] = dafter;
    __syncthreads();
    if (share == 0) {
      for (int other = 1; other < shares; ++other) dafter += dhidden[other][row][unit];
      float dbefore = 0, dphase = 0;
      if (exists) {
        const float sum = before(first + row, unit);
        if constexpr (Activation::has_frequency) {
          const float frequency = net.frequency(0, unit), slope = dafter * Activation::slope(frequency * sum);
          dbefore = slope * frequency;
          dphase = slope * sum;
        } else {
          dbefore = dafter * Activation::slope(sum);
        }
      }
      dhidden[0][row][unit] = dbefore;
      dfrequency[row][unit] = dphase;
    }
    __syncthreads();
    // The bias is one more feature, which is 1. Behind it stand the frequencies.
    for (int n = thread; n < (features + 1 + Activation::has_frequency) * units; n += threads) {
      const int e = n / units, k = n % units;
      float sum = 0;
      for (int r = 0; r < rows && first + r < dout.rows; ++r) {
        if (e > features) {
          sum += dfrequency[r][k];
        } else {
          sum = fmaf(e < features ? net.features(first + r, e) : 1.0f, dhidden[0][r][k], sum);
        }
      }
      sums(inner + n, sum);
    }
    for (int n = thread; dfeatures.rows > 0 && n < rows * features; n += threads) {
      const Index t = first + n / features;
      const int e = n % features;
      if (t >= dout.rows) break;
      float sum = 0;
      for (int k = 0; k < units; ++k) sum = fmaf(dhidden[0][n / features][k], net.hidden.weight(e, k), sum);
      dfeatures(t, e) += sum;
    }
    __syncthreads();
  }
}

/// The views of a net with one small hidden layer, and use(net, Units), if it is one; says whether it is.
template <class MapAt, class Use>
bool with_small_net(const Net<float, MapAt>& net, Rows<const float> features, Use&& use) {
  if (net.layers != 1 || net.width > 32) return false;
  const SmallNet small{net.frequency, features, net.map(0), net.map(1)};
  if (net.width <= 16) {
    use(small, std::integral_constant<int, 16>{});
  } else {
    use(small, std::integral_constant<int, 32>{});
  }
  return true;
}

}  // namespace cuda::inline COYOTE_CUDA_ARCHITECTURES

/// y[t] = x[t] * coarse[t / n] * fine[t % n], per channel, n = fine.rows. y may be x.
template <class P>
void apply_window(Context<Cuda>& context, Rows<const P> coarse, Rows<const P> fine, Rows<const P> x, Rows<P> y) {
  cuda::map_rows(context, cuda::Windowed<P>{coarse, fine, x}, Write::overwrite, y, coarse, fine, x);
}

/// after = Activation::value(x) with x = before, or frequency * before where the activation has frequencies. The activation's
/// functions are COYOTE_HOST_DEVICE.
template <class P, class Activation>
void activate_net(Context<Cuda>& context, Rows<const P> frequency, Rows<const P> before, Rows<P> after) {
  cuda::for_elements(context, before.rows, before.width, cuda::NetActivation<P, Activation>{frequency, before, after});
}
/// dbefore from dafter, which is used up; dfrequency += its gradient.
template <class P, class Activation>
void activate_net_backward(Context<Cuda>& context, Rows<const P> frequency, Rows<const P> before, Rows<P> dafter, Rows<P> dbefore,
                           Rows<P> dfrequency) {
  cuda::for_elements(context, before.rows, before.width,
                     cuda::NetActivationGradient<P, Activation>{frequency, before, dafter, dbefore});
  if (Activation::has_frequency) cuda::sum_rows<P>(context, dafter.rows, cuda::SameRow<P>{dafter}, dfrequency, dafter);
}

/// out = the net at every row of `features`; see operations/implicit.hpp. One kernel for a hidden layer of up to 32 units.
template <class P, class Activation, class MapAt>
void implicit_net(Context<Cuda>& context, const Net<P, MapAt>& net, Rows<const P> features, Rows<P> before, Rows<P> after,
                  Rows<P> out) {
  if (out.empty()) return;
  const bool done = cuda::with_small_net(net, features, [&](const cuda::SmallNet& small, auto units) {
    // As many blocks as run at once: each reads its columns' weights once.
    const Index columns = ceil_div(out.width, Index{cuda::small_net_columns}),
                groups = ceil_div(out.rows, Index{cuda::small_net_rows});
    const Index most = std::max<Index>(1, 8 * context.limits().multiprocessors / columns);
    const dim3 grid(static_cast<unsigned>(std::min(groups, most)), static_cast<unsigned>(columns));
    cuda::small_net_kernel<Activation, units()>
        <<<grid, cuda::small_net_threads, 0, context.stream()>>>(small, before, after, out);
    COYOTE_CUDA_CHECK_LAUNCH("small_net");
  });
  if (!done) coyote::detail::net_by_layers<P, Activation>(context, net, features, before, after, out);
}
/// Adds to the gradients of the net's parameters, and to dfeatures unless that is absent. Two kernels for a hidden layer of up to
/// 32 units and as many rows as one wave of blocks has.
template <class P, class Activation, class MapAt>
void implicit_net_backward(Context<Cuda>& context, const Net<P, MapAt>& net, Rows<const P> features, Rows<const P> before,
                           Rows<const P> after, Rows<const P> dout, Rows<P> dfeatures) {
  if (dout.empty()) return;
  const bool done = cuda::with_small_net(net, features, [&](const cuda::SmallNet& small, auto units) {
    const auto frame = context.frame();
    const auto &in = small.hidden, &to = small.output;
    const Index blocks = std::min<Index>(ceil_div(dout.rows, Index{cuda::small_net_rows}), context.limits().multiprocessors);
    const auto size = [](auto... view) { return (... + (view.rows * view.width)); };
    const cuda::PartialSums partial =
        context.make_partial_sums(blocks, size(to.dweight, to.dbias, in.dweight, in.dbias, net.dfrequency));
    cuda::small_net_backward_kernel<Activation, units()>
        <<<static_cast<unsigned>(blocks), cuda::small_net_threads, 0, context.stream()>>>(small, before, after, dout, dfeatures,
                                                                                          partial.rows);
    COYOTE_CUDA_CHECK_LAUNCH("small_net_backward");
    cuda::add_column_sums(context, partial, to.dweight, to.dbias, in.dweight, in.dbias, net.dfrequency);
  });
  if (!done) coyote::detail::net_by_layers_backward<P, Activation>(context, net, features, before, after, dout, dfeatures);
}

}  // namespace coyote::inline v0

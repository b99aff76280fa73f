// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coyote/core/cuda/bf16.cuh"
#include "coyote/core/cuda/check.cuh"
#include "coyote/core/rows.hpp"

namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES {

/// How many activations of type S fill an access of 16 bytes, the widest that a thread has.
template <class S>
inline constexpr int pack_size = 16 / static_cast<int>(sizeof(S));

/// N neighbours of a row, in float.
template <int N>
struct Pack {
  float values[N];
  __device__ float& operator[](int i) { return values[i]; }
  __device__ float operator[](int i) const { return values[i]; }
};

/// Every element from f(0), f(1), ...
template <int N, class F>
__device__ Pack<N> make_pack(F&& f) {
  Pack<N> result;
#pragma unroll
  for (int i = 0; i < N; ++i) result[i] = f(i);
  return result;
}

namespace detail {
template <int Bytes>
struct Word;
template <>
struct Word<2> {
  using type = std::uint16_t;
};
template <>
struct Word<4> {
  using type = std::uint32_t;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};
}  // namespace detail

/// How many bytes load<N> and store<N> of S read at once: `from` must be a multiple of it.
template <int N, class S>
inline constexpr int access_bytes = N* static_cast<int>(sizeof(S)) < 16 ? N* static_cast<int>(sizeof(S)) : 16;

/// N neighbours as they lie in memory: half the registers of a Pack where activations have 16 bits.
template <int N, class S>
struct RawPack {
  using Word = typename detail::Word<access_bytes<N, S>>::type;
  static constexpr int words = N * static_cast<int>(sizeof(S)) / static_cast<int>(sizeof(Word));
  union {
    Word word[words];
    S element[N];
  };

  __device__ Pack<N> floats() const {
    return make_pack<N>([&](int i) { return to_float(element[i]); });
  }
  /// One of them, from its word.
  __device__ float at(int i) const {
    if constexpr (std::is_same_v<S, bf16> && std::is_same_v<Word, std::uint32_t>) {
      return __uint_as_float(i % 2 == 0 ? word[i / 2] << 16 : word[i / 2] & 0xffff0000u);
    } else {
      return to_float(element[i]);
    }
  }
};

/// Reads N = 1, 2, 4, 8, ... neighbours in accesses of at most 16 bytes.
template <int N, class S>
__device__ RawPack<N, S> load_raw(const S* from) {
  RawPack<N, S> raw;
#pragma unroll
  for (int w = 0; w < raw.words; ++w) raw.word[w] = reinterpret_cast<const typename RawPack<N, S>::Word*>(from)[w];
  return raw;
}
template <int N, class S>
__device__ Pack<N> load(const S* from) {
  return load_raw<N>(from).floats();
}

template <int N, class S>
__device__ void store(S* to, const Pack<N>& pack) {
  RawPack<N, S> raw;
#pragma unroll
  for (int i = 0; i < N; ++i) raw.element[i] = from_float<S>(pack[i]);
#pragma unroll
  for (int w = 0; w < raw.words; ++w) reinterpret_cast<typename RawPack<N, S>::Word*>(to)[w] = raw.word[w];
}

/// to += pack, where no other thread of the kernel adds: a reduction in memory, for which nobody waits.
template <int N>
__device__ void add_alone(float* to, const Pack<N>& pack) {
  int done = 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (; done < N; done += 4) {
      atomicAdd(reinterpret_cast<float4*>(to + done), float4{pack[done], pack[done + 1], pack[done + 2], pack[done + 3]});
    }
  }
#endif
#pragma unroll
  for (; done < N; ++done) atomicAdd(to + done, pack[done]);
}

/// Can N neighbours be read at once from every column that is a multiple of N, of every row? Absent views can.
template <int N, class T>
bool reads_packs(Rows<T> view) {
  using S = std::remove_const_t<T>;
  return view.rows == 0 ||
         (reinterpret_cast<std::uintptr_t>(view.data) % access_bytes<N, S> == 0 && (view.rows == 1 || view.stride % N == 0));
}

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <type_traits>

#include "coyote/core/batch.hpp"
#include "coyote/core/context.hpp"
#include "coyote/core/parameters.hpp"
#include "coyote/core/path.hpp"

namespace coyote::inline v0 {

/// Degree of a map as a polynomial in its input; infinite for norms, softmax, exp. Saturates.
struct Degree {
  int value = 1;

  static constexpr int unbounded = 1 << 30;
  constexpr Degree(int degree) : value(degree >= unbounded ? unbounded : degree) {}
  constexpr bool is_infinite() const { return value == unbounded; }
  friend constexpr bool operator==(Degree, Degree) = default;
  friend constexpr Degree operator+(Degree a, Degree b) {
    const long long sum = static_cast<long long>(a.value) + b.value;
    return {sum >= unbounded ? unbounded : static_cast<int>(sum)};
  }
  /// Of a composition: degrees multiply (a constant map keeps degree 0).
  friend constexpr Degree operator*(Degree a, Degree b) {
    const long long product = static_cast<long long>(a.value) * b.value;
    return {product >= unbounded ? unbounded : static_cast<int>(product)};
  }
  friend constexpr Degree max(Degree a, Degree b) { return a.value > b.value ? a : b; }
};
inline constexpr Degree infinite_degree{Degree::unbounded};

/// What one sequence costs by the textbook algorithm; see docs/mixers.md for each formula.
struct Cost {
  Index parameters = 0;
  Index multiplications = 0;
  Index additions = 0;
  Index functions = 0;       ///< exp, division, sqrt, sin and the like
  Index state_scalars = 0;   ///< carried between decoding steps
  Index state_integers = 0;  ///< index integers carried between decoding steps (token tables)
  bool worst_case = false;   ///< the attended pairs depend on tokens and were not given: their upper bound was used

  friend constexpr bool operator==(const Cost&, const Cost&) = default;
  constexpr Cost& operator+=(const Cost& other) {
    parameters += other.parameters;
    multiplications += other.multiplications;
    additions += other.additions;
    functions += other.functions;
    state_scalars += other.state_scalars;
    state_integers += other.state_integers;
    worst_case = worst_case || other.worst_case;
    return *this;
  }
  friend constexpr Cost operator+(Cost a, const Cost& b) { return a += b; }
  friend constexpr Cost operator*(Index count, Cost c) {
    return {count * c.parameters,    count * c.multiplications, count * c.additions, count * c.functions,
            count * c.state_scalars, count * c.state_integers,  c.worst_case};
  }
};

/// What a mixer is sized for: `width` columns come in, sequences have at most `length` rows.
struct Dimensions {
  Index width = 0, length = 0;
};

/// How many scalars and index integers a decoding state holds.
struct StateSize {
  Index scalars = 0, integers = 0;
  friend constexpr bool operator==(StateSize, StateSize) = default;
  friend constexpr StateSize operator+(StateSize a, StateSize b) { return {a.scalars + b.scalars, a.integers + b.integers}; }
};

/// What a decoding state is made for: `sequences` decoded side by side, at most `capacity` tokens each.
struct StateBounds {
  Index sequences = 1, capacity = 0;
};

/// The state of layers that remember nothing.
struct NoState {
  constexpr StateSize size() const { return {}; }
};
/// What layers that keep nothing for backward save.
struct NothingSaved {};

/// A type that describes a map from a sequence [batch, length, width] to a sequence. It holds no data. Its members say
/// what the compiler may know of it:
///
///     using Parts = Types<...>;                 // the mixers that it is made of; Types<> for a leaf
///     struct Options { ... };                   // what changes loop bounds, each with a default
///     static constexpr bool is_causal;          // row i of the output depends on rows 0 .. i of the input alone
///     static constexpr bool is_input_dependent; // the interacting pairs, or the taps, are computed from the input
///     static constexpr Degree degree;           // as a polynomial in the input
///     static constexpr bool state_is_bounded;   // the decoding state does not grow with the length
///     static constexpr Index output_width(Index width);
///     static constexpr Cost cost(Dimensions, const Options&, Index pairs);   // pairs < 0: not given
///
/// To make it run, specialise Layer for it: see docs/extending.md and examples/custom_mixer.cpp.
template <class M>
concept Mixer = std::is_empty_v<M> && requires(Dimensions dims, const typename M::Options& options) {
  typename M::Parts;
  { M::is_causal } -> std::convertible_to<bool>;
  { M::is_input_dependent } -> std::convertible_to<bool>;
  { M::degree } -> std::convertible_to<Degree>;
  { M::state_is_bounded } -> std::convertible_to<bool>;
  { M::output_width(Index{}) } -> std::convertible_to<Index>;
  { M::cost(dims, options, Index{}) } -> std::convertible_to<Cost>;
};

/// A mixer made real on a backend for activations of type `Scalar`. Declared and left undefined: a mixer's owner
/// specialises it. A layer has
///
///     Layer(Dimensions, const Options&, Path);
///     struct Saved;                                                    // what forward keeps for backward
///     struct State;                                                    // what decoding carries from row to row
///     void visit(V&);                                                  // shows its parameters
///     Index output_width() const;
///     void forward(Context&, const Batch&, Rows<const S> u, Rows<S> y, Saved&) const;
///     void backward(Context&, const Batch&, Rows<const S> dy, Rows<S> du, Write, Saved&) const;
///     State make_state(StateBounds) const;                             // causal mixers only
///     void step(Context&, State&, const Step&, Rows<const S> u, Rows<S> y) const;
///
/// forward and step may take a last argument Rows<const S> skip = {}, which, unless it is absent, they add to y: what a residual
/// passes by them; where steps normalise (operations/norm.hpp), step may take a NormRule behind it, which it applies to u first.
/// u is [rows, width], y [rows, output_width]; they must not overlap and stay alive and unchanged until backward
/// is done. backward adds to parameter gradients and writes, adds to or leaves out du as it is told.
template <class M, class Backend, class Scalar>
class Layer;

/// Does mixer M run on this backend with this scalar? (For a combinator: are its parts supported too?)
namespace detail {
template <class M, class B, class S>
concept HasLayer = requires {
  sizeof(Layer<M, B, S>);
};

template <class Parts, class B, class S>
struct AllSupported;
}  // namespace detail

template <class M, class Backend, class Scalar>
inline constexpr bool is_supported = [] {
  if constexpr (std::same_as<typename M::Parts, Types<>>) {
    return detail::HasLayer<M, Backend, Scalar>;
  } else {
    return detail::AllSupported<typename M::Parts, Backend, Scalar>::value;
  }
}();

namespace detail {
template <class... Ms, class B, class S>
struct AllSupported<Types<Ms...>, B, S> : std::bool_constant<(is_supported<Ms, B, S> && ...)> {};

/// Asserts one by one, because g++ does not say which member of a pack fails.
template <class M>
constexpr bool require_mixer() {
  static_assert(
      Mixer<M>,
      "coyote: this is not a mixer: a mixer is an empty type with Parts, Options and facts (core/mixer.hpp lists them)");
  return true;
}

/// Asserts at the missing leaf, so that the first error line names it.
template <class M, class B, class S>
struct RequireSupport;
template <class Parts, class B, class S>
struct RequireParts;
template <class... Ms, class B, class S>
struct RequireParts<Types<Ms...>, B, S> {
  // Not base classes: a mixer may have the same part twice.
  static constexpr bool checked = (true && ... && (sizeof(RequireSupport<Ms, B, S>) > 0));
  static_assert(checked);
};
template <class M, class B, class S>
struct RequireLeaf {
  static_assert(HasLayer<M, B, S>,
                "coyote: this mixer has no Layer on this backend and scalar: specialise coyote::Layer for it, or choose another");
};
template <class M, class B, class S>
struct RequireSupport {
  static_assert(
      Mixer<M>,
      "coyote: this is not a mixer: a mixer is an empty type with Parts, Options and facts (core/mixer.hpp lists them)");
};
template <Mixer M, class B, class S>
struct RequireSupport<M, B, S>
    : std::conditional_t<std::same_as<typename M::Parts, Types<>>, RequireLeaf<M, B, S>, RequireParts<typename M::Parts, B, S>> {
};
}  // namespace detail

// ---- facts -----------------------------------------------------------------------------------------------------------

/// Row i of the output depends on rows 0 .. i of the input alone.
template <class M>
inline constexpr bool is_causal = (detail::require_mixer<M>(), M::is_causal);
/// The interacting pairs, or the taps of a filter, are computed from the input.
template <class M>
inline constexpr bool is_input_dependent = (detail::require_mixer<M>(), M::is_input_dependent);
/// Degree as a polynomial in the input.
template <class M>
inline constexpr Degree degree = (detail::require_mixer<M>(), M::degree);
/// The decoding state does not grow with the length.
template <class M>
inline constexpr bool state_is_bounded = (detail::require_mixer<M>(), M::state_is_bounded);

/// Cost of one sequence. `pairs` is the number of attended (query, key) pairs per attention layer where the pattern
/// depends on tokens; if it is not given, the pattern's upper bound is used and `worst_case` says so.
template <class M>
constexpr Cost cost(Index width, Index length, Index pairs = -1, const typename M::Options& options = {}) {
  detail::require_mixer<M>();
  return M::cost({width, length}, options, pairs);
}

/// What every layer asks of the views it is given: [rows of the batch, in] and [rows, out].
template <class S>
constexpr void require_views(const Path& path, Index rows, Rows<const S> u, Index in, Rows<S> y, Index out) {
  require_shape(path, "an input", u, rows, in);
  require_shape(path, "an output", y, rows, out);
}
/// Throws if a sequence is longer than what a layer was built for.
constexpr void require_length(const Path& path, Index longest, Index length) {
  if (longest > length) throw Error(std::string(path.view()), words("sequences of at most ", length, " rows"), words(longest));
}

/// Throws unless a layer's dimensions make sense.
constexpr void require_dimensions(const Path& path, Dimensions dims) {
  if (dims.width < 1) throw Error(std::string(path.view()), "a width of at least 1", words(dims.width));
  if (dims.length < 1) throw Error(std::string(path.view()), "a length of at least 1", words(dims.length));
}

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "coyote/core/mixer.hpp"
#include "coyote/theory/stack.hpp"

namespace coyote::inline v0::theory {

// ---- degree ----------------------------------------------------------------------------------------------------------

/// The degree, at most points - 1, of s -> f(a + s b) as a polynomial: the largest k for which the k-th finite difference of
/// f(a), f(a + b), ..., f(a + (points - 1) b) is not 0 in every output; -1 for f = 0. A map of degree D <= points - 1 gives at
/// most D on every line and, over a large field, exactly D on almost every one; a result of points - 1 says nothing more than "at
/// least". f takes a Matrix<S> of the shape of a and returns one. Exact rings only; in a prime field points < p.
template <Ring S, class F>
constexpr Index line_degree(F&& f, const Matrix<S>& a, const Matrix<S>& b, Index points) {
  if (points < 1) throw Error("theory::line_degree", "at least 1 point", words(points));
  require_shape("theory::line_degree", "a direction", b.view(), a.rows(), a.width());
  List<Matrix<S>> values;
  Matrix<S> x = a;
  for (Index s = 0; s < points; ++s) {
    values.emplace(f(std::as_const(x)));
    for (Index n = 0; n < x.size(); ++n) x.data()[n] += b.data()[n];
  }
  Index degree = -1;
  for (Index k = 0; k < points; ++k) {  // values[0] is now the k-th difference
    for (const S& y : values[0]) {
      if (!(y == S{})) {
        degree = k;
        break;
      }
    }
    for (Index s = 0; s + 1 < points - k; ++s) {
      for (Index n = 0; n < values[s].size(); ++n) values[s].data()[n] = values[s + 1].data()[n] - values[s].data()[n];
    }
  }
  return degree;
}
template <Ring S>
constexpr Index line_degree(const Stack<S>& stack, const Matrix<S>& a, const Matrix<S>& b, Index points) {
  return line_degree<S>([&](const Matrix<S>& x) { return stack.run(x); }, a, b, points);
}

/// The degree of an answer bit of MQAR as a polynomial in +-1 or 0-1 bits: v times the product over l key bits of
/// (1 - q_r - k_r + 2 q_r k_r), the only multilinear form of it. Over every ring where 2^l is not 0.
constexpr Index recall_degree(Index key_bits) { return 2 * key_bits + 1; }
/// Gate layers that any stack needs for it: each at most doubles the degree, so ceil(log2(2 l + 1)).
constexpr Index required_gate_layers(Index key_bits) { return log2_ceil(recall_degree(key_bits)); }

// ---- state -----------------------------------------------------------------------------------------------------------

/// What a one-pass model must remember: `pairs` pairs whose values are among `values` symbols.
struct RecallLoad {
  Index pairs = 1;
  double values = 2;    ///< c_v
  double keys = 0;      ///< c_k: the pairs' keys are any set of these many; 0: the set of keys is known beforehand
  double accuracy = 1;  ///< of single queries on average over uniform values; 1: every answer right
};

/// Bits of state that no model can do with less than, after the pairs and before the query:
///     accuracy 1:       D log2 c_v, and log2 binom(c_k, D) if the set of keys is not known
///     accuracy 1 - e:   D (log2 c_v - h(e) - e log2(c_v - 1)), by Fano's inequality, 0 if that is negative (keys known)
/// Two tables with equal states answer every query equally, so there are at least as many states as tables.
/// Errors: no pairs, fewer than 1 value, fewer keys than pairs, an accuracy outside 0 .. 1, or below 1 with unknown keys.
inline double required_bits(const RecallLoad& load) {
  constexpr const char* where = "theory::required_bits";
  const double pairs = static_cast<double>(load.pairs);
  if (load.pairs < 1) throw Error(where, "at least 1 pair", words(load.pairs));
  if (!(load.values >= 1)) throw Error(where, "at least 1 value", words(load.values));
  if (load.keys != 0 && !(load.keys >= pairs)) throw Error(where, words("at least ", load.pairs, " keys"), words(load.keys));
  if (!(load.accuracy >= 0 && load.accuracy <= 1)) throw Error(where, "an accuracy in 0 .. 1", words(load.accuracy));
  if (load.accuracy < 1 && load.keys != 0) {
    throw Error(where, "a known set of keys (keys = 0) with an accuracy below 1", words(load.keys, " keys"));
  }
  const double e = 1 - load.accuracy;
  double bits = std::log2(load.values);
  if (e > 0) {
    bits += e * std::log2(e) + (e < 1 ? (1 - e) * std::log2(1 - e) : 0);
    if (load.values > 1) bits -= e * std::log2(std::max(load.values - 1, 1.0));
    // The bound falls as errors grow only down to guessing: worse than chance needs no state.
    if (e >= 1 - 1 / load.values) bits = 0;
    bits = std::max(bits, 0.0);
  }
  bits *= pairs;
  if (load.keys > 0) {  // a sum of logarithms: exact for small numbers, no overflow for large ones
    for (Index n = 0; n < load.pairs; ++n) {
      bits += std::log2((load.keys - static_cast<double>(n)) / static_cast<double>(n + 1));
    }
  }
  return bits;
}

/// Bits that a causal architecture carries from one token to the next.
template <class M>
double state_bits(Dimensions dims, double bits_per_scalar = 32, const typename M::Options& options = {}) {
  static_assert(is_causal<M>, "coyote: only a causal architecture has a state between tokens");
  const Cost c = cost<M>(dims.width, dims.length, -1, options);
  return bits_per_scalar * static_cast<double>(c.state_scalars) + 64 * static_cast<double>(c.state_integers);
}

// ---- what they say about an architecture -----------------------------------------------------------------------------

/// The question for report: MQAR of `pairs` pairs with keys of `key_bits` bits and values of `value_bits` bits.
struct RecallQuestion {
  Index key_bits = 1, value_bits = 1, pairs = 1;
  bool known_keys = true;       ///< the set of keys that will come is known beforehand
  double bits_per_scalar = 32;  ///< how much a number of the state can hold
};

enum class Verdict { no, not_excluded };

/// Does the degree allow exact c-bit MQAR, read as a polynomial in the bits of keys, queries and values?
template <class M>
constexpr Verdict degree_verdict(const RecallQuestion& question) {
  return degree<M>.is_infinite() || degree<M>.value >= recall_degree(question.key_bits) ? Verdict::not_excluded : Verdict::no;
}
/// Does the state hold what must be remembered? An architecture that is not causal reads everything at once: not excluded.
template <class M>
Verdict state_verdict(Dimensions dims, const RecallQuestion& question, const typename M::Options& options = {}) {
  if constexpr (!is_causal<M>) {
    return Verdict::not_excluded;
  } else {
    const RecallLoad load{question.pairs, std::exp2(static_cast<double>(question.value_bits)),
                          question.known_keys ? 0 : std::exp2(static_cast<double>(question.key_bits))};
    return state_bits<M>(dims, question.bits_per_scalar, options) < required_bits(load) ? Verdict::no : Verdict::not_excluded;
  }
}

namespace detail {
/// A count of bits without decimals, "0.5" and the like rounded up: bounds are from below.
inline std::string whole(double bits) {
  return bits < 9e15 ? words(static_cast<long long>(std::ceil(bits - 1e-9))) : std::string("over 9e15");
}
}  // namespace detail

/// A short text: does architecture M solve this recall? What the two bounds say; "no" is a proof (of exact recall from bits, at
/// this precision of the state), everything else only means that these bounds do not exclude it.
template <class M>
std::string report(Dimensions dims, const RecallQuestion& question, const typename M::Options& options = {}) {
  const Index need = recall_degree(question.key_bits);
  std::string text = words("solves MQAR of ", question.pairs, " pairs, ", question.key_bits, "-bit keys, ", question.value_bits,
                           "-bit values (width ", dims.width, ", length ", dims.length, ")?\n");
  const bool degree_fits = degree_verdict<M>(question) == Verdict::not_excluded;
  text += degree_fits ? "  degree says  not excluded: " : "  degree says  no: ";
  text += words("an answer bit is a polynomial of degree ", need, " in the bits, the architecture ");
  text += degree<M>.is_infinite() ? std::string("is not a polynomial") : words("has degree ", degree<M>.value);
  if constexpr (is_causal<M>) {
    const RecallLoad load{question.pairs, std::exp2(static_cast<double>(question.value_bits)),
                          question.known_keys ? 0 : std::exp2(static_cast<double>(question.key_bits))};
    const bool fits = state_verdict<M>(dims, question, options) == Verdict::not_excluded;
    text += fits ? "\n  state says   not excluded: " : "\n  state says   no: ";
    text += words(detail::whole(required_bits(load)), " bits must be remembered, the state holds ",
                  detail::whole(state_bits<M>(dims, question.bits_per_scalar, options)), "\n");
  } else {
    text += "\n  state says   nothing: the architecture is not causal, it reads the whole sequence at once\n";
  }
  return text;
}

}  // namespace coyote::inline v0::theory

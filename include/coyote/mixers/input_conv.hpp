// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/core/storage.hpp"
#include "coyote/mixers/bias.hpp"
#include "coyote/mixers/patterns.hpp"
#include "coyote/operations/reference/input_conv.hpp"
#include "coyote/operations/reference/linear.hpp"

namespace coyote::inline v0 {

/// Lags from repeats of tokens up to the current row. Let prev(p) be the latest row before p with p's token. Every row p that
/// has one names the lag
///
///     lag(p) = p - 1 - prev(p),
///
/// the distance from p back to the row *behind* the earlier occurrence: row p - lag(p) = prev(p) + 1 holds the token that
/// followed it. Row i uses the first Count distinct lags of p = i, i - 1, ..., 0, the newest first. So a row whose own token
/// occurred before always uses its own lag, even with Count = 1: MQAR's queries find the row of their answer, provided that
/// keys carry the token before them (a short convolution in front; see theory.md). Entering a row costs O(Count).
template <Index Count>
struct TokenLags {
  static_assert(Count >= 1, "coyote: TokenLags<Count> keeps at least one lag");
  static constexpr Index count = Count;
  static constexpr bool is_causal = true, uses_tokens = true, is_linked = true;
  /// Row i has seen at most i repeats.
  static constexpr Index max_pairs(Index length) {
    const Index ramp = length - 1 < Count ? length - 1 : Count;
    return detail::triangle(ramp) + (length - 1 - ramp) * Count;
  }
  static constexpr Cost cost(Dimensions) { return {}; }

  /// The table of rows by token, then the lags, newest first.
  COYOTE_HOST_DEVICE static constexpr Index index_size(Index capacity) {
    return detail::TokenPattern::index_size(capacity) + Count;
  }
  COYOTE_HOST_DEVICE static constexpr void append(Entries<std::int32_t> index, Entries<const Token> tokens, Index i,
                                                  Entries<std::int32_t> lags) {
    const Entries<std::int32_t> rows = index.first(index.size() - Count), newest = index.behind(index.size() - Count);
    detail::TokenPattern::append(rows, tokens, i);
    if (const Index before = detail::TokenPattern::previous(rows, i); before >= 0) enter(newest, lag_of(i, before));
    for (Index n = 0; n < Count; ++n) lags[n] = newest[n];
  }
  COYOTE_HOST_DEVICE static constexpr std::int32_t lag_of(Index i, Index before) {
    return static_cast<std::int32_t>(i - 1 - before);
  }
  /// To the front; the others move up to its old place.
  COYOTE_HOST_DEVICE static constexpr void enter(Entries<std::int32_t> newest, std::int32_t lag) {
    std::int32_t carried = lag;
    for (Index n = 0; n < Count; ++n) {
      const std::int32_t entry = newest[n];
      newest[n] = carried;
      carried = entry;
      if (carried == lag) break;
    }
  }
};

/// The Count lags t >= 1 of a sequence with the largest autocorrelation R[t] = sum_{i >= t} <q_i, k_(i-t)>, of equal ones the
/// smaller; every row i uses those with t <= i. It reads the whole sequence: not causal, no step, no language model. R takes
/// D*L(L-1)/2 multiplications. Over ordered scalars.
template <Index Count>
struct Autocorrelation {
  static_assert(Count >= 1, "coyote: Autocorrelation<Count> keeps at least one lag");
  static constexpr Index count = Count;
  static constexpr bool is_causal = false, uses_tokens = false, is_autocorrelation = true;
  static constexpr Index max_pairs(Index length) {
    const Index used = Count < length - 1 ? Count : length - 1;
    return used * length - detail::triangle(used);
  }
  static constexpr Cost cost(Dimensions dims) {
    const Index products = dims.width * detail::triangle(dims.length - 1);
    return {.multiplications = products, .additions = products - (dims.length - 1)};
  }

  static constexpr Index scratch_size(Index rows, Index width) { return rows + width; }
  template <class S>
  static constexpr void find(std::span<const Token>, Rows<const S> q, Rows<const S> k, std::span<S> scratch,
                             Rows<std::int32_t> lags) {
    const Index n = q.rows, width = q.width;
    S *const r = scratch.data(), *const sums = r + n;
    for (Index t = 1; t < n; ++t) {
      for (Index c = 0; c < width; ++c) sums[c] = q(t, c) * k(0, c);
      for (Index i = t + 1; i < n; ++i) {
        const S *query = q.row(i), *key = k.row(i - t);
        for (Index c = 0; c < width; ++c) sums[c] += query[c] * key[c];
      }
      r[t] = sums[0];
      for (Index c = 1; c < width; ++c) r[t] += sums[c];
    }
    std::int32_t best[Count] = {};
    Index found = 0;
    for (Index t = 1; t < n; ++t) {  // a short list, largest first, kept by insertion
      Index place = found;
      while (place > 0 && r[best[place - 1]] < r[t]) --place;
      if (place == Count) continue;
      if (found < Count) ++found;
      for (Index m = found - 1; m > place; --m) best[m] = best[m - 1];
      best[place] = static_cast<std::int32_t>(t);
    }
    for (Index i = 0; i < n; ++i) {
      Index present = 0;
      for (Index m = 0; m < found; ++m) {
        if (best[m] <= i) lags(i, present++) = best[m];
      }
      while (present < Count) lags(i, present++) = -1;
    }
  }
};

/// The weights of a row's lags: softmax over those present, or the inner products themselves (any ring).
struct SoftmaxGate {
  static constexpr bool is_softmax = true;
};
struct IdentityGate {
  static constexpr bool is_softmax = false;
};

/// An input-dependent convolution: q, k, v = u W + b and
///
///     y_i = sum_{t in T_i} g(<q_i, k_(i-t)>) v_(i-t),
///
/// with the lags T_i from `Lags` (TokenLags or Autocorrelation, or a source of your own) and g a softmax over T_i or the
/// identity. Terms before the sequence's first row are absent; a row without lags outputs 0. T carries no gradient. There is no
/// scale and no output projection: W_q holds the one, a Linear behind it is the other.
/// Saves u, q, k, v, the lags and the weights. Softmax: real scalars, not a polynomial; identity with TokenLags: degree 3.
/// Cost (E pairs of row and lag, R rows with a lag): 3*L*D^2 + 2*D*E multiplications, beside finding the lags. State: keys
/// and values of all rows, 2*L*D scalars, their tokens and an index. Errors: width mismatch; missing tokens; a full state.
/// Parameters: query, key and value, each weight [D, D], N(0, 0.02^2), and bias [D], 0.
/// Source: Zoology (arXiv 2312.04927), Theorem 4.5, with the gate that makes it exact.
template <class Lags, class Gating = SoftmaxGate, class Bias = ChannelBias>
struct InputConv {
  static_assert(LagSource<Lags>,
                "coyote: the first argument of InputConv says where its lags come from (operations/input_conv.hpp)");
  static_assert(Bias::rows(2) <= 1, "coyote: InputConv takes NoBias or ChannelBias");
  using Parts = Types<>;
  struct Options {
    Init projections = Init::normal(0.02);
  };
  static constexpr bool is_causal = Lags::is_causal, is_input_dependent = true, state_is_bounded = false;
  static constexpr Degree degree = !Gating::is_softmax && Lags::is_causal ? Degree(3) : infinite_degree;

  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions dims, const Options&, Index given) {
    const Index n = dims.length, d = dims.width, bias = Bias::rows(n);
    const Index e = given >= 0 ? given : Lags::max_pairs(n), rows = e < n - 1 ? e : n - 1;
    const Index softmax = Gating::is_softmax ? e - rows : 0;
    Cost total{.parameters = 3 * d * (d + bias),
               .multiplications = 3 * n * d * d + 2 * d * e,
               .additions = 3 * n * d * (d - 1 + bias) + (d - 1) * e + d * (e - rows) + softmax,
               .functions = Gating::is_softmax ? 2 * e : 0,
               .worst_case = given < 0};
    if constexpr (Lags::is_causal) {
      total.state_scalars = 2 * n * d;
      total.state_integers = (Lags::uses_tokens ? n : 0) + Lags::index_size(n);
    }
    return total + Lags::cost(dims);
  }
};

template <class Lags, class Gating, class Bias, class Backend, class S>
requires((is_real<S> || !Gating::is_softmax) &&
         (!std::same_as<Backend, Cuda> || Lags::is_causal || AutocorrelationLags<Lags>))  //
    class Layer<InputConv<Lags, Gating, Bias>, Backend, S> {
  using Mixer = InputConv<Lags, Gating, Bias>;
  using P = parameter_t<S>;
  static constexpr bool softmax = Gating::is_softmax;

 public:
  struct Saved {
    Rows<const S> u;
    Tensor<Backend, S> qkv;
    Tensor<Backend, P> weights;
    Tensor<Backend, std::int32_t> lags;
  };
  /// Keys, values and tokens of the rows so far, and what the lags come from.
  struct State {
    Storage<Backend, P> keys, values;      // [sequences * capacity, width]
    Storage<Backend, Token> tokens;        // [sequences, capacity]
    Storage<Backend, std::int32_t> index;  // [sequences, index_size(capacity)]
    Index sequences = 1, capacity = 0;
    constexpr StateSize size() const {
      return {.scalars = (keys.size() + values.size()) / sequences, .integers = (tokens.size() + index.size()) / sequences};
    }
  };

  constexpr Layer(Dimensions dims, const typename Mixer::Options& options, Path path)
      : path_(path),
        width_(dims.width),
        weight_(dims.width, 3 * dims.width, options.projections),
        bias_(Bias::rows(dims.length), 3 * dims.width, Init::constant(0), false) {
    require_dimensions(path, dims);
  }

  template <class V>
  constexpr void visit(V& v) {
    visit_packed(v, path_, weight_, {"query.weight", "key.weight", "value.weight"});
    if (bias_.rows > 0) visit_packed(v, path_, bias_, {"query.bias", "key.bias", "value.bias"});
  }
  constexpr Index output_width() const { return width_; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, width_, y, width_);
    if (Lags::uses_tokens && static_cast<Index>(batch.tokens.size()) != batch.rows()) {
      throw Error(std::string(path_.view()), "a batch with one token per row, because its lags come from tokens",
                  words(batch.tokens.size(), " tokens"));
    }
    saved.u = u;
    saved.qkv = context.template make<S>(u.rows, 3 * width_);
    saved.weights = context.template make<P>(u.rows, Lags::count);
    saved.lags = context.template make<std::int32_t>(u.rows, Lags::count);
    linear<S>(context, batch, u, weight_.view(), bias_.view(), saved.qkv);
    const Rows<const S> qkv = saved.qkv;
    find_all_lags<S, Lags>(context, batch, part(qkv, 0), part(qkv, 1), saved.lags);
    input_convolution<S, softmax>(context, batch, saved.lags, part(qkv, 0), part(qkv, 1), part(qkv, 2), saved.weights, y);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> made = context.template make<S>(dy.rows, 3 * width_);
    Tensor<Backend, P> ds = context.template make<P>(dy.rows, Lags::count);
    const Rows<S> dqkv = made;
    const Rows<const S> qkv = saved.qkv;
    input_convolution_backward<S, softmax>(context, batch, saved.lags, part(qkv, 0), part(qkv, 1), part(qkv, 2), saved.weights,
                                           dy, ds, part(dqkv, 0), part(dqkv, 1), part(dqkv, 2));
    linear_backward<S>(context, batch, saved.u, weight_.view(), dqkv, du, write, weight_.gradient, bias_.gradient);
  }

  constexpr State make_state(StateBounds bounds) const {
    static_assert(Lags::is_causal, "coyote: these lags come from the whole sequence, so there is no step: use TokenLags");
    State state;
    state.sequences = bounds.sequences;
    state.capacity = bounds.capacity;
    state.keys = state.values = Storage<Backend, P>(bounds.sequences * bounds.capacity, width_);
    if constexpr (Lags::uses_tokens) state.tokens = Storage<Backend, Token>(bounds.sequences, bounds.capacity);
    Matrix<std::int32_t> index(bounds.sequences, Lags::index_size(bounds.capacity));
    for (std::int32_t& entry : index) entry = -1;
    state.index = to_backend<Backend>(std::move(index));
    return state;
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    require_views(path_, state.sequences, u, width_, y, width_);
    require_length(path_, at.position + 1, state.capacity);
    if (Lags::uses_tokens && static_cast<Index>(at.tokens.size()) != u.rows) {
      throw Error(std::string(path_.view()), "a step with one token per sequence, because its lags come from tokens",
                  words(at.tokens.size()));
    }
    const auto frame = context.frame();
    Tensor<Backend, S> made = context.template make<S>(u.rows, 3 * width_);
    const Rows<const S> qkv = made;
    linear<S>(context, Batch{.sequences = u.rows, .length = 1}, u, weight_.view(), bias_.view(), made);
    input_convolution_decode<S, softmax, Lags>(context, at, part(qkv, 0), part(qkv, 1), part(qkv, 2), state.keys, state.values,
                                               state.tokens, state.index, y);
  }

 private:
  /// The queries, keys or values among the packed projections.
  template <class T>
  constexpr Rows<T> part(Rows<T> qkv, Index which) const {
    return qkv.columns(which * width_, width_);
  }

  Path path_;
  Index width_;
  Parameter<P> weight_, bias_;
};

}  // namespace coyote::inline v0

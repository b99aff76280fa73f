// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/mixer.hpp"
#include "coyote/core/storage.hpp"
#include "coyote/mixers/patterns.hpp"
#include "coyote/mixers/positions.hpp"
#include "coyote/operations/attention_state.hpp"
#include "coyote/operations/reference/attention.hpp"
#include "coyote/operations/reference/linear.hpp"
#include "coyote/operations/skip.hpp"

namespace coyote::inline v0 {

/// The number of heads; it divides the width.
template <Index H>
struct Heads {
  static_assert(H >= 1, "coyote: attention has at least one head");
  static constexpr Index value = H;
};

namespace detail {
template <class P>
struct RotaryBase : std::integral_constant<Index, 0> {
  static_assert(std::same_as<P, NoPositions>,
                "coyote: Attention takes NoPositions or Rotary<Base>; learned positions belong to LanguageModel<..., Learned>");
};
template <Index Base>
struct RotaryBase<Rotary<Base>> : std::integral_constant<Index, Base> {};
}  // namespace detail

/// Causal attention: q, k, v = u W + b; for each head y_i = sum_j softmax_j(<q_i, k_j> / sqrt(head_dim)) v_j over the keys
/// j <= i that the pattern allows; then the output projection. Rows without a key output the projection's bias.
/// Shapes: u and y [batch, length, width]; the batch carries tokens when the pattern looks at them.
/// Saves u, q, k, v, the heads' output and one log-sum-exp per row and head. Real scalars. Not a polynomial.
/// Cost (E attended pairs): 4*L*D^2 + 2*D*E multiplications, and 4*L*D for rotary positions. State: keys and values of all rows,
/// or of the window. Errors: width mismatch; heads that do not divide the width; missing tokens; a state that is full.
/// Parameters: query, key, value and out, each weight [D, D], N(0, 0.02^2), and bias [D], 0.
/// Source: Vaswani et al. (arXiv 1706.03762); patterns: Zoology (arXiv 2312.04927), section 5.
template <class H = Heads<1>, class Pattern = Dense, class Positions = NoPositions>
struct Attention {
  static_assert(AttentionPattern<Pattern>,
                "coyote: the second argument of Attention is a pattern (operations/pattern.hpp says what one has)");
  using Parts = Types<>;
  struct Options {
    double dropout = 0;  ///< rate of dropout on the probabilities
    Init projections = Init::normal(0.02), out = Init::normal(0.02);
  };
  static constexpr Index rotary_base = detail::RotaryBase<Positions>::value;
  static constexpr bool is_causal = true, is_input_dependent = true;
  static constexpr bool state_is_bounded = requires { Pattern::window; };
  static constexpr Degree degree = infinite_degree;

  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions dims, const Options&, Index given) {
    const Index n = dims.length, d = dims.width, linear = n * d * d;
    const bool worst_case = Pattern::uses_tokens && given < 0;
    const Index pairs = Pattern::uses_tokens && given >= 0 ? given : Pattern::max_pairs(n);
    const Index rows = pairs < Pattern::max_rows(n) ? pairs : Pattern::max_rows(n);
    // Pairs of channels of queries and keys that are rotated.
    const Index turned = rotary_base > 0 ? 2 * n * H::value * (d / H::value / 2) : 0;
    Index kept = n;
    if constexpr (state_is_bounded) kept = Pattern::window < n ? Pattern::window : n;
    return {.parameters = 4 * d * d + 4 * d,
            .multiplications = 4 * linear + 2 * d * pairs + 4 * turned,
            .additions = 4 * linear + 2 * d * pairs - (d + H::value) * rows + 2 * turned,
            .functions = 2 * H::value * pairs,
            .state_scalars = 2 * kept * d,
            .state_integers = Pattern::uses_tokens ? n + Pattern::index_size(n) : 0,
            .worst_case = worst_case};
  }
};

template <class H, class Pattern, class Positions, class Backend, class S>
requires is_real<S>
class Layer<Attention<H, Pattern, Positions>, Backend, S> {
  using Mixer = Attention<H, Pattern, Positions>;
  using P = parameter_t<S>;
  static constexpr Index heads = H::value, base = Mixer::rotary_base;
  using IndexOf = decltype(build_index<Pattern>(std::declval<Context<Backend>&>(), std::declval<const Batch&>()));

 public:
  struct Saved {
    Rows<const S> u;
    Tensor<Backend, S> qkv, mixed;
    Tensor<Backend, P> log_sum_exp;
    IndexOf index;
    AttentionDropout dropout;
  };
  /// Keys and values of the rows so far (a window keeps its own in turn), and the token index that the pattern needs.
  struct State {
    Storage<Backend, P> keys, values;      // [sequences * rows kept, width]
    Storage<Backend, Token> tokens;        // [sequences, capacity]
    Storage<Backend, std::int32_t> index;  // [sequences, index_size(capacity)]
    Index sequences = 1, capacity = 0;
    constexpr StateSize size() const {
      return {.scalars = (keys.size() + values.size()) / sequences, .integers = (tokens.size() + index.size()) / sequences};
    }
  };

  Layer(Dimensions dims, const typename Mixer::Options& options, Path path)
      : path_(path),
        width_(dims.width),
        scale_(static_cast<P>(1 / std::sqrt(static_cast<double>(dims.width / heads)))),
        dropout_(options.dropout),
        qkv_weight_(dims.width, 3 * dims.width, options.projections),
        qkv_bias_(1, 3 * dims.width, Init::constant(0), false),
        out_weight_(dims.width, dims.width, options.out),
        out_bias_(1, dims.width, Init::constant(0), false) {
    require_dimensions(path, dims);
    if (dims.width % heads != 0) {
      throw Error(std::string(path.view()), words("a width that its ", heads, " heads divide"), words(dims.width));
    }
    if (!(dropout_ >= 0 && dropout_ < 1)) throw Error(std::string(path.view()), "a dropout rate in [0, 1)", words(dropout_));
  }

  template <class V>
  void visit(V& v) {
    visit_packed(v, path_, qkv_weight_, {"query.weight", "key.weight", "value.weight"});
    visit_packed(v, path_, qkv_bias_, {"query.bias", "key.bias", "value.bias"});
    visit_parameter(v, path_ / "out.weight", out_weight_);
    visit_parameter(v, path_ / "out.bias", out_bias_);
  }
  Index output_width() const { return width_; }

  /// `skip`, if it is there, is added to the output.
  void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved,
               Rows<const S> skip = {}) const {
    require_views(path_, batch.rows(), u, width_, y, width_);
    if (Pattern::uses_tokens && batch.tokens.empty()) {
      throw Error(std::string(path_.view()), "a batch with tokens, because its pattern looks at them", "none");
    }
    saved.u = u;
    saved.qkv = context.template make<S>(u.rows, 3 * width_);
    saved.mixed = context.template make<S>(u.rows, width_);
    if (context.training()) saved.log_sum_exp = context.template make<P>(u.rows, heads);
    saved.index = build_index<Pattern>(context, batch);
    saved.dropout = {context.training() ? dropout_ : 0.0, Stream(context.seed, Purpose::dropout, path_.hash(), context.step)};
    const Rows<S> qkv = saved.qkv;
    linear<S>(context, batch, u, qkv_weight_.view(), qkv_bias_.view(), qkv);
    if constexpr (base > 0) rotate<S>(context, batch, 2 * heads, base, 0, false, qkv.columns(0, 2 * width_));
    attention<S, Pattern>(context, batch, saved.index, heads, scale_, saved.dropout, part(saved.qkv, 0), part(saved.qkv, 1),
                          part(saved.qkv, 2), saved.mixed, context.training() ? Rows<P>(saved.log_sum_exp) : Rows<P>());
    detail::linear_onto<S, Context<Backend>, P>(context, batch, saved.mixed, out_weight_.view(), out_bias_.view(), y, skip);
  }
  void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write, Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> dmixed = context.template make<S>(dy.rows, width_);
    Tensor<Backend, S> gradient = context.template make<S>(dy.rows, 3 * width_);
    const Rows<S> dqkv = gradient;
    linear_backward<S>(context, batch, saved.mixed, out_weight_.view(), dy, dmixed, Write::overwrite, out_weight_.gradient,
                       out_bias_.gradient);
    attention_backward<S, Pattern>(context, batch, saved.index, heads, scale_, saved.dropout, part(saved.qkv, 0),
                                   part(saved.qkv, 1), part(saved.qkv, 2), saved.mixed, saved.log_sum_exp, dmixed,
                                   dqkv.columns(0, width_), dqkv.columns(width_, width_), dqkv.columns(2 * width_, width_));
    if constexpr (base > 0) rotate<S>(context, batch, 2 * heads, base, 0, true, dqkv.columns(0, 2 * width_));
    linear_backward<S>(context, batch, saved.u, qkv_weight_.view(), dqkv, du, write, qkv_weight_.gradient, qkv_bias_.gradient);
  }

  State make_state(StateBounds bounds) const {
    State state;
    state.sequences = bounds.sequences;
    state.capacity = bounds.capacity;
    Index rows = bounds.capacity;
    if constexpr (Mixer::state_is_bounded) rows = std::min(Pattern::window, rows);
    state.keys = state.values = Storage<Backend, P>(bounds.sequences * rows, width_);
    if constexpr (Pattern::uses_tokens) state.tokens = Storage<Backend, Token>(bounds.sequences, bounds.capacity);
    Matrix<std::int32_t> index(bounds.sequences, Pattern::index_size(bounds.capacity));
    for (std::int32_t& entry : index) entry = -1;
    state.index = to_backend<Backend>(std::move(index));
    return state;
  }
  /// `skip`, if it is there, is added to the output.
  void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip = {}) const {
    run_step(context, state, at, u, y, skip);
  }
  /// Of the input normalised by a rule.
  void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip,
            const NormRule<P>& norm) const requires(steps_normalise<Backend, S>) {
    run_step(context, state, at, u, y, skip, norm);
  }

 private:
  /// `norm` is a rule for the input, or nothing.
  template <class... Rule>
  void run_step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip,
                const Rule&... norm) const {
    require_views(path_, state.sequences, u, width_, y, width_);
    require_length(path_, at.position + 1, state.capacity);
    if (Pattern::uses_tokens && static_cast<Index>(at.tokens.size()) != u.rows) {
      throw Error(std::string(path_.view()), "a step with one token per sequence, because its pattern looks at them",
                  words(at.tokens.size()));
    }
    const auto frame = context.frame();
    Tensor<Backend, S> made = context.template make<S>(u.rows, 3 * width_);
    Tensor<Backend, S> mixed = context.template make<S>(u.rows, width_);
    const Rows<S> qkv = made;
    const Batch rows{.sequences = u.rows, .length = 1};
    if constexpr (sizeof...(Rule) > 0) {
      linear<S>(context, rows, u, qkv_weight_.view(), qkv_bias_.view(), qkv, {}, norm...);
    } else {
      linear<S>(context, rows, u, qkv_weight_.view(), qkv_bias_.view(), qkv);
    }
    if constexpr (base > 0) rotate_step<S>(context, at, 2 * heads, base, qkv.columns(0, 2 * width_));
    // The rows that a full window keeps are all its keys, in whatever order.
    using Kept = std::conditional_t<Mixer::state_is_bounded, Dense, Pattern>;
    attention_decode<S, Pattern, Kept>(context, at, heads, scale_, part(qkv, 0), part(qkv, 1), part(qkv, 2), state.keys,
                                       state.values, state.tokens, state.index, mixed);
    detail::linear_onto<S, Context<Backend>, P>(context, rows, mixed, out_weight_.view(), out_bias_.view(), y, skip);
  }

  /// The queries, keys or values among the packed projections.
  Rows<const S> part(Rows<const S> qkv, Index which) const { return qkv.columns(which * width_, width_); }

  Path path_;
  Index width_;
  P scale_;
  double dropout_;
  Parameter<P> qkv_weight_, qkv_bias_, out_weight_, out_bias_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/select.hpp"
#include "coyote/selectors/selector.hpp"
#include "coyote/selectors/threshold_rows.hpp"
#include "coyote/selectors/top_rows.hpp"

namespace coyote::inline v0 {

template <class H, class Pattern, class Positions>
struct Attention;

namespace detail {
/// What A costs when `selected` of the rows are wanted: in general all of A, and the product with the scores.
template <class A>
struct SelectedCost {
  static constexpr Cost of(Dimensions dims, const typename A::Options& options, Index, Index pairs) {
    return A::cost(dims, options, pairs) + Cost{.multiplications = dims.length * A::output_width(dims.width), .worst_case = true};
  }
};
/// Attention by the textbook: keys and values of all rows, queries and outputs of the selected ones, which in the worst case
/// are the last.
template <class H, class Pattern, class Positions>
struct SelectedCost<Attention<H, Pattern, Positions>> {
  using A = Attention<H, Pattern, Positions>;
  static constexpr Cost of(Dimensions dims, const typename A::Options& options, Index k, Index pairs) {
    const Index n = dims.length, d = dims.width, most = k * n - k * (k - 1) / 2, all = Pattern::max_pairs(n);
    const Index e = pairs >= 0 ? pairs : most < all ? most : all;
    const Index rows = e < k ? e : k, projections = 2 * n * d * d + 2 * k * d * d;
    Cost cost = A::cost(dims, options, pairs);
    cost.multiplications = projections + 2 * d * e;
    cost.additions = projections + 2 * d * e - (d + H::value) * rows;
    cost.functions = 2 * H::value * e;
    cost.worst_case = pairs < 0;
    return cost;
  }
};
}  // namespace detail

/// The options of the selector and of the mixer.
template <class T, class A>
struct SelectOptions {
  T selector = {};
  A mixer = {};
};

/// Learned selection: which rows are worth A's (an attention's) work. With the selector's scores f in [0, 1],
///
///     training:   y_i = f_i A(u)_i for every row, and the selector's penalty is added to the context's auxiliary loss;
///     inference:  y_i = f_i A(u)_i for the rows that the selector picks, 0 for the others.
///
/// A block's residual then leaves the other rows as they were. Keys are not reduced: a picked row sees them all.
/// In inference all rows of A are computed and those not picked are cleared; cost() counts the picked ones, as the textbook
/// does. Saves A(u) and f. Real scalars. Not a polynomial. State: A's. Parameters: the selector's (`selector.weight` [D, 1]) and
/// A's (`mixer...`). Errors: those of A. Source: Zoology (arXiv 2312.04927), section 5.
template <class T, class A>
struct Select {
  static_assert(Selector<T>, "coyote: the first argument of Select is a selector (selectors/selector.hpp says what one has)");
  using Parts = Types<A>;
  using Options = SelectOptions<typename T::Options, typename A::Options>;
  static constexpr bool is_causal = T::is_causal && A::is_causal, is_input_dependent = true,
                        state_is_bounded = A::state_is_bounded;
  static constexpr Degree degree = infinite_degree;
  static constexpr Index output_width(Index width) { return A::output_width(width); }
  static constexpr Cost cost(Dimensions dims, const Options& options, Index pairs) {
    const Index rows = T::rows(dims.length, options.selector);
    return T::cost(dims, options.selector) + detail::SelectedCost<A>::of(dims, options.mixer, rows, pairs);
  }
};

template <class T, class A, class Backend, class S>
requires is_real<S>
class Layer<Select<T, A>, Backend, S> {
  using Inner = Layer<A, Backend, S>;
  using Chooser = Picker<T, Backend, S>;

 public:
  struct Saved {
    Tensor<Backend, S> mixed, f;
    typename Inner::Saved mixer;
    typename Chooser::Saved selector;
  };
  using State = typename Inner::State;

  Layer(Dimensions dims, const typename Select<T, A>::Options& options, Path path)
      : path_(path),
        width_(dims.width),
        selector_(dims, options.selector, path / "selector"),
        mixer_(dims, options.mixer, path / "mixer") {
    require_dimensions(path, dims);
  }

  template <class V>
  void visit(V& v) {
    selector_.visit(v);
    mixer_.visit(v);
  }
  Index output_width() const { return mixer_.output_width(); }
  const Chooser& selector() const { return selector_; }
  Chooser& selector() { return selector_; }

  void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, width_, y, output_width());
    if (context.training()) {
      saved.f = context.template make<S>(u.rows, 1);
      saved.mixed = context.template make<S>(u.rows, output_width());
      selector_.score(context, batch, u, saved.f, saved.selector);
      mixer_.forward(context, batch, u, saved.mixed, saved.mixer);
      scale_rows<S>(context, saved.f, {}, saved.mixed, y);
      selector_.penalise(context, batch, saved.f);
    } else {
      const auto frame = context.frame();
      Tensor<Backend, S> f = context.template make<S>(u.rows, 1);
      Tensor<Backend, unsigned char> picked = context.template make<unsigned char>(u.rows, 1);
      selector_.score(context, batch, u, f, saved.selector);
      selector_.pick(context, batch, f, picked);
      mixer_.forward(context, batch, u, y, saved.mixer);
      scale_rows<S>(context, f, picked, y, y);
    }
  }
  void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write, Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> dmixed = context.template make<S>(dy.rows, output_width()), df = context.template make<S>(dy.rows, 1);
    scale_rows_backward<S>(context, saved.f, saved.mixed, dy, dmixed, df);
    selector_.penalise_backward(context, batch, saved.f, df);
    mixer_.backward(context, batch, dmixed, du, write, saved.mixer);
    selector_.backward(context, batch, df, du, write == Write::none ? write : Write::add, saved.selector);
  }

  /// The scores of all rows, [rows, 1]: what calibrate_threshold wants of held-out data.
  void scores(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> f) const {
    require_views(path_, batch.rows(), u, width_, f, 1);
    const auto frame = context.frame();
    Tensor<Backend, S> made = context.template make<S>(u.rows, 1);
    typename Chooser::Saved saved;
    selector_.score(context, batch, u, made, saved);
    copy<S>(context, made, f);
  }

  State make_state(StateBounds bounds) const { return mixer_.make_state(bounds); }
  void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    static_assert(T::is_causal, "coyote: this selector compares with later rows and has no step: use ThresholdRows");
    require_views(path_, u.rows, u, width_, y, output_width());
    const auto frame = context.frame();
    Tensor<Backend, S> made = context.template make<S>(u.rows, 1);
    Tensor<Backend, unsigned char> flags = context.template make<unsigned char>(u.rows, 1);
    const Rows<S> f = made;
    const Rows<unsigned char> picked = flags;
    typename Chooser::Saved saved;
    const Batch rows{.sequences = u.rows, .length = 1};
    selector_.score(context, rows, u, f, saved);
    selector_.pick(context, rows, f, picked);
    mixer_.step(context, state, at, u, y);  // keys and values of every row are remembered
    scale_rows<S>(context, f, picked, y, y);
  }

 private:
  Path path_;
  Index width_;
  Chooser selector_;
  Inner mixer_;
};

}  // namespace coyote::inline v0

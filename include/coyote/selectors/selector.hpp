// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/reference/activation.hpp"
#include "coyote/operations/reference/linear.hpp"
#include "coyote/operations/select.hpp"

namespace coyote::inline v0 {

/// A type that says which rows Select keeps. Like a mixer it holds no data; its members are
///
///     struct Options { ... };
///     static constexpr bool is_causal;                              // whether a row is kept depends on no later row
///     static constexpr Index rows(Index length, const Options&);    // rows of a sequence that are kept, about
///     static constexpr Cost cost(Dimensions, const Options&);       // of the scores
///
/// and its maker, Picker<Selector, Backend, Scalar>, is what the selector's owner specialises.
template <class T>
concept Selector = std::is_empty_v<T> && requires(Dimensions dims, const typename T::Options& options) {
  { T::is_causal } -> std::convertible_to<bool>;
  { T::rows(Index{}, options) } -> std::convertible_to<Index>;
  { T::cost(dims, options) } -> std::convertible_to<Cost>;
};

/// A selector made real, with its parameters. f is [rows, 1] without gaps: a score in [0, 1] for every row.
///
///     Picker(Dimensions, const Options&, Path);
///     struct Saved;
///     void visit(V&);
///     void score(Context&, const Batch&, Rows<const S> u, Rows<S> f, Saved&) const;
///     void backward(Context&, const Batch&, Rows<S> df, Rows<S> du, Write, Saved&) const;   // may change df
///     void penalise(Context&, const Batch&, Rows<const S> f) const;                         // adds to the auxiliary loss
///     void penalise_backward(Context&, const Batch&, Rows<const S> f, Rows<S> df) const;    // adds its gradient
///     void pick(Context&, const Batch&, Rows<const S> f, Rows<unsigned char> picked) const; // inference: 1 = kept
///
/// A causal selector picks the rows of a decoding step alike, as sequences of one row. A selector of sigmoid scores inherits all
/// but the last from SigmoidPicker.
template <class T, class Backend, class S>
class Picker;

/// How many rows of a sequence to keep: about its square root.
struct SquareRootRows {
  /// ceil(sqrt(length))
  COYOTE_HOST_DEVICE static constexpr Index chosen(Index length) {
    Index root = 0;
    while (root * root < length) ++root;
    return root;
  }
  COYOTE_HOST_DEVICE static double target(Index length) {
    using std::sqrt;
    return sqrt(static_cast<double>(length));
  }
};
/// How many rows of a sequence to keep: K, or all of fewer.
template <Index K>
struct FixedRows {
  static_assert(K >= 1, "coyote: FixedRows<K> keeps at least one row");
  COYOTE_HOST_DEVICE static constexpr Index chosen(Index length) { return K < length ? K : length; }
  COYOTE_HOST_DEVICE static double target(Index length) { return static_cast<double>(chosen(length)); }
};

/// What selectors with sigmoid scores have in common.
template <class Rule>
struct SigmoidSelector {
  struct Options {
    double penalty = 0.001;  ///< weight of the penalty for keeping too many rows
    Init weight = Init::normal(0.02);
    double threshold = 0.5;  ///< what a kept row's score reaches at least (ThresholdRows)
  };
  static constexpr Index rows(Index length, const Options&) { return Rule::chosen(length); }
  static constexpr Cost cost(Dimensions dims, const Options&) {
    return {.parameters = dims.width,
            .multiplications = dims.length * dims.width,
            .additions = dims.length * (dims.width - 1),
            .functions = dims.length};
  }
};

/// Scores f = sigmoid(u w) without bias, and the penalty lambda * max(0, mean f - k / n) of a sequence of n rows of which k
/// are wanted, averaged over the sequences of a batch. Parameter: weight [D, 1].
template <class Rule, class Backend, class S>
requires is_real<S>
class SigmoidPicker {
  using P = parameter_t<S>;

 public:
  struct Saved {
    Rows<const S> u;
    Tensor<Backend, S> score;
  };

  SigmoidPicker(Dimensions dims, const typename SigmoidSelector<Rule>::Options& options, Path path)
      : path_(path), penalty_(options.penalty), weight_(dims.width, 1, options.weight) {
    if (!(penalty_ >= 0)) throw Error(std::string(path.view()), "a penalty of at least 0", words(penalty_));
  }

  template <class V>
  void visit(V& v) {
    visit_parameter(v, path_ / "weight", weight_);
  }

  void score(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> f, Saved& saved) const {
    saved.u = u;
    saved.score = context.template make<S>(u.rows, 1);
    linear<S>(context, batch, u, weight_.view(), {}, saved.score);
    activate<S, functions::Sigmoid>(context, as_row(saved.score), as_row(f));
  }
  void backward(Context<Backend>& context, const Batch& batch, Rows<S> df, Rows<S> du, Write write, Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> made = context.template make<S>(df.rows, 1);
    const Rows<S> dscore = made;
    activate_backward<S, functions::Sigmoid>(context, as_row(saved.score), as_row(df), as_row(dscore), Write::overwrite);
    linear_backward<S>(context, batch, saved.u, weight_.view(), dscore, du, write, weight_.gradient, {});
  }

  void penalise(Context<Backend>& context, const Batch& batch, Rows<const S> f) const {
    add_penalty<S, Rule>(context, batch, penalty_, f);
  }
  void penalise_backward(Context<Backend>& context, const Batch& batch, Rows<const S> f, Rows<S> df) const {
    add_penalty_backward<S, Rule>(context, batch, penalty_, f, df);
  }

 private:
  /// One column without gaps, read as one row: kernels then work on whole registers.
  template <class T>
  static Rows<T> as_row(Rows<T> column) {
    return {column.data, 1, column.rows};
  }
  static Rows<const S> as_row(const Matrix<S>& column) { return as_row(column.view()); }

  Path path_;
  double penalty_;
  Parameter<P> weight_;
};

}  // namespace coyote::inline v0

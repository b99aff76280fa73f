// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/outputs.hpp"
#include "coyote/core/mixer.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// A type that says how the outputs of two branches become one: the `Join` of Combine<Join, A, B>. Its members are
///
///     static constexpr bool is_causal, is_input_dependent, state_is_bounded;
///     static constexpr Degree degree(Degree a, Degree b);
///     static constexpr Index output_width(Index a, Index b);       // 0: these widths do not fit together
///     static constexpr Cost cost(Dimensions, Index a, Index b);    // dims.width is that of the branches' common input
///
///     struct Options { ... };                                      // optional: Combine then has them as `join`
///
/// and its maker is Junction<Join, Backend, Scalar>:
///
///     Junction(Dimensions, Index a, Index b, [const Options&,] Path);
///     struct Saved;
///     struct State;
///     void visit(V&);
///     void forward(Context&, const Batch&, Rows<const S> a, Rows<const S> b, Rows<S> y, Saved&) const;
///     void backward(Context&, const Batch&, Rows<const S> a, Rows<const S> b, Rows<const S> dy, Rows<S> da, Rows<S> db,
///                   Saved&) const;
///     State make_state(StateBounds) const;
///     void step(Context&, State&, const Step&, Rows<const S> a, Rows<const S> b, Rows<S> y) const;
///
/// backward overwrites da and db.
template <class Join, class Backend, class S>
class Junction;

/// The options of both branches, and of the join if it has any.
template <class A, class B, class Join = void>
struct CombineOptions {
  A left = {};
  B right = {};
  Join join = {};
};
template <class A, class B>
struct CombineOptions<A, B, void> {
  A left = {};
  B right = {};
};

namespace detail {
template <class Join>
struct JoinOptions {
  using type = void;
};
template <class Join>
requires requires { typename Join::Options; }
struct JoinOptions<Join> {
  using type = typename Join::Options;
};
}  // namespace detail

/// y = Join(A(u), B(u)): two branches with the same input. Gate, Sum and the others are aliases of it.
/// Saves both branches' outputs. Errors: branches whose widths do not fit together.
template <class Join, class A, class B>
struct Combine {
  static_assert(detail::require_mixer<A>() && detail::require_mixer<B>());
  using Parts = Types<A, B>;
  using Options = CombineOptions<typename A::Options, typename B::Options, typename detail::JoinOptions<Join>::type>;
  static constexpr bool is_causal = Join::is_causal && A::is_causal && B::is_causal;
  static constexpr bool is_input_dependent = Join::is_input_dependent || A::is_input_dependent || B::is_input_dependent;
  static constexpr bool state_is_bounded = Join::state_is_bounded && A::state_is_bounded && B::state_is_bounded;
  static constexpr Degree degree = Join::degree(A::degree, B::degree);

  static constexpr Index output_width(Index width) { return Join::output_width(A::output_width(width), B::output_width(width)); }
  static constexpr Cost cost(Dimensions dims, const Options& options, Index pairs) {
    return A::cost(dims, options.left, pairs) + B::cost(dims, options.right, pairs) +
           Join::cost(dims, A::output_width(dims.width), B::output_width(dims.width));
  }
};

template <class Join, class A, class B, class Backend, class S>
class Layer<Combine<Join, A, B>, Backend, S> {
  using J = Junction<Join, Backend, S>;
  using Left = Layer<A, Backend, S>;
  using Right = Layer<B, Backend, S>;

 public:
  struct Saved {
    detail::OutputOf<Left, Backend, S> a;
    detail::OutputOf<Right, Backend, S> b;
    typename Left::Saved left;
    typename Right::Saved right;
    typename J::Saved join;
  };
  struct State {
    typename Left::State left;
    typename Right::State right;
    typename J::State join;
    constexpr StateSize size() const { return left.size() + right.size() + join.size(); }
  };

  constexpr Layer(Dimensions dims, const typename Combine<Join, A, B>::Options& options, Path path)
      : path_(path),
        left_(dims, options.left, path / "left"),
        right_(dims, options.right, path / "right"),
        output_width_(Join::output_width(left_.output_width(), right_.output_width())),
        join_(make_join(dims, left_, right_, options, path)) {
    if (output_width_ < 1) {
      throw Error(std::string(path.view()), "two branches whose widths fit together",
                  words(left_.output_width(), " and ", right_.output_width()));
    }
  }

  template <class V>
  constexpr void visit(V& v) {
    left_.visit(v);
    right_.visit(v);
    join_.visit(v);
  }
  constexpr Index output_width() const { return output_width_; }
  constexpr const Left& left() const { return left_; }
  constexpr const Right& right() const { return right_; }
  constexpr const J& join() const { return join_; }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, u.width, y, output_width_);  // who reads u knows how wide it should be
    saved.a = detail::output<Left, Backend, S>(left_, context, batch, u, saved.left);
    saved.b = detail::output<Right, Backend, S>(right_, context, batch, u, saved.right);
    join_.forward(context, batch, saved.a, saved.b, y, saved.join);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    auto da = detail::output_gradient<Left, Backend, S>(left_, context, dy.rows, du);
    auto db = detail::output_gradient<Right, Backend, S>(right_, context, dy.rows, du);
    join_.backward(context, batch, saved.a, saved.b, dy, da, db, saved.join);
    detail::input_gradient<Left, Backend, S>(left_, context, batch, da, du, write, saved.left);
    detail::input_gradient<Right, Backend, S>(right_, context, batch, db, du, write == Write::none ? write : Write::add,
                                              saved.right);
  }

  constexpr State make_state(StateBounds bounds) const {
    return {left_.make_state(bounds), right_.make_state(bounds), join_.make_state(bounds)};
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    const auto frame = context.frame();
    const auto a = detail::step_output<Left, Backend, S>(left_, context, state.left, at, u);
    const auto b = detail::step_output<Right, Backend, S>(right_, context, state.right, at, u);
    join_.step(context, state.join, at, a, b, y);
  }

 private:
  static constexpr J make_join(Dimensions dims, const Left& left, const Right& right,
                               const typename Combine<Join, A, B>::Options& options, const Path& path) {
    if constexpr (requires { options.join; }) {
      return J(dims, left.output_width(), right.output_width(), options.join, path);
    } else {
      return J(dims, left.output_width(), right.output_width(), path);
    }
  }

  Path path_;
  Left left_;
  Right right_;
  Index output_width_;
  J join_;
};

/// The parts of a Junction that has no parameters and no memory.
struct PlainJunction {
  using Saved = NothingSaved;
  using State = NoState;
  constexpr PlainJunction(Dimensions, Index, Index, Path) {}
  template <class V>
  constexpr void visit(V&) {}
  constexpr State make_state(StateBounds) const { return {}; }
};

/// What most joins are: no memory, no parameters, equal widths in and out.
struct ElementwiseJoin {
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Index output_width(Index a, Index b) { return a == b ? a : 0; }
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/combine.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/operations/norm.hpp"

namespace coyote::inline v0::internal {

/// M, a linear map, as number I of those of one input that are one product: its layer owns M's parameters by M's names, and its
/// output is columns of what that product made.
template <class M, Index I>
struct Projection : M {};

/// The linear maps with which a mixer begins, if it reads its input by nothing else and they are alike: `count` of the type `Map`
/// (0: there are none, or others). numbered<I> is the mixer with them as projections, numbered from I on.
template <class M>
struct Projections {
  static constexpr Index count = 0;
  using Map = void;
};
template <class Bias, class Ratio>
requires(Bias::rows(2) <= 1) struct Projections<LinearWith<Bias, Ratio>> {
  static constexpr Index count = 1, bias_rows = Bias::rows(1);
  using Map = LinearWith<Bias, Ratio>;
  template <Index I>
  using numbered = Projection<Map, I>;
};
template <class M, class... Ms>
requires(Projections<M>::count > 0) struct Projections<Chain<M, Ms...>> : Projections<M> {
  template <Index I>
  using numbered = Chain<typename Projections<M>::template numbered<I>, Ms...>;
};
template <class A, class B>
inline constexpr bool begin_alike =
    Projections<A>::count > 0 && std::same_as<typename Projections<A>::Map, typename Projections<B>::Map>;
template <class Join, class A, class B>
requires begin_alike<A, B>
struct Projections<Combine<Join, A, B>> : Projections<typename Projections<A>::Map> {
  static constexpr Index count = Projections<A>::count + Projections<B>::count;
  template <Index I>
  using numbered = Combine<Join, typename Projections<A>::template numbered<I>,
                           typename Projections<B>::template numbered<I + Projections<A>::count>>;
};

/// M whose linear maps of its input are one product: Tree is M with projections in their places, and reads what the product made.
/// Saves u and the product.
template <class M, class Tree>
struct Projected : M {};

/// The parameters that a product's projections share, side by side. As a visitor it leaves alone all others.
template <class P>
struct PackedProjections {
  Parameter<P> weight, bias;
  constexpr void operator()(const Path&, Parameter<P>&) const {}
};

/// Points the weight and the bias of number `number`, which it sees in this order, at their columns.
template <class P>
struct ProjectionSlices {
  const PackedProjections<P>& packed;
  Index number;
  bool weight_comes = true;
  constexpr void operator()(const Path&, Parameter<P>& p) {
    const Parameter<P> part = (weight_comes ? packed.weight : packed.bias).slice(number * p.columns, p.columns);
    p.value = part.value;
    p.gradient = part.gradient;
    weight_comes = false;
  }
};

}  // namespace coyote::inline v0::internal

namespace coyote::inline v0 {

template <class M, Index I, class Backend, class S>
class Layer<internal::Projection<M, I>, Backend, S> : Layer<M, Backend, S> {
  using Base = Layer<M, Backend, S>;
  using P = parameter_t<S>;

 public:
  using typename Base::Saved, typename Base::State;
  constexpr Layer(Dimensions dims, const typename M::Options& options, Path path) : Base(dims, options, path) {}

  template <class V>
  constexpr void visit(V& v) {
    if constexpr (std::same_as<V, internal::PackedProjections<P>>) {
      internal::ProjectionSlices<P> slices{v, I};
      Base::visit(slices);
    } else {
      if (!lays_out_memory<P>(v)) Base::visit(v);
    }
  }
  using Base::make_state, Base::output_width;
  template <class T>
  constexpr Rows<T> columns(Rows<T> product) const {
    return product.columns(I * output_width(), output_width());
  }
};

template <class M, class Tree, class Backend, class S>
class Layer<internal::Projected<M, Tree>, Backend, S> {
  using P = parameter_t<S>;
  using Inner = Layer<Tree, Backend, S>;
  using Which = internal::Projections<M>;

 public:
  struct Saved {
    Rows<const S> u;
    Tensor<Backend, S> product;
    typename Inner::Saved tree;
  };
  using State = typename Inner::State;

  constexpr Layer(Dimensions dims, const typename M::Options& options, Path path)
      : path_(path),
        tree_(dims, options, path),
        packed_{{dims.width, Which::count * Which::Map::output_width(dims.width), {}},
                {Which::bias_rows, Which::count * Which::Map::output_width(dims.width), {}, false}} {}

  template <class V>
  constexpr void visit(V& v) {
    if constexpr (!std::same_as<V, internal::PackedProjections<P>>) {  // which looks for those of another product
      if (lays_out_memory<P>(v)) {
        visit_parameter(v, path_ / "weight", packed_.weight);
        if (packed_.bias.rows > 0) visit_parameter(v, path_ / "bias", packed_.bias);
        tree_.visit(packed_);
      }
      tree_.visit(v);
    }
  }
  constexpr Index output_width() const { return tree_.output_width(); }

  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, packed_.weight.rows, y, output_width());
    saved.u = u;
    saved.product = context.template make<S>(u.rows, packed_.weight.columns);
    linear<S>(context, batch, u, packed_.weight.view(), packed_.bias.view(), saved.product);
    tree_.forward(context, batch, saved.product, y, saved.tree);
  }
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, S> dproduct = context.template make<S>(dy.rows, packed_.weight.columns);
    tree_.backward(context, batch, dy, dproduct, Write::overwrite, saved.tree);
    linear_backward<S>(context, batch, saved.u, packed_.weight.view(), dproduct, du, write, packed_.weight.gradient,
                       packed_.bias.gradient);
  }

  constexpr State make_state(StateBounds bounds) const { return tree_.make_state(bounds); }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    run_step(context, state, at, u, y, {});
  }
  /// Of the input normalised by a rule; `skip`, if it is there, is added.
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip,
                      const NormRule<P>& norm) const requires(steps_normalise<Backend, S>) {
    run_step(context, state, at, u, y, skip, norm);
  }

 private:
  /// `norm` is a rule for the input, or nothing.
  template <class... Rule>
  constexpr void run_step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y, Rows<const S> skip,
                          const Rule&... norm) const {
    require_views(path_, u.rows, u, packed_.weight.rows, y, output_width());
    const auto frame = context.frame();
    Tensor<Backend, S> product = context.template make<S>(u.rows, packed_.weight.columns);
    const Batch rows{.sequences = u.rows, .length = 1};
    if constexpr (sizeof...(Rule) > 0) {
      linear<S>(context, rows, u, packed_.weight.view(), packed_.bias.view(), product, {}, norm...);
    } else {
      linear<S>(context, rows, u, packed_.weight.view(), packed_.bias.view(), product);
    }
    tree_.step(context, state, at, product, y);
    if (skip.rows > 0) assign<S>(context, skip, y, Write::add);
  }

  Path path_;
  Inner tree_;
  internal::PackedProjections<P> packed_;
};

}  // namespace coyote::inline v0

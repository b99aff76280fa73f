// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/architectures/rwkv.hpp"

namespace coyote::inline v0::internal {

/// Part<I, N> where it lies (see detail::IsView).
template <Index I, Index N>
struct PartInPlace : Part<I, N> {};

/// GatedWkv whose parts are not copied and whose decoding step makes key, value, gate and the recurrence in one operation.
struct TimeMix : GatedWkv {};

using TimeMixTree = Gate<Chain<PartInPlace<2, 3>, LinearWith<NoBias>, Sigmoid>,
                         Wkv<Chain<PartInPlace<0, 3>, LinearWith<NoBias>>, Chain<PartInPlace<1, 3>, LinearWith<NoBias>>>>;

}  // namespace coyote::inline v0::internal

namespace coyote::inline v0 {

template <Index I, Index N, class Backend, class S>
class Layer<internal::PartInPlace<I, N>, Backend, S> : Layer<Part<I, N>, Backend, S> {
  using Base = Layer<Part<I, N>, Backend, S>;

 public:
  using Base::Base, Base::make_state, Base::output_width, Base::visit;
  using typename Base::Saved, typename Base::State;
  template <class T>
  constexpr Rows<T> columns(Rows<T> u) const {
    return u.columns(I * output_width(), output_width());
  }
};

template <class Backend, class S>
class Layer<internal::TimeMix, Backend, S> : public Layer<internal::TimeMixTree, Backend, S> {
  using Base = Layer<internal::TimeMixTree, Backend, S>;

 public:
  using typename Base::Saved, typename Base::State;

  Layer(Dimensions dims, const internal::TimeMix::Options& options, Path path)
      : Base(dims, options, path), path_(path), width_(dims.width) {}

  void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, width_, y, this->output_width());
    Base::forward(context, batch, u, y, saved);
  }
  /// Every part writes its own columns of du.
  void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write, Saved& saved) const {
    if (write == Write::overwrite) return Base::backward(context, batch, dy, du, write, saved);
    const auto frame = context.frame();
    Tensor<Backend, S> made = context.template make<S>(dy.rows, width_);
    Base::backward(context, batch, dy, made, Write::overwrite, saved);
    if (write == Write::add) assign<S>(context, made, du, write);
  }

  void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    const auto &gate = this->left().template part<1>(), &key = this->right().left().template part<1>(),
               &value = this->right().right().template part<1>();
    const auto& wkv = this->right().join();
    require_views(path_, state.right.join.sums.rows(), u, width_, y, this->output_width());
    if (!time_mix_step<S>(context, key.weight(), value.weight(), gate.weight(), state.right.join.sums.view(), wkv.decay(),
                          wkv.bonus(), u, y)) {
      Base::step(context, state, at, u, y);
    }
  }

 private:
  Path path_;
  Index width_;
};

}  // namespace coyote::inline v0

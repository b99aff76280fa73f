// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/architectures/rwkv.hpp"

namespace coyote::inline v0::internal {

/// GatedWkv whose decoding step makes key, value, gate and the recurrence in one operation.
struct TimeMix : GatedWkv {};

}  // namespace coyote::inline v0::internal

namespace coyote::inline v0 {

template <class Backend, class S>
class Layer<internal::TimeMix, Backend, S> : public Layer<internal::GatedWkv, Backend, S> {
  using Base = Layer<internal::GatedWkv, Backend, S>;

 public:
  using State = typename Base::State;

  Layer(Dimensions dims, const internal::TimeMix::Options& options, Path path) : Base(dims, options, path), path_(path) {}

  void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    const auto &gate = this->left().template part<1>(), &key = this->right().left().template part<1>(),
               &value = this->right().right().template part<1>();
    const auto& wkv = this->right().join();
    require_views(path_, state.right.join.sums.rows(), u, 3 * key.weight().rows, y, this->output_width());
    if (!time_mix_step<S>(context, key.weight(), value.weight(), gate.weight(), state.right.join.sums.view(), wkv.decay(),
                          wkv.bonus(), u, y)) {
      Base::step(context, state, at, u, y);
    }
  }

 private:
  Path path_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/mixer.hpp"
#include "coyote/operations/reference/dropout.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// In training every element is zeroed with probability `rate` and multiplied by 1 / (1 - rate) otherwise; in inference y = u.
/// The draws are named by the context's seed and step and by the layer's path. Saves the names of the draws alone.
/// Errors: a rate outside [0, 1); width mismatch.
struct Dropout {
  using Parts = Types<>;
  struct Options {
    double rate = 0.1;
  };
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr Degree degree = 1;
  static constexpr Index output_width(Index width) { return width; }
  static constexpr Cost cost(Dimensions, const Options&, Index) { return {}; }
};

template <class Backend, class S>
requires is_real<S>
class Layer<Dropout, Backend, S> {
 public:
  struct Saved {
    DropoutRule rule;
  };
  using State = NoState;

  Layer(Dimensions dims, const Dropout::Options& options, Path path) : path_(path), width_(dims.width), rate_(options.rate) {
    require_dimensions(path, dims);
    if (!(rate_ >= 0 && rate_ < 1)) throw Error(std::string(path.view()), "a dropout rate in [0, 1)", words(rate_));
  }

  template <class V>
  void visit(V&) {}
  Index output_width() const { return width_; }

  void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, width_, y, width_);
    saved.rule = rule(context);
    apply(context, saved.rule, u, y, Write::overwrite);
  }
  void backward(Context<Backend>& context, const Batch&, Rows<const S> dy, Rows<S> du, Write write, Saved& saved) const {
    apply(context, saved.rule, dy, du, write);
  }
  /// Which elements the context's present pass keeps.
  DropoutRule rule(const Context<Backend>& context) const {
    return {context.training() ? rate_ : 0.0, Stream(context.seed, Purpose::dropout, path_.hash(), context.step)};
  }
  State make_state(StateBounds) const { return {}; }
  void step(Context<Backend>& context, State&, const Step&, Rows<const S> u, Rows<S> y) const {
    require_views(path_, u.rows, u, width_, y, width_);
    copy<S>(context, u, y);
  }

 private:
  static void apply(Context<Backend>& context, const DropoutRule& rule, Rows<const S> x, Rows<S> y, Write write) {
    if (!rule.active()) return assign<S>(context, x, y, write);
    if (write != Write::none) drop<S>(context, rule, x, y, write);
  }

  Path path_;
  Index width_;
  double rate_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coyote/filters/filter.hpp"
#include "support/conformance.hpp"

namespace coyote::test {

/// The value of the parameter of that name.
template <class P, class L>
Rows<P> value_of(L& layer, std::string_view name) {
  for (const NamedParameter<P>& p : parameters_of<P>(layer)) {
    if (p.name == name) return p.value;
  }
  throw Error("value_of", "a parameter of the layer", std::string(name));
}

/// A filter's maker with parameters of its own, stirred as Bench does.
template <class F, class Backend, class S>
struct TapsBench {
  Taps<F, Backend, S> maker;
  ParameterStore<S> store;

  TapsBench(Index channels, Index length, const typename F::Options& options = {}, bool stirred = true)
      : maker(channels, length, options, Path("filter")) {
    store.bind(maker);
    store.enable_gradients(maker);
    initialise(maker, Seed{3});
    auto stir = [](const Path& path, auto& p) {
      const Stream draws(Seed{5}, Purpose::test, path.hash());
      for (Index r = 0; r < p.rows; ++r) {
        for (Index c = 0; c < p.columns; ++c) {
          p.value(r, c) += static_cast<S>(0.3 * draws.normal(static_cast<std::uint64_t>(r * p.columns + c)));
        }
      }
    };
    if (stirred) maker.visit(stir);
    width = channels;
  }
  Rows<S> value(std::string_view name) { return value_of<S>(maker, name); }
  /// The first n taps.
  Matrix<S> taps(Index n) {
    Context<Backend> context = ContextFor<Backend>::make(1);
    context.mode = Mode::training;
    Matrix<S> result(n, width);
    typename Taps<F, Backend, S>::Saved saved;
    detail::generate_taps(maker, context, result.view(), saved);
    return result;
  }
  /// The gradient of sum(weights * taps), by name.
  std::vector<NamedParameter<S>> gradients(Rows<const S> weights) {
    Context<Backend> context = ContextFor<Backend>::make(1);
    context.mode = Mode::training;
    Matrix<S> made(weights.rows, width);
    typename Taps<F, Backend, S>::Saved saved;
    detail::generate_taps(maker, context, made.view(), saved);
    store.zero_gradients();
    detail::backward_taps(maker, context, weights, saved);
    return parameters_of<S>(maker);
  }
  Index width = 0;
};

/// The negative controls of a comparison: zeros and a slightly wrong copy are told from `right`.
template <class M>
void check_controls(const M& right, double tolerance) {
  M zeros = right, slightly = right;
  for (auto& x : zeros) x = {};
  for (auto& x : slightly) x = x + x * static_cast<std::remove_reference_t<decltype(x)>>(20 * tolerance);
  CHECK_FALSE(relative_error(zeros, right) <= tolerance);
  CHECK_FALSE(relative_error(slightly, right) <= tolerance);
}

}  // namespace coyote::test

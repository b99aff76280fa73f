// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/parameters.hpp"
#include "coyote/lowering/rules.hpp"

namespace coyote::inline v0 {

/// The front door to a mixer: a layer with its parameters, initial values drawn from a seed, fused for the backend.
///
///     Model<Hybrid, Cpu, float> model({.width = 64, .length = 512}, Seed{1});
///     model.forward(context, batch, u, y);
///
/// Errors: a mixer without a layer on this backend does not compile, and the message names it; sizes that do not fit throw.
template <class M, class Backend, class S>
class Model : detail::RequireSupport<M, Backend, S> {
  static_assert(computes_in<Backend, S>, "coyote: Cpu computes in float or double; Reference takes any other ring");
  static_assert(Mixer<M>, "coyote: Model needs a mixer (core/mixer.hpp says what that is)");
  using Net = Layer<lowered<M, Backend>, Backend, S>;
  using P = parameter_t<S>;

 public:
  using Saved = typename Net::Saved;
  using State = typename Net::State;

  /// @param path  how the parameters' names begin; empty: as the mixer names them
  explicit Model(Dimensions dims, Seed seed = {}, const typename M::Options& options = {}, Path path = {})
      : Model(Blank{}, dims, options, path) {
    initialise(*this, seed);
  }
  /// A model whose parameters are all zero: for constructions, and for constant evaluation.
  static constexpr Model blank(Dimensions dims, const typename M::Options& options = {}, Path path = {}) {
    return Model(Blank{}, dims, options, path);
  }
  constexpr Model(Model&& other) noexcept : dims_(other.dims_), net_(std::move(other.net_)), store_(std::move(other.store_)) {
    store_.rebind(net_);
  }
  Model& operator=(Model&&) = delete;

  /// The width and the length that it was made for.
  constexpr Dimensions dimensions() const { return dims_; }
  constexpr Index output_width() const { return net_.output_width(); }
  constexpr ParameterStore<P, Backend>& parameters() { return store_; }
  /// Calls visitor(name, parameter) for every parameter, while the host can read and write it: on a device, in a copy that is
  /// written back.
  template <class V>
  constexpr void visit(V& visitor) {
    with_erased<P>(visitor, [this](ParameterVisitor<P>& erased) { store_.on_host(net_, [&] { net_.visit(erased); }); });
  }
  constexpr void enable_gradients() { store_.enable_gradients(net_); }

  /// y = mixer(u). In training mode `saved` keeps what backward needs, in the context's memory until the caller's frame
  /// (context.frame()) ends.
  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    batch.check("Model::forward");
    const Resident<Backend> here(context, batch);
    net_.forward(context, here, u, y, saved);
  }
  /// The same when no backward follows: nothing stays in the context's memory.
  constexpr void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y) const {
    const auto frame = context.frame();
    Saved saved;
    forward(context, batch, u, y, saved);
  }
  /// du (=|+=) gradient by u; gradients of parameters are added to.
  constexpr void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                          Saved& saved) const {
    const auto frame = context.frame();
    const Resident<Backend> here(context, batch);
    net_.backward(context, here, dy, du, write, saved);
  }

  constexpr State make_state(StateBounds bounds) const {
    static_assert(is_causal<M>, "coyote: this mixer reads later rows, so it cannot be decoded step by step");
    return net_.make_state(bounds);
  }
  constexpr void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    net_.step(context, state, at, u, y);
  }

 private:
  struct Blank {};
  constexpr Model(Blank, Dimensions dims, const typename M::Options& options, Path path)
      : dims_(dims), net_(dims, options, path) {
    store_.bind(net_);
  }

  Dimensions dims_;
  Net net_;
  ParameterStore<P, Backend> store_;
};

}  // namespace coyote::inline v0

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/core/cuda/resident.cuh"
#include "support/conformance.hpp"

namespace coyote::test {

template <>
struct Tolerance<bf16> {
  static constexpr double forward = 1e-2, gradient = 2e-2;
};

template <>
struct OnHost<bf16> {
  using type = float;
  static float round(double x) { return __bfloat162float(__float2bfloat16(static_cast<float>(x))); }
};

template <>
struct ContextFor<Cuda> {
  static Context<Cuda> make(Index) {
    Context<Cuda> context;
    context.poison(true);
    return context;
  }
};

/// A host's matrix on the device, in the type of activations; what nobody writes is NaN.
template <class S>
class DeviceMatrix {
 public:
  DeviceMatrix(Index rows, Index width) : rows_(rows), width_(width), array_(rows * width) {
    if (rows * width > 0) COYOTE_CUDA_CHECK(cudaMemset(array_.data(), 0xFF, array_.bytes()));
  }
  /// A copy of `from`, whose rows begin `before` elements into rows of `width` ones.
  explicit DeviceMatrix(Rows<const on_host_t<S>> from) : DeviceMatrix(from, from.width, 0) {}
  DeviceMatrix(Rows<const on_host_t<S>> from, Index width, Index before) : DeviceMatrix(from.rows, width) {
    std::vector<S> values(static_cast<std::size_t>(from.rows * width), cuda::from_float<S>(NAN));
    for (Index i = 0; i < from.rows; ++i) {
      for (Index c = 0; c < from.width; ++c) {
        values[static_cast<std::size_t>(i * width + before + c)] = cuda::from_float<S>(static_cast<float>(from(i, c)));
      }
    }
    array_.upload(values.data());
  }
  Rows<S> view() { return {array_.data(), rows_, width_}; }
  Rows<const S> view() const { return {array_.data(), rows_, width_}; }
  operator Rows<S>() { return view(); }
  operator Rows<const S>() const { return view(); }
  /// Waits for all work, and gives what it left.
  Matrix<on_host_t<S>> read() const {
    std::vector<S> values(static_cast<std::size_t>(rows_ * width_));
    array_.download(values.data());
    Matrix<on_host_t<S>> m(rows_, width_);
    for (Index i = 0; i < m.size(); ++i) {
      m.data()[i] = static_cast<on_host_t<S>>(cuda::to_float(values[static_cast<std::size_t>(i)]));
    }
    return m;
  }

 private:
  Index rows_, width_;
  cuda::DeviceArray<S> array_;
};

/// The same bench for a GPU: matrices come from the host and go back to it.
template <class M, class S>
struct Bench<M, Cuda, S> {
  using L = Layer<M, Cuda, S>;
  using H = on_host_t<S>;
  L layer;
  ParameterStore<parameter_t<S>, Cuda> store;
  Context<Cuda> context = ContextFor<Cuda>::make(1);

  Bench(Dimensions dims, const typename M::Options& options) : layer(dims, options, Path("test")) {
    draw_parameters(layer, store);
  }

  /// Views with a stride have one on the device too, and begin off its boundaries.
  struct Copy {
    Index before;
    DeviceMatrix<S> whole;
    Rows<const S> view;
    explicit Copy(Rows<const H> from)
        : before(from.stride > from.width ? 1 : 0),
          whole(from, from.stride, before),
          view(std::as_const(whole).view().columns(before, from.width)) {}
  };

  Results<S> run(const Batch& batch, Rows<const H> u, Rows<const H> weights, Index = 1, Mode mode = Mode::training) {
    context.mode = mode;
    const Index out = layer.output_width();
    const Copy x(u), dy(weights);
    DeviceMatrix<S> y(u.rows, out), du(u.rows, u.width);
    Results<S> r;
    typename L::Saved saved;
    const auto frame = context.frame();
    const Resident<Cuda> here(context, batch);
    layer.forward(context, here, x.view, y, saved);
    if (mode == Mode::training) {
      store.zero_gradients();
      layer.backward(context, here, dy.view, du, Write::overwrite, saved);
      r.gradients = gradients();
    }
    r.y = y.read();
    r.du = du.read();
    return r;
  }
  std::vector<double> gradients() const {
    std::vector<float> values(static_cast<std::size_t>(store.gradients().size()));
    store.gradients().download(values.data());
    return {values.begin(), values.end()};
  }
  Results<S> accumulate(const Batch& batch, Rows<const H> u, Rows<const H> weights) {
    context.mode = Mode::training;
    const Copy x(u), dy(weights);
    DeviceMatrix<S> y(u.rows, layer.output_width()), du(u.rows, u.width);
    typename L::Saved saved;
    store.zero_gradients();
    const auto frame = context.frame();
    const Resident<Cuda> here(context, batch);
    layer.forward(context, here, x.view, y, saved);
    layer.backward(context, here, dy.view, du, Write::overwrite, saved);
    layer.backward(context, here, dy.view, du, Write::add, saved);
    layer.backward(context, here, dy.view, {}, Write::none, saved);
    return {y.read(), du.read(), gradients()};
  }
  Matrix<H> decode(Index sequences, const std::vector<Token>& tokens, Rows<const H> x, Matrix<H>& again, StateSize& size) {
    context.mode = Mode::inference;
    const Index n = x.rows / sequences, out = layer.output_width();
    auto state = layer.make_state({.sequences = sequences, .capacity = n});
    size = state.size();
    const DeviceMatrix<S> u(x);
    DeviceMatrix<S> y(x.rows, out), other(x.rows, out);
    for (Index i = 0; i < n; ++i) {
      const std::span<const Token> now(tokens.data() + i * sequences, static_cast<std::size_t>(sequences));
      const Index at = i * sequences;
      const auto frame = context.frame();
      const ResidentStep<Cuda> here(context, {i, now});
      auto copied = state;
      layer.step(context, copied, here, u.view().slice(at, sequences), other.view().slice(at, sequences));
      layer.step(context, state, here, u.view().slice(at, sequences), y.view().slice(at, sequences));
      context.synchronise();  // the copy goes
    }
    again = other.read();
    return y.read();
  }
  bool refuses(const Batch& batch, Index rows, Index width, Index out_rows, Index out) {
    const DeviceMatrix<S> u(rows, width);
    DeviceMatrix<S> y(out_rows, out);
    typename L::Saved saved;
    const auto frame = context.frame();
    const Resident<Cuda> here(context, batch);
    return throws_error([&] { layer.forward(context, here, u, y, saved); });
  }
};

struct OnCuda {
  std::vector<Index> widths = {3, 1, 40};  ///< promises are checked at the first, numbers at all
  double slack = 1, bf16_slack = 1;        ///< factors of the tolerances of numbers
  Token vocabulary = 5;
  double scale = 1;    ///< of the inputs of promises and numbers
  double large = 1e4;  ///< inputs that still give finite results
};

/// Inputs far outside of what one trains on give finite outputs and gradients.
template <class M, class S>
void stays_finite(Index width, double scale, const typename M::Options& options) {
  const Packed packed({33, 1, 7});
  const Batch batch = packed.view();
  Bench<M, Cuda, S> bench({width, batch.length}, options);
  const auto u = random_matrix<S>(batch.rows(), width, 1, scale), dy = random_matrix<S>(batch.rows(), M::output_width(width), 2);
  const Results<S> r = bench.run(batch, u, dy.view());
  const Expect expect{words("inputs of ", scale)};
  const auto finite = [](const auto& values) {
    return std::all_of(values.begin(), values.end(), [](auto x) { return std::isfinite(static_cast<double>(x)); });
  };
  expect.holds("finite outputs", finite(r.y));
  expect.holds("finite gradients by the input", finite(r.du));
  expect.holds("finite gradients of parameters", finite(r.gradients));
}

/// What a mixer owes on Cuda, in float and bf16: every mixer's promises on short sequences, the definition's numbers (in double)
/// on lengths 1, 7 and 65, and finite ones for large and tiny inputs.
template <class M>
void holds_on_cuda(const OnCuda& o = {}, const typename M::Options& options = {}) {
  const auto in = [&]<class S>(std::type_identity<S>, double slack) {
    conforms<M, Cuda, S>({.width = o.widths.front(), .scale = o.scale, .vocabulary = o.vocabulary}, options);
    for (const Index width : o.widths) {
      agrees_with_reference<M, S, Cuda>({.width = width, .lengths = {1, 7, 65}, .scale = o.scale, .vocabulary = o.vocabulary},
                                        options, slack);
      for (const double scale : {o.large, 1e-30}) stays_finite<M, S>(width, scale, options);
    }
  };
  in(std::type_identity<float>{}, o.slack);
  in(std::type_identity<bf16>{}, o.bf16_slack);
}

}  // namespace coyote::test

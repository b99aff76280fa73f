// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "coyote/core/mixer.hpp"

namespace coyote::test {

/// Tolerances per scalar, relative to the size of what is compared.
template <class S>
struct Tolerance;
template <>
struct Tolerance<float> {
  static constexpr double forward = 2e-5, gradient = 2e-4;
};
template <>
struct Tolerance<double> {
  static constexpr double forward = 1e-12, gradient = 2e-6;
};

/// ||a - b|| / ||b||, with the size of b no smaller than `least`. NaN stays NaN, so `<=` fails.
template <class A, class B>
double relative_error(const A& a, const B& b, double least = 1e-6) {
  double error = 0, size = 0;
  auto x = a.begin();
  for (auto y = b.begin(); y != b.end(); ++x, ++y) {
    error += std::pow(static_cast<double>(*x) - static_cast<double>(*y), 2);
    size += std::pow(static_cast<double>(*y), 2);
  }
  return std::sqrt(error) / std::max(std::sqrt(size), least);
}

/// Sequences of given lengths, one after another, with random tokens below `vocabulary`.
struct Packed {
  std::vector<Index> offsets{0};
  std::vector<Token> tokens;

  explicit Packed(const std::vector<Index>& lengths, Token vocabulary = 5) {
    for (const Index n : lengths) offsets.push_back(offsets.back() + n);
    const Stream draws(Seed{11}, Purpose::test, 77);
    for (Index i = 0; i < offsets.back(); ++i) {
      tokens.push_back(static_cast<Token>(draws.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(vocabulary))));
    }
  }
  Batch view() const {
    Index longest = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) longest = std::max(longest, offsets[s + 1] - offsets[s]);
    return {.sequences = static_cast<Index>(offsets.size()) - 1, .length = longest, .offsets = offsets, .tokens = tokens};
  }
  /// Sequence s by itself; it begins with row offsets[s] of the packed batch.
  Batch alone(Index s) const {
    const Batch all = view();
    return {.sequences = 1, .length = all.size(s), .tokens = all.tokens_of(s)};
  }
};

template <class Backend>
struct ContextFor {
  static Context<Backend> make(Index threads) {
    if constexpr (std::is_constructible_v<Context<Backend>, Index>) {
      Context<Backend> context(threads);
      context.poison(true);
      return context;
    } else {
      return {};
    }
  }
};

/// What the host holds activations of type S in, and how it rounds a number to one: itself, unless S is a device's own type.
template <class S>
struct OnHost {
  using type = S;
  static S round(double x) { return static_cast<S>(x); }
};
template <class S>
using on_host_t = typename OnHost<S>::type;

template <class S>
Matrix<on_host_t<S>> random_matrix(Index rows, Index width, std::uint64_t name, double scale = 1) {
  Matrix<on_host_t<S>> m(rows, width);
  const Stream draws(Seed{7}, Purpose::test, name);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = OnHost<S>::round(scale * draws.normal(static_cast<std::uint64_t>(i)));
  return m;
}

template <class S>
struct Results {
  Matrix<on_host_t<S>> y, du;
  std::vector<double> gradients;
};

/// Checks with a place and a purpose. Not templates and not macros at the place of use: each doctest macro costs much compile
/// time, and every mixer on every backend passes all of these.
struct Expect {
  std::string place;

  void at_most(const char* what, double error, double tolerance) const {
    INFO(place, ": ", std::string(what));
    CHECK(error <= tolerance);
  }
  /// For negative controls: NaN passes.
  void above(const char* what, double error, double tolerance) const {
    INFO(place, ": ", std::string(what));
    CHECK_FALSE(error <= tolerance);
  }
  void equal(const char* what, Index a, Index b) const {
    INFO(place, ": ", std::string(what));
    CHECK(a == b);
  }
  void holds(const char* what, bool condition) const {
    INFO(place, ": ", std::string(what));
    CHECK(condition);
  }
};

template <class F>
bool throws_error(F&& f) {
  try {
    f();
  } catch (const Error&) {
    return true;
  }
  return false;
}

/// Parameters drawn from N(0, 0.3^2) around their initial values, so that biases and skips matter too.
template <class L, class Store>
void draw_parameters(L& layer, Store& store) {
  store.bind(layer);
  store.enable_gradients(layer);
  store.on_host(layer, [&] {
    initialise(layer, Seed{3});
    auto stir = [](const Path& path, auto& p) {
      const Stream draws(Seed{5}, Purpose::test, path.hash());
      using P = std::remove_reference_t<decltype(p.value(0, 0))>;
      for (Index r = 0; r < p.rows; ++r) {
        for (Index c = 0; c < p.columns; ++c) {
          p.value(r, c) += static_cast<P>(0.3 * draws.normal(static_cast<std::uint64_t>(r * p.columns + c)));
        }
      }
    };
    layer.visit(stir);
  });
}

/// A layer and what the checks below do with it. All matrices are the host's; support/cuda.cuh has the same for a device.
template <class M, class Backend, class S>
struct Bench {
  using L = Layer<M, Backend, S>;
  L layer;
  ParameterStore<parameter_t<S>> store;

  Bench(Dimensions dims, const typename M::Options& options) : layer(dims, options, Path("test")) {
    draw_parameters(layer, store);
  }

  // One place each where a layer is called, so that its code is compiled once.
  [[gnu::noinline]] void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y,
                                 typename L::Saved& saved) const {
    layer.forward(context, batch, u, y, saved);
  }
  [[gnu::noinline]] void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write,
                                  typename L::Saved& saved) const {
    layer.backward(context, batch, dy, du, write, saved);
  }
  template <class State>
  [[gnu::noinline]] void step(Context<Backend>& context, State& state, const Step& at, Rows<const S> u, Rows<S> y) const {
    layer.step(context, state, at, u, y);
  }

  /// Forward and backward of a loss sum(weights * y), with unwritten memory full of NaN.
  Results<S> run(const Batch& batch, Rows<const S> u, Rows<const S> weights, Index threads = 1, Mode mode = Mode::training) {
    Context<Backend> context = ContextFor<Backend>::make(threads);
    context.mode = mode;
    const Index out = layer.output_width();
    Results<S> r{Matrix<S>(u.rows, out), Matrix<S>(u.rows, u.width), {}};
    for (S& x : r.y) x = static_cast<S>(NAN);
    for (S& x : r.du) x = static_cast<S>(NAN);
    typename L::Saved saved;
    forward(context, batch, u, r.y, saved);
    if (mode == Mode::training) {
      store.zero_gradients();
      backward(context, batch, weights, r.du, Write::overwrite, saved);
      r.gradients = gradients();
    }
    return r;
  }
  std::vector<double> gradients() const { return {store.gradients().begin(), store.gradients().end()}; }
  /// du overwritten, then added to; gradients of parameters from three backward passes, the last of which wants no du.
  Results<S> accumulate(const Batch& batch, Rows<const S> u, Rows<const S> weights) {
    Context<Backend> context = ContextFor<Backend>::make(1);
    context.mode = Mode::training;
    typename L::Saved saved;
    Results<S> r{Matrix<S>(u.rows, layer.output_width()), Matrix<S>(u.rows, u.width), {}};
    store.zero_gradients();
    forward(context, batch, u, r.y, saved);
    backward(context, batch, weights, r.du, Write::overwrite, saved);
    backward(context, batch, weights, r.du, Write::add, saved);
    backward(context, batch, weights, {}, Write::none, saved);
    r.gradients = gradients();
    return r;
  }
  /// Decodes x [n * sequences, width], row t of every sequence at a time; `again` has what a copy of the state made of it.
  Matrix<S> decode(Index sequences, const std::vector<Token>& tokens, Rows<const S> x, Matrix<S>& again, StateSize& size) {
    Context<Backend> context = ContextFor<Backend>::make(1);
    const Index n = x.rows / sequences, out = layer.output_width();
    auto state = layer.make_state({.sequences = sequences, .capacity = n});
    size = state.size();
    Matrix<S> y(x.rows, out);
    again = Matrix<S>(x.rows, out);
    for (Index i = 0; i < n; ++i) {
      const std::span<const Token> now(tokens.data() + i * sequences, static_cast<std::size_t>(sequences));
      auto copied = state;
      step(context, copied, {i, now}, x.slice(i * sequences, sequences), again.view().slice(i * sequences, sequences));
      step(context, state, {i, now}, x.slice(i * sequences, sequences), y.view().slice(i * sequences, sequences));
    }
    return y;
  }
  /// Does a forward pass with an input and an output of these shapes throw?
  bool refuses(const Batch& batch, Index rows, Index width, Index out_rows, Index out) {
    Context<Backend> context = ContextFor<Backend>::make(1);
    typename L::Saved saved;
    Matrix<S> u(rows, width), y(out_rows, out);
    return throws_error([&] { forward(context, batch, u, y, saved); });
  }
  /// sum(weights * y) in inference.
  double loss(const Batch& batch, Rows<const S> u, const Matrix<S>& weights) {
    const Matrix<S> y = run(batch, u, weights.view(), 1, Mode::inference).y;
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += static_cast<double>(y.data()[i]) * static_cast<double>(weights.data()[i]);
    return sum;
  }
};

struct ConformanceOptions {
  Index width = 6;
  std::vector<Index> lengths = {5, 1, 2, 7, 3};
  double scale = 1;       ///< of the inputs
  bool gradients = true;  ///< false for mixers whose gradient leaves something out by definition (checked elsewhere)
  Token vocabulary = 5;
};

/// What every mixer owes on every backend and scalar: gradients that agree with finite differences, du by each Write,
/// accumulation into parameter gradients, causality, forward = stepped (also from a copied state), packed = separate,
/// views with a stride, inference = training without dropout, one result for any number of threads, every output written,
/// state and parameters as large as its cost says, errors for wrong shapes.
template <class M, class Backend, class S>
void conforms(const ConformanceOptions& o = {}, const typename M::Options& options = {}) {
  using Tol = Tolerance<S>;
  using H = on_host_t<S>;
  const Expect expect{words("width ", o.width)};
  const Packed packed(o.lengths, o.vocabulary);
  const Batch batch = packed.view();
  const Index rows = batch.rows();
  Bench<M, Backend, S> bench({o.width, batch.length}, options);
  const Index out = bench.layer.output_width();
  expect.equal("output width as the type says", out, M::output_width(o.width));
  const Matrix<H> u = random_matrix<S>(rows, o.width, 1, o.scale), weights = random_matrix<S>(rows, out, 2);
  const Results<S> base = bench.run(batch, u, weights.view());
  const Results<S> inference = bench.run(batch, u, weights.view(), 1, Mode::inference);
  expect.at_most("inference = training", relative_error(inference.y, base.y), Tol::forward);

  {  // Negative control: the comparison rejects zeros, slight errors and NaN.
    Matrix<H> zeros(rows, out), slightly = base.y, nan = base.y;
    for (H& x : slightly) x += static_cast<H>(100 * Tol::forward * (1 + std::abs(static_cast<double>(x))));
    nan.data()[0] = static_cast<H>(NAN);
    expect.above("zeros are rejected", relative_error(zeros, base.y), Tol::gradient);
    expect.above("slight errors are rejected", relative_error(slightly, base.y), Tol::forward);
    expect.above("NaN is rejected", relative_error(nan, base.y), 1);
  }

  if constexpr (std::same_as<S, double>) {  // Gradients agree with finite differences.
    const double h = 1e-5;
    const auto slope = [&](S& x, Rows<const S> in) {
      const S value = x;
      x = value + h;
      const double above = bench.loss(batch, in, weights);
      x = value - h;
      const double below = bench.loss(batch, in, weights);
      x = value;
      return (above - below) / (2 * h);
    };
    if (o.gradients) {
      Matrix<S> moved = u, numeric(rows, o.width);
      for (Index i = 0; i < u.size(); ++i) numeric.data()[i] = slope(moved.data()[i], std::as_const(moved).view());
      expect.at_most("gradient by the input", relative_error(base.du, numeric), Tol::gradient);
      expect.above("a gradient of zero is rejected", relative_error(Matrix<S>(rows, o.width), numeric), Tol::gradient);
      auto& values = bench.store.values();
      std::vector<double> differences(static_cast<std::size_t>(values.size()), 0.0);
      for (const Segment& segment : bench.store.segments()) {
        for (Index i = segment.begin; i < segment.begin + segment.size; ++i) {
          differences[static_cast<std::size_t>(i)] = slope(values[i], u);
        }
      }
      expect.at_most("gradients of parameters", relative_error(base.gradients, differences), Tol::gradient);
    }
  }

  {  // du is overwritten, added to or left out; parameter gradients accumulate.
    const Results<S> all = bench.accumulate(batch, u, weights.view());
    Matrix<H> twice = base.du;
    for (H& x : twice) x += x;
    expect.at_most("du is added to", relative_error(all.du, twice), Tol::forward);
    std::vector<double> thrice;
    for (const double g : base.gradients) thrice.push_back(3 * g);
    expect.at_most("parameter gradients accumulate", relative_error(all.gradients, thrice), 10 * Tol::forward);
  }

  for (Index s = 0; s < batch.sequences; ++s) {  // Packed sequences do not see each other.
    const Rows<const H> own = u.view().slice(batch.begin(s), batch.size(s));
    const Results<S> alone = bench.run(packed.alone(s), own, weights.view().slice(batch.begin(s), batch.size(s)));
    Matrix<H> expected_y(batch.size(s), out), expected_du(batch.size(s), o.width);
    for (Index i = 0; i < batch.size(s); ++i) {
      for (Index c = 0; c < out; ++c) expected_y(i, c) = base.y(batch.begin(s) + i, c);
      for (Index c = 0; c < o.width; ++c) expected_du(i, c) = base.du(batch.begin(s) + i, c);
    }
    expect.at_most("packed = separate", relative_error(alone.y, expected_y), Tol::forward);
    expect.at_most("packed = separate, backward", relative_error(alone.du, expected_du), 10 * Tol::forward);
  }

  {  // Causal: nothing before a changed row changes.
    const Index n = batch.length;
    Index longest = 0;
    while (batch.size(longest) != n) ++longest;
    const Batch one = packed.alone(longest);
    const Matrix<H> x = random_matrix<S>(n, o.width, 4, o.scale), w = random_matrix<S>(n, out, 5);
    const Matrix<H> before = bench.run(one, x, w.view(), 1, Mode::inference).y;
    bool later_reaches_back = false, anything_moves = false;
    for (Index t = 0; t < n; ++t) {
      Matrix<H> changed = x;
      for (Index c = 0; c < o.width; ++c) changed(t, c) += static_cast<H>(1 + c);
      const Matrix<H> after = bench.run(one, changed, w.view(), 1, Mode::inference).y;
      for (Index i = 0; i < n; ++i) {
        for (Index c = 0; c < out; ++c) {
          const bool differs = std::abs(static_cast<double>(after(i, c) - before(i, c))) > 1e-4;
          if (i < t && differs) later_reaches_back = true;
          if (i >= t && differs) anything_moves = true;
        }
      }
    }
    expect.holds("a changed row changes something", anything_moves);
    if (M::is_causal) expect.holds("nothing before a changed row changes", !later_reaches_back);
  }

  if constexpr (M::is_causal) {  // Stepping = forward, also from a copied state, several sequences side by side.
    const Index n = batch.length, sequences = 3;
    const Packed even(std::vector<Index>(static_cast<std::size_t>(sequences), n), o.vocabulary);
    const Batch uniform{.sequences = sequences, .length = n, .tokens = even.tokens};
    const Matrix<H> x = random_matrix<S>(sequences * n, o.width, 6, o.scale), w = random_matrix<S>(sequences * n, out, 7);
    const Matrix<H> forward = bench.run(uniform, x, w.view(), 1, Mode::inference).y;
    // Decoding goes by rows of all sequences.
    Matrix<H> turned(sequences * n, o.width), expected(sequences * n, out), again;
    std::vector<Token> tokens(static_cast<std::size_t>(sequences * n));
    for (Index i = 0; i < n; ++i) {
      for (Index s = 0; s < sequences; ++s) {
        const Index from = s * n + i, to = i * sequences + s;
        tokens[static_cast<std::size_t>(to)] = even.tokens[static_cast<std::size_t>(from)];
        for (Index k = 0; k < o.width; ++k) turned(to, k) = x(from, k);
        for (Index k = 0; k < out; ++k) expected(to, k) = forward(from, k);
      }
    }
    StateSize size;
    const Matrix<H> y = bench.decode(sequences, tokens, std::as_const(turned).view(), again, size);
    const Cost c = M::cost({o.width, n}, options, -1);
    expect.equal("state scalars", size.scalars, c.state_scalars);
    expect.equal("state integers", size.integers, c.state_integers);
    expect.at_most("a copied state goes on alike", relative_error(again, y), 0);
    expect.at_most("stepped = forward", relative_error(y, expected), 10 * Tol::forward);
  }

  {  // Views with a stride; any number of threads gives the same bits.
    Matrix<H> wide(rows, o.width + 3), wide_weights(rows, out + 5);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < o.width; ++c) wide(i, c + 2) = u(i, c);
      for (Index c = 0; c < out; ++c) wide_weights(i, c + 1) = weights(i, c);
    }
    const Results<S> strided =
        bench.run(batch, wide.view().columns(2, o.width), Rows<const H>(wide_weights.view().columns(1, out)));
    expect.at_most("strided views", relative_error(strided.y, base.y), Tol::forward);
    expect.at_most("strided views, backward", relative_error(strided.du, base.du), 10 * Tol::forward);
    for (const Index threads : {1, 2, 3}) {
      const Results<S> same = bench.run(batch, u, weights.view(), threads);
      expect.at_most("same bits for any number of threads", relative_error(same.y, base.y), 0);
      expect.at_most("same bits of du for any number of threads", relative_error(same.du, base.du), 0);
      expect.at_most("same bits of gradients for any number of threads", relative_error(same.gradients, base.gradients), 0);
    }
  }

  {  // Lengths of one and parameters counted; wrong shapes are refused.
    expect.equal("parameters counted", count_parameters(bench.layer), M::cost({o.width, batch.length}, options, -1).parameters);
    const Packed single({1}, o.vocabulary);
    const Matrix<H> x = random_matrix<S>(1, o.width, 8, o.scale), w = random_matrix<S>(1, out, 9);
    for (const H value : bench.run(single.view(), x, w.view()).y) {
      expect.holds("a sequence of one row", std::isfinite(static_cast<double>(value)));
    }
    expect.holds("a narrow input is refused", bench.refuses(batch, rows, o.width - 1, rows, out));
    expect.holds("a short output is refused", bench.refuses(batch, rows, o.width, rows - 1, out));
    expect.holds("a width of 0 is refused", throws_error([&] { Layer<M, Backend, S>({0, 4}, options, Path("zero")); }));
  }
}

/// A fast backend against the definition: output, gradient by the input and gradients of all parameters, in one packed batch
/// with unwritten memory full of NaN.
template <class M, class S, class Backend = Cpu>
void agrees_with_reference(const ConformanceOptions& o = {}, const typename M::Options& options = {}, double slack = 1) {
  using Tol = Tolerance<S>;
  using H = on_host_t<S>;
  const Packed packed(o.lengths, o.vocabulary);
  const Batch batch = packed.view();
  Bench<M, Backend, S> fast({o.width, batch.length}, options);
  Bench<M, Reference, double> plain({o.width, batch.length}, options);
  // The same numbers in both: what a narrower scalar rounds away is not there to begin with.
  {
    HostCopy<Buffer<Backend, parameter_t<S>>> values(fast.store.values());
    for (Index i = 0; i < plain.store.values().size(); ++i) plain.store.values()[i] = static_cast<double>(values.data()[i]);
  }
  const Index rows = batch.rows(), out = M::output_width(o.width);
  const Matrix<H> u = random_matrix<S>(rows, o.width, 1, o.scale), weights = random_matrix<S>(rows, out, 2);
  Matrix<double> wide_u(rows, o.width), wide_weights(rows, out);
  for (Index i = 0; i < u.size(); ++i) wide_u.data()[i] = static_cast<double>(u.data()[i]);
  for (Index i = 0; i < weights.size(); ++i) wide_weights.data()[i] = static_cast<double>(weights.data()[i]);
  const Results<double> expected = plain.run(batch, wide_u, std::as_const(wide_weights).view());
  const Expect expect{words("width ", o.width, ", longest ", batch.length)};
  const Results<S> three = fast.run(batch, u, weights.view(), 3);
  for (const Index threads : {1, 2}) {
    const Results<S> r = fast.run(batch, u, weights.view(), threads);
    expect.at_most("same bits for any number of threads", relative_error(r.y, three.y), 0);
    expect.at_most("same bits of du for any number of threads", relative_error(r.du, three.du), 0);
    expect.at_most("same bits of gradients for any number of threads", relative_error(r.gradients, three.gradients), 0);
    expect.at_most("fast = definition", relative_error(r.y, expected.y), slack * Tol::forward);
    expect.at_most("fast du = definition", relative_error(r.du, expected.du), slack * 10 * Tol::forward);
    expect.at_most("fast gradients = definition", relative_error(r.gradients, expected.gradients), slack * 10 * Tol::forward);
  }
  Matrix<double> wrong = expected.y;
  for (double& x : wrong) x *= 1 + 100 * slack * Tol::forward;
  expect.above("slight errors are rejected", relative_error(wrong, expected.y), slack * Tol::forward);
  expect.above("zeros are rejected", relative_error(Matrix<double>(rows, out), expected.y), slack * Tol::forward);
}

}  // namespace coyote::test

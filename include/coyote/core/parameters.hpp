// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coyote/core/path.hpp"
#include "coyote/core/random.hpp"
#include "coyote/core/rows.hpp"
#include "coyote/core/scalar.hpp"

namespace coyote::inline v0 {

/// How a parameter gets its first values. Draws are keyed by the parameter's name and the element's place in it.
struct Init {
  enum class Kind { constant, normal, uniform, formula };
  /// Element (row, column) of a [rows, columns] parameter, from up to four numbers of the layer's and a stream of draws.
  using Formula = double (*)(Index row, Index column, Index rows, Index columns, const double (&numbers)[4], const Stream& draws);

  Kind kind = Kind::constant;
  double numbers[4] = {0, 0, 0, 0};
  Formula formula = nullptr;

  static constexpr Init constant(double value) { return {Kind::constant, {value}, nullptr}; }
  /// Normal with mean 0.
  static constexpr Init normal(double deviation) { return {Kind::normal, {deviation}, nullptr}; }
  /// Uniform in (-bound, bound).
  static constexpr Init uniform(double bound) { return {Kind::uniform, {bound}, nullptr}; }
  static constexpr Init from(Formula formula, double a = 0, double b = 0, double c = 0, double d = 0) {
    return {Kind::formula, {a, b, c, d}, formula};
  }

  double value(Index row, Index column, Index rows, Index columns, const Stream& draws) const {
    const auto index = static_cast<std::uint64_t>(row * columns + column);
    switch (kind) {
      case Kind::normal:
        return numbers[0] * draws.normal(index);
      case Kind::uniform:
        return numbers[0] * (2 * draws.uniform(index) - 1);
      case Kind::formula:
        return formula(row, column, rows, columns, numbers, draws);
      case Kind::constant:
        break;
    }
    return numbers[0];
  }
};

/// A trainable matrix [rows, columns] of a layer: views into the owner's flat buffers of values and gradients.
/// `gradient` has no data while nothing trains it; layers then leave it alone.
template <class P>
struct Parameter {
  Index rows = 0, columns = 0;
  Init init = {};
  bool decays = true;  ///< weight decay applies, unless the optimiser decays everything or nothing
  Rows<P> value = {}, gradient = {};

  constexpr Parameter() = default;
  constexpr Parameter(Index rows_, Index columns_, Init init_, bool decays_ = true)
      : rows(rows_), columns(columns_), init(init_), decays(decays_) {}

  constexpr Rows<const P> view() const { return value; }
  constexpr Index size() const { return rows * columns; }
  constexpr bool trains() const { return gradient.data != nullptr; }
  /// The part of columns first .. first + count - 1, as a parameter with views of its own.
  constexpr Parameter slice(Index first, Index count) const {
    Parameter part(rows, count, init, decays);
    if (value.data != nullptr) part.value = value.columns(first, count);
    if (gradient.data != nullptr) part.gradient = gradient.columns(first, count);
    return part;
  }
};

/// Shows a visitor one parameter by the name `path`. A layer's `visit(v)` calls this for each of its own parameters, in
/// a fixed order, and then `visit(v)` of its parts.
template <class V, class P>
constexpr void visit_parameter(V& visitor, const Path& path, Parameter<P>& parameter) {
  visitor(path, parameter);
}

/// Any visitor of parameters behind one type: a model's layers compile their `visit` once, not for every visitor.
template <class P>
class ParameterVisitor {
 public:
  ParameterVisitor(const ParameterVisitor&) = delete;
  constexpr virtual void operator()(const Path& path, Parameter<P>& parameter) = 0;

  /// Does it lay out memory, so that it sees packed matrices whole?
  const bool lays_out_memory;

 protected:
  explicit constexpr ParameterVisitor(bool lays_out) : lays_out_memory(lays_out) {}
  constexpr ~ParameterVisitor() = default;
};

namespace detail {
template <class V>
concept LaysOutMemory = requires {
  typename V::lays_out;
};

template <class P, class V>
class ErasedVisitor final : public ParameterVisitor<P> {
 public:
  explicit constexpr ErasedVisitor(V& visitor) : ParameterVisitor<P>(LaysOutMemory<V>), visitor_(visitor) {}
  constexpr void operator()(const Path& path, Parameter<P>& parameter) override { visitor_(path, parameter); }

 private:
  V& visitor_;
};
}  // namespace detail

/// Calls show(visitor as a ParameterVisitor<P>).
template <class P, class V, class Show>
constexpr void with_erased(V& visitor, Show&& show) {
  if constexpr (std::is_same_v<V, ParameterVisitor<P>>) {
    show(visitor);
  } else {
    detail::ErasedVisitor<P, V> erased(visitor);
    show(static_cast<ParameterVisitor<P>&>(erased));
  }
}

/// Does a visitor lay out memory, so that it sees packed matrices whole? Everybody else sees the parts, each under its own name.
template <class P, class V>
constexpr bool lays_out_memory(const V& visitor) {
  if constexpr (std::is_same_v<V, ParameterVisitor<P>>) {
    return visitor.lays_out_memory;
  } else {
    return detail::LaysOutMemory<V>;
  }
}

/// Shows a visitor matrices that lie side by side in one: whoever lays out memory sees one parameter, everybody else sees
/// the parts, each under its own name: checkpoints and initial values do not know that a product packs them.
template <class V, class P, std::size_t N>
constexpr void visit_packed(V& visitor, const Path& path, Parameter<P>& packed, const std::string_view (&names)[N]) {
  if (lays_out_memory<P>(visitor)) return visitor(path, packed);
  const Index width = packed.columns / static_cast<Index>(N);
  for (std::size_t n = 0; n < N; ++n) {
    Parameter<P> part = packed.slice(static_cast<Index>(n) * width, width);
    visitor(path / names[n], part);
  }
}

/// A run of a flat buffer that holds one parameter (or one packed group).
struct Segment {
  Index begin = 0, size = 0;
  bool decays = true;
};

namespace detail {
template <class Backend, class T>
struct BufferOf {
  using type = Array<T>;
};
}  // namespace detail

/// A flat array of a backend, zero when made: the host's memory, or a device's (core/cuda/memory.cuh).
template <class Backend, class T>
using Buffer = typename detail::BufferOf<Backend, T>::type;

/// A buffer's elements where the host can read and write them: the elements themselves, or a copy that is written back.
template <class T>
class HostCopy;

template <class T>
class HostCopy<Array<T>> {
 public:
  constexpr explicit HostCopy(Array<T>& buffer) : data_(buffer.data()) {}
  constexpr T* data() const { return data_; }
  constexpr void write_back() {}

 private:
  T* data_;
};

/// Owns a layer's parameters: one flat buffer of values and, when it trains, one of gradients. Every parameter begins on
/// a multiple of 16 elements; the padding stays zero.
template <class P, class Backend = void>
class ParameterStore {
 public:
  constexpr ParameterStore() = default;
  constexpr ParameterStore(ParameterStore&&) noexcept = default;
  constexpr ParameterStore& operator=(ParameterStore&&) noexcept = default;
  ParameterStore(const ParameterStore&) = delete;

  /// Lays out and binds all parameters that `layer.visit` shows. Values start at zero.
  template <class L>
  constexpr void bind(L& layer) {
    Layout layout{segments_};
    with_erased<P>(layout, [&](auto& visitor) { layer.visit(visitor); });
    values_ = Buffer<Backend, P>(layout.size);
    rebind(layer);
  }
  /// Allocates the gradient buffer (zeros) and binds it: the layer trains from now on.
  template <class L>
  constexpr void enable_gradients(L& layer) {
    if (gradients_.size() == values_.size()) return;
    gradients_ = Buffer<Backend, P>(values_.size());
    rebind(layer);
  }
  /// Points the parameters of `layer` (built alike) at this store.
  template <class L>
  constexpr void rebind(L& layer) {
    point(layer, values_.data(), gradients_.size() == 0 ? nullptr : gradients_.data());
  }
  /// Calls work() while the parameters of `layer`, which is bound to this store, are where the host can read and write them.
  template <class L, class Work>
  constexpr void on_host(L& layer, Work&& work) {
    HostCopy<Buffer<Backend, P>> values(values_), gradients(gradients_);
    point(layer, values.data(), gradients_.size() == 0 ? nullptr : gradients.data());
    const Rebound<L> rebound{*this, layer};
    work();
    values.write_back();
    gradients.write_back();
  }
  constexpr void zero_gradients() {
    HostCopy<Buffer<Backend, P>> gradients(gradients_);
    for (Index i = 0; i < gradients_.size(); ++i) gradients.data()[i] = P{};
    gradients.write_back();
  }

  constexpr Buffer<Backend, P>& values() { return values_; }
  constexpr const Buffer<Backend, P>& values() const { return values_; }
  constexpr Buffer<Backend, P>& gradients() { return gradients_; }
  constexpr const Buffer<Backend, P>& gradients() const { return gradients_; }
  constexpr const List<Segment>& segments() const { return segments_; }

 private:
  /// Elements to a multiple of which every parameter is padded: 64 bytes of float, 128 of double.
  static constexpr Index alignment = 16;

  struct Layout {
    using lays_out = void;
    List<Segment>& segments;
    Index size = 0;
    constexpr void operator()(const Path&, Parameter<P>& p) {
      segments.emplace(Segment{size, p.size(), p.decays});
      size += round_up(p.size(), alignment);
    }
  };
  struct Bind {
    using lays_out = void;
    P* values;
    P* gradients;
    Index at = 0;
    constexpr void operator()(const Path&, Parameter<P>& p) {
      p.value = {values + at, p.rows, p.columns};
      p.gradient = gradients == nullptr ? Rows<P>() : Rows<P>(gradients + at, p.rows, p.columns);
      at += round_up(p.size(), alignment);
    }
  };
  /// Points a layer back at its store, also when work on the host's copies fails.
  template <class L>
  struct Rebound {
    ParameterStore& store;
    L& layer;
    constexpr ~Rebound() { store.rebind(layer); }
  };
  template <class L>
  static constexpr void point(L& layer, P* values, P* gradients) {
    Bind bind{values, gradients};
    with_erased<P>(bind, [&](auto& visitor) { layer.visit(visitor); });
  }

  Buffer<Backend, P> values_, gradients_;
  List<Segment> segments_;
};

/// What a model makes before a pass, for backends whose products read parameters in the type S of activations.
template <class S, class Backend>
class RoundedParameters {
 public:
  template <class C, class Store>
  constexpr RoundedParameters(C&, const Store&) {}
  constexpr ~RoundedParameters() {}
};

/// While it lives, backends that make a parameter's gradient from partial sums may let these wait; `finish` adds them up.
template <class Backend>
class GatheredSums {
 public:
  template <class C>
  constexpr explicit GatheredSums(C&) {}
  constexpr ~GatheredSums() {}
  constexpr void finish() {}
};

/// Gives every parameter of `layer` its initial value. Made on the host in double, then rounded: the same numbers on
/// every backend and for every scalar. The parameters are where the host can write them (see ParameterStore::on_host).
template <class L>
void initialise(L& layer, Seed seed) {
  auto set = [seed](const Path& path, auto& p) {
    using P = std::remove_cvref_t<decltype(p.value(0, 0))>;
    const Stream draws(seed, Purpose::initial_value, path.hash());
    for (Index r = 0; r < p.rows; ++r) {
      for (Index c = 0; c < p.columns; ++c) p.value(r, c) = static_cast<P>(p.init.value(r, c, p.rows, p.columns, draws));
    }
  };
  layer.visit(set);
}

/// A parameter as the outside sees it.
template <class P>
struct NamedParameter {
  std::string name;
  Rows<P> value, gradient;
};

/// All parameters of a layer by name, in the layer's order.
template <class P, class L>
std::vector<NamedParameter<P>> parameters_of(L& layer) {
  std::vector<NamedParameter<P>> result;
  auto collect = [&result](const Path& path, Parameter<P>& p) {
    result.push_back({std::string(path.view()), p.value, p.gradient});
  };
  layer.visit(collect);
  return result;
}

/// The number of trainable scalars of a layer.
template <class L>
constexpr Index count_parameters(L& layer) {
  Index count = 0;
  auto add = [&count](const Path&, auto& p) { count += p.size(); };
  layer.visit(add);
  return count;
}

}  // namespace coyote::inline v0

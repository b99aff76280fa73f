// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "coyote/operations/activation.hpp"
#include "coyote/operations/cpu/math.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {
namespace cpu::inline COYOTE_ISA {

/// What pointwise functions are written over, a register at a time.
template <class S>
struct VectorMath {
  using Value = Vec<S>;
  static Value constant(double value) { return broadcast<S>(static_cast<S>(value)); }
  static Value sigmoid(Value x) { return vector_sigmoid<S>(x); }
};

/// Calls f(first column, count) for the registers of a row; count is a register's lanes except in the last one.
template <class S, class F>
inline void for_each_register(Index width, F&& f) {
  Index c = 0;
  for (; c + lanes<S> <= width; c += lanes<S>) f(c, lanes<S>);
  if (c < width) f(c, width - c);
}

/// As load_part and store_part, at full speed for whole registers.
template <class S>
inline Vec<S> load_some(const S* from, Index count) {
  return count == lanes<S> ? load(from) : load_part(from, count);
}
template <class S>
inline void store_some(S* to, Vec<S> v, Index count) {
  if (count == lanes<S>) {
    store(to, v);
  } else {
    store_part(to, v, count);
  }
}
/// What write_to is for numbers.
template <class S>
inline void write_some(S* to, Vec<S> v, Index count, Write write) {
  if (write == Write::add) v += load_some(static_cast<const S*>(to), count);
  if (write != Write::none) store_some(to, v, count);
}

}  // namespace cpu::inline COYOTE_ISA

/// y = f(x), elementwise
template <class S, class Function>
void activate(Context<Cpu>& context, Rows<const S> x, Rows<S> y) {
  using Math = cpu::VectorMath<S>;
  context.for_rows(x.rows, 4 * x.width, [&](Index i) {
    cpu::for_each_register<S>(x.width, [from = x.row(i), to = y.row(i)](Index c, Index count) {
      cpu::store_some<S>(to + c, Function::template value<Math>(cpu::load_some<S>(from + c, count)), count);
    });
  });
}

/// dx (=|+=) dy * f'(x)
template <class S, class Function>
void activate_backward(Context<Cpu>& context, Rows<const S> x, Rows<const S> dy, Rows<S> dx, Write write) {
  using Math = cpu::VectorMath<S>;
  if (write == Write::none) return;
  context.for_rows(x.rows, 6 * x.width, [&](Index i) {
    cpu::for_each_register<S>(x.width, [from = x.row(i), gradient = dy.row(i), to = dx.row(i), write](Index c, Index count) {
      const auto slope = Function::template derivative<Math>(cpu::load_some<S>(from + c, count));
      cpu::write_some<S>(to + c, cpu::load_some<S>(gradient + c, count) * slope, count, write);
    });
  });
}

}  // namespace coyote::inline v0

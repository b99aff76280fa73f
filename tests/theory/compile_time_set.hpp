// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/theory/bounds.hpp"
#include "coyote/theory/compile.hpp"
#include "coyote/theory/mqar.hpp"
#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/primitives.hpp"
#include "coyote/theory/rational.hpp"
#include "coyote/theory/routing.hpp"
#include "coyote/theory/rwkv.hpp"
#include "coyote/theory/simulate.hpp"
#include "support/mixer_loops.hpp"

/// Theorems that the compiler checks: small cases, with numbers worked out by hand or by plain loops, and beside each a wrong
/// expectation that it must refuse. g++, clang and nvcc compile this within their default limits;
/// COYOTE_WITHOUT_ASSERTIONS leaves all but the includes out, to measure what it costs.
#ifndef COYOTE_WITHOUT_ASSERTIONS
namespace coyote::test::compile_time {

template <Ring S>
constexpr Matrix<S> filled(Index rows, Index width, std::initializer_list<long> values) {
  Matrix<S> m(rows, width);
  Index at = 0;
  for (const long value : values) m.data()[at++] = S(value);
  return m;
}

// ---- the golden layer: [[1, 2], [3, 4], [5, 6]] through one dense layer, on every exact scalar ------------------------------

template <Ring S>
constexpr bool golden(Wrap wrap, std::initializer_list<long> expected) {
  const Matrix<S> w = filled<S>(2, 2, {1, 2, 3, 5}), b1 = filled<S>(3, 2, {0, 1, 1, 0, 2, 2}),
                  k = filled<S>(3, 2, {1, 2, 3, 0, 0, 7}), b2 = filled<S>(3, 2, {0, 0, 1, 0, 0, 1});
  Program<S> layer;
  for (Index c = 0; c < 2; ++c) {
    Form<S> form;
    Impulses<S> taps;
    for (Index a = 0; a < 2; ++a) form.add(a, w(a, c));
    for (Index t = 0; t < 3; ++t) taps.add(t, k(t, c));
    layer.gate(c, form, Profile<S>::of(3, [&](Index i) { return b1(i, c); }), taps,
               Profile<S>::of(3, [&](Index i) { return b2(i, c); }));
  }
  Stack<S> stack(3, 2, wrap);
  stack.then(layer);
  return equal(stack.run(filled<S>(3, 2, {1, 2, 3, 4, 5, 6})), filled<S>(3, 2, expected));
}
template <Ring S>
constexpr bool golden() {
  return golden<S>(Wrap::causal, {7, 52, 112, 208, 350, 1134}) && golden<S>(Wrap::cyclic, {112, 416, 112, 1300, 350, 1134}) &&
         !golden<S>(Wrap::cyclic, {7, 52, 112, 208, 350, 1134}) && !golden<S>(Wrap::causal, {7, 52, 112, 208, 350, 1135});
}
static_assert(golden<int>() && golden<long>() && golden<Field>() && golden<Rational>());

// ---- recall ------------------------------------------------------------------------------------------------------------

template <Ring S>
constexpr bool recalls(const Construction<S>& construction, std::initializer_list<Token> answers) {
  const Token keys[] = {1, 0, -1}, values[] = {1, 0, 1}, queries[] = {1, 1, 0};
  const Token all_keys[] = {1, 0, 0};  // codes of bits have no key that is none; the third row's key comes too late to matter
  const Array<Token> came = construction.solve({construction.key.code == Code::one_hot ? keys : all_keys, values, queries});
  Index at = 0;
  bool same = true;
  for (const Token answer : answers) same = same && came[at++] == answer;
  return same;
}
constexpr bool table_works() {  // M0: 3 rows, 2 keys, 1 bit
  const auto m0 = table<long>(3, 2, 1);
  const StackSize size = m0.stack.size();
  return size.layers == 4 && size.gate_layers == 2 && size.width == 7 && recalls(m0, {0, 1, 0}) && !recalls(m0, {1, 1, 0});
}
static_assert(table_works());

template <Ring S>
constexpr bool unfold_works() {  // M1: 3 rows, keys of 1 bit, 1 bit
  const auto m1 = lag_unfold<S>(3, 1, 1);
  const StackSize size = m1.stack.size();
  return size.layers == 5 && size.gate_layers == 2 && size.width == 7 && recalls(m1, {0, 1, 0}) && !recalls(m1, {0, 1, 1});
}
static_assert(unfold_works<Field>() && unfold_works<long>());

// ---- primitives, routing, circuits ------------------------------------------------------------------------------------

constexpr bool equality_works() {  // XNOR - 1/2 over the field
  Stack<Field> stack(4, 2);
  const Field half = Field(2).inverse();
  primitives::equality_minus_half(stack, 0, 1, half);
  const Matrix<Field> y = stack.run(filled<Field>(4, 2, {0, 0, 0, 1, 1, 0, 1, 1}));
  return stack.size().layers == 1 && y(0, 1) + half == Field(1) && y(1, 1) + half == Field(0) && y(2, 1) + half == Field(0) &&
         y(3, 1) + half == Field(1) && !(y(3, 1) == Field(1));
}
static_assert(equality_works());

constexpr bool product_tree_works() {
  Stack<long> stack(1, 4);
  const Index at = primitives::product_tree(stack, {0, 1, 2, 3});
  const Matrix<long> y = stack.run(filled<long>(1, 4, {2, 3, 4, 5}));
  return stack.size().layers == 2 && y(0, at) == 120 && y(0, at == 0 ? 1 : 0) != 120;
}
static_assert(product_tree_works());

constexpr bool benes_works() {  // four rows
  const Index source[] = {2, 0, 3, 1};
  const auto routed = permute_rows<long>(source);
  const Matrix<long> y = routed.stack.run(filled<long>(4, 1, {10, 11, 12, 13}));
  const bool moved = y(0, 0) == 12 && y(1, 0) == 10 && y(2, 0) == 13 && y(3, 0) == 11;
  return routed.stack.size().layers == 7 && routed.stack.width() == 3 && moved && y(0, 0) != 10;
}
static_assert(benes_works());

constexpr bool circuit_works() {  // (x + 2)(x - y) and its square, by compiler A
  Circuit<long> c;
  const auto x = c.input(0), y = c.input(1), z = (x + 2) * (x - y);
  c.output(z);
  c.output(z * z);
  const auto compiled = compile_channels(c);
  const auto out = compiled.run(filled<long>(1, 2, {5, 3}));
  return compiled.stack.size().layers == 5 && out[0] == 14 && out[1] == 196 && out[1] != 195;
}
static_assert(circuit_works());

// ---- simulations in the field, against recurrences -----------------------------------------------------------------------

constexpr bool h3_works() {  // d = 2, N = 4, one head of two channels
  Numbers draws{5};
  const H3Case<Field> h3 = draw_h3<Field>(draws, 4, 2, 2, 1);
  const Matrix<Field> u = draws.matrix<Field>(4, 2);
  const Simulation<Field> simulation = simulate_h3(h3.weights);
  const StackSize size = simulation.stack.size();
  Matrix<Field> wanted = h3_recurrence(h3.weights, h3.modes, u);
  const bool same = equal(simulation.run(u), wanted);
  wanted(3, 1) += Field(1);
  return size.layers == 4 && size.gate_layers == 2 && size.width == 6 && same && !equal(simulation.run(u), wanted);
}
static_assert(h3_works());

constexpr bool hyena_public_works() {
  Numbers draws{12};
  const auto w = draw_hyena_public<Field>(draws, 2, 4, 2, 3);
  const Matrix<Field> u = draws.matrix<Field>(4, 2), wanted = hyena_public(w, u);
  const auto wide = simulate_hyena_public(w, 4);
  return wide.stack.size().layers == 5 && wide.stack.width() == 6 && equal(wide.run(u), wanted) && !equal(u, wanted);
}
static_assert(hyena_public_works());

constexpr bool retention_works() {
  Numbers draws{13};
  const Matrix<Field> gamma = filled<Field>(1, 1, {7});
  const auto w = draw_linear_attention<Field>(draws, 1, 4, 2, 1, 2, 2, gamma);
  const Matrix<Field> u = draws.matrix<Field>(4, 2);
  const auto made = simulate_linear_attention(w);
  return made.stack.size().layers == 4 && made.stack.width() == 4 && equal(made.run(u), linear_attention(w, gamma, false, u)) &&
         !equal(made.run(u), linear_attention(w, filled<Field>(1, 1, {6}), false, u));
}
static_assert(retention_works());

constexpr bool inverse_works() {  // in the field of seven elements
  Stack<PrimeField<7>> stack(1, 2);
  approximations::inverse(stack, 0, 1);
  bool right = stack.size().layers == 1 + 3;  // 7 - 2 = 101 in bits
  for (int a = 0; a < 7; ++a) {
    Matrix<PrimeField<7>> u(1, 1);
    u(0, 0) = a;
    const PrimeField<7> y = stack.run(u)(0, 1);
    right = right && (a == 0 ? y == PrimeField<7>(0) : y * PrimeField<7>(a) == PrimeField<7>(1));
  }
  return right;
}
static_assert(inverse_works());

static_assert(recall_degree(13) == 27 && required_gate_layers(13) == 5 && required_gate_layers(1) == 2);

}  // namespace coyote::test::compile_time
#endif

// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/combinators/outer.hpp"

#include "coyote/combinators/contract.hpp"
#include "coyote/combinators/gate.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cpu/operations.hpp"
#include "support/conformance.hpp"
#include "support/taps.hpp"

using namespace coyote;
using namespace coyote::test;

namespace {

/// The outputs of both branches, and of their join, of a model whose branches are linear.
template <class M>
struct Joined {
  Matrix<long> a, b, y;

  constexpr explicit Joined(Index width, Index rows) {
    auto model = Model<M, Reference, long>::blank({width, rows});
    Matrix<long> weights[2], u(rows, width);
    Index seen = 0;
    auto set = [&](const Path&, auto& p) {
      weights[seen] = Matrix<long>(p.rows, p.columns);
      for (Index i = 0; i < p.rows; ++i) {
        for (Index c = 0; c < p.columns; ++c) {
          p.value(i, c) = static_cast<long>((3 * i + 5 * c + 7 * seen) % 11) - 5;
          weights[seen](i, c) = p.value(i, c);
        }
      }
      ++seen;
    };
    model.visit(set);
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < width; ++c) u(i, c) = static_cast<long>((i * i + 2 * c) % 7) - 3;
    }
    y = Matrix<long>(rows, model.output_width());
    Context<Reference> context;
    model.forward(context, Batch{.sequences = 1, .length = rows}, u, y);
    a = product(u, weights[0]);
    b = product(u, weights[1]);
  }
  static constexpr Matrix<long> product(const Matrix<long>& u, const Matrix<long>& w) {
    Matrix<long> y(u.rows(), w.width());
    for (Index i = 0; i < u.rows(); ++i) {
      for (Index c = 0; c < w.width(); ++c) {
        for (Index k = 0; k < u.width(); ++k) y(i, c) += u(i, k) * w(k, c);
      }
    }
    return y;
  }
};

template <int Times>
using Wide = Widen<Times, NoBias>;

/// y[g,i,j] = a[g,i] b[g,j]
template <Index E, Index F, int A, int B>
constexpr bool outer_is_its_formula(Index heads) {
  const Joined<Combine<OuterProduct<E, F>, Wide<A>, Wide<B>>> joined(heads * E / A, 3);
  bool equal = joined.y.width() == heads * E * F;
  for (Index r = 0; r < 3; ++r) {
    for (Index g = 0; g < heads; ++g) {
      for (Index i = 0; i < E; ++i) {
        for (Index j = 0; j < F; ++j) {
          equal = equal && joined.y(r, (g * E + i) * F + j) == joined.a(r, g * E + i) * joined.b(r, g * F + j);
        }
      }
    }
  }
  return equal;
}
static_assert(outer_is_its_formula<2, 2, 1, 1>(3) && outer_is_its_formula<1, 1, 1, 1>(4) && outer_is_its_formula<1, 2, 1, 2>(2));
static_assert(outer_is_its_formula<2, 1, 2, 1>(2) && outer_is_its_formula<4, 4, 1, 1>(1));

/// y[g,j] = sum_i a[g,i] b[g,i,j]
template <Index E, Index F, int B>
constexpr bool contraction_is_its_formula(Index heads) {
  const Joined<Combine<Contraction<E, F>, Wide<1>, Wide<B>>> joined(heads * E, 3);
  bool equal = joined.y.width() == heads * F, nonzero = false;
  for (Index r = 0; r < 3; ++r) {
    for (Index g = 0; g < heads; ++g) {
      for (Index j = 0; j < F; ++j) {
        long sum = 0;
        for (Index i = 0; i < E; ++i) sum += joined.a(r, g * E + i) * joined.b(r, (g * E + i) * F + j);
        equal = equal && joined.y(r, g * F + j) == sum;
        nonzero = nonzero || sum != 0;
      }
    }
  }
  return equal && nonzero;
}
static_assert(contraction_is_its_formula<2, 2, 2>(3) && contraction_is_its_formula<1, 1, 1>(4));
static_assert(contraction_is_its_formula<2, 3, 3>(2) && contraction_is_its_formula<3, 1, 1>(2));

}  // namespace

TEST_CASE_TEMPLATE("heads of one channel are a gate", M, Outer<1, Linear, Linear>, Contract<1, Linear, Linear>) {
  Model<M, Cpu, float> model({5, 4}, Seed{1});
  Model<Gate<Linear, Linear>, Cpu, float> gate({5, 4}, Seed{1});
  const Matrix<float> u = random_matrix<float>(4, 5, 1, 30);
  Matrix<float> y(4, 5), expected(4, 5);
  Context<Cpu> context(1);
  model.forward(context, Batch{.sequences = 1, .length = 4}, u, y);
  gate.forward(context, Batch{.sequences = 1, .length = 4}, u, expected);
  CHECK(relative_error(y, expected) <= 0);
  check_controls(expected, 1e-6);
}

TEST_CASE("outer products and contractions do what a mixer owes") {
  conforms<Outer<2, Linear, Linear>, Cpu, double>({.width = 4});
  conforms<Combine<OuterProduct<2, 4>, Linear, Widen<2>>, Reference, double>({.width = 4});
  conforms<Contract<2, Linear, Widen<2>>, Cpu, double>({.width = 4});
  conforms<Combine<Contraction<2, 4>, Linear, Widen<4>>, Reference, double>({.width = 4});
}

TEST_CASE("widths that do not fit together are refused") {
  CHECK_THROWS_AS((Model<Outer<2, Linear, Linear>, Cpu, float>({5, 4})), Error);
  CHECK_THROWS_AS((Model<Outer<2, Linear, Widen<2>>, Cpu, float>({4, 4})), Error);
  CHECK_THROWS_AS((Model<Contract<2, Linear, Linear>, Cpu, float>({4, 4})), Error);
  CHECK_THROWS_AS((Model<Contract<3, Linear, Widen<3>>, Cpu, float>({4, 4})), Error);
}

TEST_CASE("facts: degrees add, cost as stated") {
  static_assert(degree<Outer<2, Linear, Gate<Linear, Linear>>> == 3);
  static_assert(is_causal<Contract<2, Linear, Widen<2>>> && !is_input_dependent<Contract<2, Linear, Widen<2>>>);
  static_assert(OuterProduct<2>::cost({4, 9}, 4, 4) == Cost{.multiplications = 9 * 4 * 2});
  static_assert(Contraction<2>::cost({4, 9}, 4, 8) == Cost{.multiplications = 9 * 4 * 2, .additions = 9 * 4 * 1});
}

// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/parameters.hpp"

#include <doctest/doctest.h>

namespace cy = coyote;

namespace {

/// Something with parameters: q, k and v side by side in one matrix, and a bias.
template <class P>
struct Toy {
  cy::Path path = "toy";
  cy::Parameter<P> packed{3, 6, cy::Init::normal(2)};
  cy::Parameter<P> bias{1, 5, cy::Init::constant(1), false};

  template <class V>
  constexpr void visit(V& v) {
    cy::visit_packed(v, path, packed, {"q", "k", "v"});
    cy::visit_parameter(v, path / "bias", bias);
  }
};

/// The same parameters, not packed.
struct Apart {
  cy::Parameter<float> q{3, 2, cy::Init::normal(2)}, k = q, v = q;

  template <class V>
  void visit(V& visitor) {
    cy::visit_parameter(visitor, cy::Path("toy") / "q", q);
    cy::visit_parameter(visitor, cy::Path("toy") / "k", k);
    cy::visit_parameter(visitor, cy::Path("toy") / "v", v);
  }
};

constexpr bool works_in_constant_evaluation() {
  Toy<long> toy;
  cy::ParameterStore<long> store;
  store.bind(toy);
  store.enable_gradients(toy);
  toy.bias.value(0, 4) = 3;
  toy.packed.gradient(0, 0) = 5;
  store.zero_gradients();
  return cy::count_parameters(toy) == 23 && store.values()[32 + 4] == 3 && toy.packed.gradient(0, 0) == 0;
}
static_assert(works_in_constant_evaluation());

}  // namespace

TEST_CASE("each parameter begins on a multiple of 16 elements of one buffer") {
  Toy<float> toy;
  cy::ParameterStore<float> store;
  store.bind(toy);
  REQUIRE(store.segments().size() == 2);
  CHECK(store.segments()[0].begin == 0);
  CHECK(store.segments()[0].size == 18);
  CHECK(store.segments()[0].decays);
  CHECK(store.segments()[1].begin == 32);  // 18, rounded up to a multiple of 16
  CHECK(store.segments()[1].size == 5);
  CHECK(!store.segments()[1].decays);
  CHECK(store.values().size() == 48);
  CHECK(toy.bias.value.data == store.values().data() + 32);
  CHECK(!toy.bias.trains());
  store.enable_gradients(toy);
  CHECK(toy.bias.trains());
  CHECK(toy.bias.gradient.data == store.gradients().data() + 32);
  CHECK(cy::count_parameters(toy) == 23);
}

TEST_CASE("packed parameters are seen one by one, under names of their own") {
  Toy<float> toy;
  cy::ParameterStore<float> store;
  store.bind(toy);
  store.enable_gradients(toy);
  const auto parameters = cy::parameters_of<float>(toy);
  REQUIRE(parameters.size() == 4);
  const char* names[] = {"toy.q", "toy.k", "toy.v", "toy.bias"};
  for (std::size_t i = 0; i < 4; ++i) CHECK(parameters[i].name == names[i]);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(parameters[i].value.rows == 3);
    CHECK(parameters[i].value.width == 2);
    CHECK(parameters[i].value.stride == 6);
    CHECK(parameters[i].value.data == toy.packed.value.data + 2 * i);
    CHECK(parameters[i].gradient.data == toy.packed.gradient.data + 2 * i);
  }
}

TEST_CASE("initial values depend on the seed and the name, not on packing or neighbours") {
  Toy<float> toy;
  Apart apart;
  cy::ParameterStore<float> store, other;
  store.bind(toy);
  other.bind(apart);
  cy::initialise(toy, cy::Seed{3});
  cy::initialise(apart, cy::Seed{3});
  const cy::Rows<float> parts[] = {apart.q.value, apart.k.value, apart.v.value};
  bool differ = false;
  for (cy::Index r = 0; r < 3; ++r) {
    for (cy::Index c = 0; c < 6; ++c) {
      CHECK(toy.packed.value(r, c) == parts[c / 2](r, c % 2));
      CHECK(toy.packed.value(r, c) != 0);
    }
    differ = differ || apart.q.value(r, 0) != apart.k.value(r, 0);
  }
  CHECK(differ);
  for (cy::Index c = 0; c < 5; ++c) CHECK(toy.bias.value(0, c) == 1);
  // The padding between parameters stays zero.
  for (cy::Index i = 18; i < 32; ++i) CHECK(store.values()[i] == 0);
  const float before = toy.packed.value(0, 0);
  cy::initialise(toy, cy::Seed{4});
  CHECK(toy.packed.value(0, 0) != before);
}

TEST_CASE("the laws of initial values") {
  const cy::Stream draws(cy::Seed{1}, cy::Purpose::initial_value, 5);
  CHECK(cy::Init::constant(0.25).value(1, 1, 2, 2, draws) == 0.25);
  double sum = 0, squares = 0, largest = 0;
  constexpr cy::Index n = 20000;
  for (cy::Index i = 0; i < n; ++i) {
    const double z = cy::Init::normal(3).value(i, 0, n, 1, draws), u = cy::Init::uniform(3).value(i, 0, n, 1, draws);
    sum += z;
    squares += z * z;
    largest = std::max(largest, std::abs(u));
    REQUIRE(std::abs(u) < 3);
  }
  CHECK(std::abs(sum / n) <= 6 * 3 / std::sqrt(double{n}));
  CHECK(std::abs(squares / n - 9) <= 6 * 9 * std::sqrt(2.0 / n));
  CHECK(largest > 2.9);
  const cy::Init formula = cy::Init::from(
      [](cy::Index row, cy::Index column, cy::Index rows, cy::Index columns, const double(&x)[4], const cy::Stream&) {
        return x[0] * static_cast<double>(row) + x[1] * static_cast<double>(column) + static_cast<double>(rows * columns);
      },
      100, 10);
  CHECK(formula.value(2, 3, 4, 5, draws) == 250);
}

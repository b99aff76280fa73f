// SPDX-License-Identifier: Apache-2.0
// What the theory says of architectures composed here: the degree that the compiler works out, the degree measured along a
// random line in a prime field, and what degree and state say about associative recall.

#include <coyote/coyote.hpp>
#include <coyote/theory/bounds.hpp>
#include <coyote/theory/prime_field.hpp>
#include <cstdio>

namespace {

namespace cy = coyote;
namespace theory = coyote::theory;
using theory::Field;

// Architectures over any ring. Put yours here.
using Once = cy::Coyote<cy::LongConv<>>;
using Twice = cy::Chain<Once, Once>;
using Mine = cy::Sum<cy::Gate<Twice, cy::Linear>, cy::Identity>;
using Recurrent = cy::Hyena<3, cy::FreeFilter>;
static_assert(cy::degree<Twice> == 4 && cy::degree<Mine> == 5 && cy::degree<Recurrent> == 4);

constexpr cy::Index width = 3, length = 4;

/// The degree of M with random weights along a random line: exact finite differences in the field.
template <class M>
cy::Index measured_degree() {
  auto model = cy::Model<M, cy::Reference, Field>::blank({width, length});
  cy::Draws draws(cy::Stream(cy::Seed{1}, cy::Purpose::test));
  const auto draw = [&] { return Field(static_cast<long long>(draws.below(Field::modulus))); };
  auto fill = [&](const cy::Path&, cy::Parameter<Field>& p) {
    for (cy::Index r = 0; r < p.rows; ++r) {
      for (cy::Index c = 0; c < p.columns; ++c) p.value(r, c) = draw();
    }
  };
  model.visit(fill);
  cy::Matrix<Field> a(length, width), b(length, width);
  for (Field& x : a) x = draw();
  for (Field& x : b) x = draw();
  const auto f = [&](const cy::Matrix<Field>& u) {
    cy::Context<cy::Reference> context;
    cy::Matrix<Field> y(length, width);
    model.forward(context, {.sequences = 1, .length = length}, u, y);
    return y;
  };
  return theory::line_degree<Field>(f, a, b, 12);
}

/// False if the measurement contradicts the type.
template <class M>
bool show(const char* name) {
  const cy::Index measured = measured_degree<M>();
  const bool agree = measured == cy::degree<M>.value;
  std::printf("%s\n  degree by type %d, along a random line %td%s\n", name, cy::degree<M>.value, measured,
              agree ? "" : ": they differ");
  std::printf("  %s\n", theory::report<M>({width, length}, {.key_bits = 4, .value_bits = 4, .pairs = 2}).c_str());
  return agree;
}

}  // namespace

int main() {
  bool agree = show<Once>("Coyote<LongConv<>>");
  agree = show<Twice>("Chain<Coyote<LongConv<>>, Coyote<LongConv<>>>") && agree;
  agree = show<Mine>("Sum<Gate<Chain<Coyote, Coyote>, Linear>, Identity>") && agree;
  agree = show<Recurrent>("Hyena<3, FreeFilter>") && agree;
  std::printf("Attention<> (softmax: no degree to measure)\n  %s",
              theory::report<cy::Attention<>>({64, 64}, {.key_bits = 4, .value_bits = 4, .pairs = 2}).c_str());
  return agree ? 0 : 1;
}

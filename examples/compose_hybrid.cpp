// SPDX-License-Identifier: Apache-2.0
// A custom architecture composed from parts: what the compiler knows of it, a forward pass over packed sequences, and
// decoding row by row that gives the same numbers.

#include <cmath>
#include <coyote/coyote.hpp>
#include <cstdio>

namespace cy = coyote;

namespace {

// [architecture]
// Neighbours first, then two ways to look far back side by side (a fading memory, and attention to what followed the latest
// four occurrences of the current token), then a map of each row by itself.
using Near = cy::Block<cy::Coyote<cy::ShortConv<3>>>;
using Far = cy::Block<cy::Sum<cy::LongConv<cy::DecayFilter>, cy::Attention<cy::Heads<2>, cy::RepeatedBigrams<4>>>>;
using Think = cy::Block<cy::Mlp<2>>;
using Hybrid = cy::Chain<Near, Far, Think>;
// [architecture]

// [facts]
static_assert(cy::is_causal<Hybrid> && cy::is_input_dependent<Hybrid>);
static_assert(!cy::is_input_dependent<Near>);                             // a convolution: the same pairs whatever comes in
static_assert(cy::state_is_bounded<Near> && !cy::state_is_bounded<Far>);  // attention remembers every row
static_assert(cy::degree<cy::Coyote<cy::ShortConv<3>>> == 2);             // a product of two linear maps
static_assert(cy::degree<Hybrid>.is_infinite());                          // norms and softmax are no polynomials
static_assert(cy::cost<Near>(64, 512).state_scalars == 2 * 64);           // two rows before the current one
static_assert(cy::cost<Hybrid>(64, 512).worst_case);                      // attended pairs depend on the tokens
// [facts]

constexpr cy::Index width = 16, capacity = 64;

template <class M>
void print_facts(const char* name) {
  constexpr cy::Cost c = cy::cost<M>(width, capacity);
  std::printf("%-8s %-17s %-14s %10td %15td %13td\n", name, cy::is_input_dependent<M> ? "input-dependent" : "fixed pairs",
              cy::state_is_bounded<M> ? "bounded" : "grows", c.parameters, c.multiplications, c.state_scalars + c.state_integers);
}

/// Which rows the attention of row i looks at, drawn as a triangle.
void print_pattern(const std::string& text) {
  using Pattern = cy::RepeatedBigrams<4>;
  const std::vector<cy::Token> tokens(text.begin(), text.end());
  const auto rows = static_cast<cy::Index>(tokens.size());
  std::vector<std::int32_t> index(static_cast<std::size_t>(Pattern::index_size(rows)));
  cy::fill_index<Pattern>(index, tokens, rows);
  std::printf("\nwhat RepeatedBigrams<4> sees in '%s' (# = attended key):\n", text.c_str());
  for (cy::Index i = 0; i < rows; ++i) {
    std::string line(static_cast<std::size_t>(i) + 1, '.');
    Pattern::for_each_key(index, rows, i, [&](cy::Index j) { line[static_cast<std::size_t>(j)] = '#'; });
    std::printf("  %c  %s\n", text[static_cast<std::size_t>(i)], line.c_str());
  }
}

}  // namespace

int main() {
  std::printf("part     pairs             state          parameters multiplications state numbers\n");
  print_facts<Near>("Near");
  print_facts<Far>("Far");
  print_facts<Think>("Think");
  print_facts<Hybrid>("Hybrid");
  const std::string texts[] = {"abracadabra", "hello", "a", "mississippi"};
  print_pattern(texts[0]);

  // [forward]
  // Four sequences of different lengths, packed one after another; nothing leaks from one into the next.
  std::vector<cy::Token> tokens;
  std::vector<cy::Index> offsets = {0};
  for (const std::string& text : texts) {
    tokens.insert(tokens.end(), text.begin(), text.end());
    offsets.push_back(static_cast<cy::Index>(tokens.size()));
  }
  const cy::Batch batch{.sequences = 4, .length = 11, .offsets = offsets, .tokens = tokens};

  cy::Model<Hybrid, cy::Cpu, float> model({.width = width, .length = capacity}, cy::Seed{1});
  cy::Context<cy::Cpu> context;
  cy::Matrix<float> u(batch.rows(), width), y(batch.rows(), width);
  for (cy::Index i = 0; i < u.rows(); ++i) {  // an embedding of the letters; a LanguageModel trains one
    for (cy::Index c = 0; c < width; ++c) u(i, c) = std::sin(static_cast<float>((c + 1) * tokens[static_cast<std::size_t>(i)]));
  }
  model.forward(context, batch, u, y);
  // [forward]

  // [decode]
  // Each sequence again, row by row, with a state of its own: what a row gives cannot depend on what has not come yet.
  float largest = 0, difference = 0;
  for (cy::Index s = 0; s < batch.sequences; ++s) {
    auto state = model.make_state({.sequences = 1, .capacity = capacity});
    cy::Matrix<float> now(1, width);
    for (cy::Index i = batch.begin(s); i < batch.end(s); ++i) {
      const cy::Step at{.position = i - batch.begin(s), .tokens = batch.tokens.subspan(static_cast<std::size_t>(i), 1)};
      model.step(context, state, at, u.view().slice(i, 1), now);
      for (cy::Index c = 0; c < width; ++c) {
        largest = std::max(largest, std::abs(y(i, c)));
        difference = std::max(difference, std::abs(now(0, c) - y(i, c)));
      }
    }
  }
  // [decode]

  const cy::StateSize held = model.make_state({.sequences = 1, .capacity = capacity}).size();
  const cy::Cost promised = cy::cost<Hybrid>(width, capacity);
  const cy::Index counted = cy::count_parameters(model);
  const bool facts_hold =
      counted == promised.parameters && held.scalars == promised.state_scalars && held.integers == promised.state_integers;
  const bool same = difference <= 1e-5f * largest;
  std::printf("\n%td parameters and %td + %td numbers of state in the built model: %s the type says\n", counted, held.scalars,
              held.integers, facts_hold ? "what" : "NOT what");
  std::printf("%td rows decoded one by one differ from the packed forward by at most %.1e: %s\n", batch.rows(),
              static_cast<double>(difference), same ? "rounding" : "TOO MUCH");
  return facts_hold && same ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
// Agreement with the Python prototypes: vectors.txt is what they compute (make_vectors.py writes it).
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "coyote/tasks/oracle.hpp"
#include "coyote/theory/mqar.hpp"
#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/sort_scan.hpp"
#include "coyote/theory/stack.hpp"

namespace {

using namespace coyote;
using namespace coyote::theory;

/// The lines of one kind, as numbers.
std::vector<std::vector<long long>> vectors(const std::string& kind) {
  const std::string here = __FILE__;
  std::ifstream file(here.substr(0, here.rfind('/')) + "/vectors.txt");
  std::vector<std::vector<long long>> result;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words_of(line);
    std::string first;
    words_of >> first;
    if (first != kind) continue;
    auto& numbers = result.emplace_back();
    for (long long x; words_of >> x;) numbers.push_back(x);
  }
  REQUIRE(result.size() > 9);
  return result;
}

/// Reads numbers one after another.
struct Reader {
  const std::vector<long long>& numbers;
  std::size_t at = 0;
  long long next() { return numbers.at(at++); }
  Matrix<Field> matrix(Index rows, Index width) {
    Matrix<Field> m(rows, width);
    for (Field& x : m) x = Field(next());
    return m;
  }
  std::vector<Token> tokens(Index n) {
    std::vector<Token> t;
    for (Index i = 0; i < n; ++i) t.push_back(static_cast<Token>(next()));
    return t;
  }
};

TEST_CASE("one layer gives what the prototype's textbook formula gives") {
  for (const auto& line : vectors("layer")) {
    Reader read{line};
    const Wrap wrap = read.next() != 0 ? Wrap::cyclic : Wrap::causal;
    const Index n = read.next(), d = read.next();
    const auto w = read.matrix(d, d), k = read.matrix(n, d), b1 = read.matrix(n, d), b2 = read.matrix(n, d),
               u = read.matrix(n, d), y = read.matrix(n, d);
    Program<Field> program;
    for (Index c = 0; c < d; ++c) {
      Form<Field> form;
      Impulses<Field> taps;
      for (Index a = 0; a < d; ++a) form.add(a, w(a, c));
      for (Index t = 0; t < n; ++t) taps.add(t, k(t, c));
      program.gate(c, form, Profile<Field>::of(n, [&](Index i) { return b1(i, c); }), taps,
                   Profile<Field>::of(n, [&](Index i) { return b2(i, c); }));
    }
    Stack<Field> stack(n, d, wrap);
    stack.then(program);
    const Matrix<Field> got = stack.run(u);
    bool same = true, zero = true;
    for (Index i = 0; i < y.size(); ++i) {
      same = same && got.data()[i] == y.data()[i];
      zero = zero && y.data()[i] == Field(0);
    }
    CHECK(same);
    CHECK_FALSE(zero);
  }
}

TEST_CASE("aligned recall means the same") {
  for (const auto& line : vectors("recall")) {
    Reader read{line};
    const Index n = read.next();
    const auto keys = read.tokens(n), values = read.tokens(n), queries = read.tokens(n), latest = read.tokens(n),
               first = read.tokens(n);
    const auto answers = [&](Occurrence which) {
      auto result = mqar_aligned(keys, values, queries, which);
      for (Token& t : result) t = t == no_answer ? 0 : t;
      return result;
    };
    CHECK(answers(Occurrence::latest) == latest);
    CHECK(answers(Occurrence::first) == first);
  }
}

TEST_CASE("the constructions have the prototypes' sizes") {
  for (const auto& line : vectors("size")) {
    Reader read{line};
    const long long kind = read.next();
    const Index n = read.next(), a = read.next(), b = read.next();
    const Wrap wrap = read.next() != 0 ? Wrap::cyclic : Wrap::causal;
    const Index layers = read.next(), length = read.next(), width = read.next();
    CAPTURE(kind);
    CAPTURE(n);
    const Stack<Field> stack = kind == 0   ? table<Field>(n, a, b).stack
                               : kind == 1 ? lag_unfold<Field>(n, a, b).stack
                               : kind == 2 ? scalar_tokens(n).stack
                                           : sort_scan<Field>(n, a, b, wrap).stack;
    CHECK(stack.size().layers == layers);
    CHECK(stack.length() == length);
    CHECK(stack.width() == width);
  }
}

}  // namespace

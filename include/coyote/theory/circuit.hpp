// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coyote/core/array.hpp"
#include "coyote/core/error.hpp"
#include "coyote/core/scalar.hpp"

namespace coyote::inline v0::theory {

/// What a circuit consists of. Only what the outputs need is counted, except for inputs and outputs, which all are.
struct CircuitSize {
  Index inputs = 0, outputs = 0;
  Index constants = 0;
  Index gates = 0;            ///< additions, subtractions and multiplications
  Index multiplications = 0;  ///< those of two operands that both depend on an input: n_mul
  Index degree_depth = 0;     ///< D: the most such multiplications on a path
  Index depth = 0;            ///< Delta: the most gates of any kind on a path
  friend constexpr bool operator==(const CircuitSize&, const CircuitSize&) = default;
};

/// An arithmetic circuit over a ring, written with plain operators:
///
///     Circuit<Field> c;
///     auto x = c.input(0), y = c.input(1);
///     c.output(x * y + 3);
///
/// Wires belong to the circuit object that made them. Multiplying by a constant is linear and adds no degree.
/// Errors: wires of different circuits in one gate; a negative input.
template <Ring S>
class Circuit {
 public:
  enum class Kind { input, constant, add, subtract, multiply };
  struct Node {
    Kind kind = Kind::constant;
    Index a = 0, b = 0;       ///< operands: earlier nodes; a is the number of an input
    S value{};                ///< of a constant
    bool is_varying = false;  ///< depends on an input
  };

  /// The result of an input, a constant or a gate.
  class Wire {
   public:
    constexpr Index node() const { return node_; }
    friend constexpr Wire operator+(Wire x, Wire y) { return gate(Kind::add, x, y); }
    friend constexpr Wire operator-(Wire x, Wire y) { return gate(Kind::subtract, x, y); }
    friend constexpr Wire operator*(Wire x, Wire y) { return gate(Kind::multiply, x, y); }
    friend constexpr Wire operator+(Wire x, S y) { return x + x.constant(y); }
    friend constexpr Wire operator-(Wire x, S y) { return x - x.constant(y); }
    friend constexpr Wire operator*(Wire x, S y) { return x * x.constant(y); }
    friend constexpr Wire operator+(S x, Wire y) { return y.constant(x) + y; }
    friend constexpr Wire operator-(S x, Wire y) { return y.constant(x) - y; }
    friend constexpr Wire operator*(S x, Wire y) { return y.constant(x) * y; }
    friend constexpr Wire operator-(Wire x) { return x.constant(S{}) - x; }

   private:
    friend class Circuit;
    constexpr Wire(Circuit* circuit, Index node) : circuit_(circuit), node_(node) {}
    constexpr Wire constant(S value) const { return circuit_->constant(value); }
    static constexpr Wire gate(Kind kind, Wire x, Wire y) {
      if (x.circuit_ != y.circuit_) throw Error("theory::Circuit", "two wires of the same circuit", "wires of two circuits");
      return {x.circuit_, x.circuit_->add(kind, x.node_, y.node_)};
    }
    Circuit* circuit_;
    Index node_;
  };

  /// @param inputs  how many inputs there are at least; asking for more makes more
  constexpr explicit Circuit(Index inputs = 0) {
    if (inputs < 0) throw Error("theory::Circuit", "a number of inputs of at least 0", words(inputs));
    while (inputs_.size() < inputs) add_input();
  }

  /// Input number k.
  constexpr Wire input(Index k) {
    if (k < 0) throw Error("theory::Circuit", "an input of at least 0", words(k));
    while (inputs_.size() <= k) add_input();
    return {this, inputs_[k]};
  }
  constexpr Wire constant(S value) {
    nodes_.emplace(Node{Kind::constant, 0, 0, value, false});
    return {this, nodes_.size() - 1};
  }
  /// The wire of a node, by its number.
  constexpr Wire wire(Index node) {
    if (node < 0 || node >= nodes_.size()) throw Error("theory::Circuit", words("a node below ", nodes_.size()), words(node));
    return {this, node};
  }
  /// Declares the next output.
  constexpr void output(Wire wire) {
    if (wire.circuit_ != this) throw Error("theory::Circuit::output", "a wire of this circuit", "one of another");
    outputs_.emplace(wire.node_);
  }

  constexpr Index inputs() const { return inputs_.size(); }
  constexpr const List<Node>& nodes() const { return nodes_; }
  constexpr const List<Index>& outputs() const { return outputs_; }

  /// The outputs' values. Errors: another number of inputs.
  constexpr List<S> evaluate(std::span<const S> x) const {
    if (static_cast<Index>(x.size()) != inputs()) {
      throw Error("theory::Circuit::evaluate", words(inputs(), " inputs"), words(x.size()));
    }
    Array<S> value(nodes_.size());
    for (Index n = 0; n < nodes_.size(); ++n) {
      const Node& node = nodes_[n];
      switch (node.kind) {
        case Kind::input:
          value[n] = x[static_cast<std::size_t>(node.a)];
          break;
        case Kind::constant:
          value[n] = node.value;
          break;
        case Kind::add:
          value[n] = value[node.a] + value[node.b];
          break;
        case Kind::subtract:
          value[n] = value[node.a] - value[node.b];
          break;
        case Kind::multiply:
          value[n] = value[node.a] * value[node.b];
          break;
      }
    }
    List<S> result;
    for (Index n : outputs_) result.emplace(value[n]);
    return result;
  }

  static constexpr bool is_gate(const Node& node) { return node.kind != Kind::input && node.kind != Kind::constant; }
  /// True for a multiplication of two operands that depend on inputs: the only gates that raise the degree.
  constexpr bool raises_degree(const Node& node) const {
    return node.kind == Kind::multiply && nodes_[node.a].is_varying && nodes_[node.b].is_varying;
  }
  /// Which nodes the outputs need.
  constexpr Array<bool> needed() const {
    Array<bool> result(nodes_.size());
    for (Index n : outputs_) result[n] = true;
    for (Index n = nodes_.size() - 1; n >= 0; --n) {
      if (result[n] && is_gate(nodes_[n])) result[nodes_[n].a] = result[nodes_[n].b] = true;
    }
    return result;
  }
  /// For each node the most gates on a path to it that `counts(node)`.
  template <class Counts>
  constexpr Array<Index> levels(Counts&& counts) const {
    Array<Index> level(nodes_.size());
    for (Index n = 0; n < nodes_.size(); ++n) {
      const Node& node = nodes_[n];
      if (is_gate(node)) level[n] = std::max(level[node.a], level[node.b]) + (counts(node) ? 1 : 0);
    }
    return level;
  }
  constexpr CircuitSize size() const {
    CircuitSize s;
    s.inputs = inputs();
    s.outputs = outputs_.size();
    const Array<bool> need = needed();
    const Array<Index> degree = levels([&](const Node& node) { return raises_degree(node); });
    const Array<Index> depth = levels([](const Node&) { return true; });
    for (Index n = 0; n < nodes_.size(); ++n) {
      if (!need[n]) continue;
      s.constants += nodes_[n].kind == Kind::constant ? 1 : 0;
      s.gates += is_gate(nodes_[n]) ? 1 : 0;
      s.multiplications += raises_degree(nodes_[n]) ? 1 : 0;
      s.degree_depth = std::max(s.degree_depth, degree[n]);
      s.depth = std::max(s.depth, depth[n]);
    }
    return s;
  }

 private:
  constexpr void add_input() {
    inputs_.emplace(nodes_.size());
    nodes_.emplace(Node{Kind::input, inputs_.size() - 1, 0, S{}, true});
  }
  constexpr Index add(Kind kind, Index a, Index b) {
    nodes_.emplace(Node{kind, a, b, S{}, nodes_[a].is_varying || nodes_[b].is_varying});
    return nodes_.size() - 1;
  }

  List<Node> nodes_;
  List<Index> inputs_, outputs_;
};

namespace detail {

/// One line `name = a operation b`, or `name = a` with no operation.
struct CircuitLine {
  Index number = 0;
  std::string_view name, a, b;
  char operation = 0;
};

constexpr bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }
constexpr bool is_digit(char c) { return '0' <= c && c <= '9'; }
constexpr bool is_name(std::string_view word) {
  const auto letter = [](char c) { return ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z') || c == '_'; };
  if (word.empty() || !letter(word[0])) return false;
  for (char c : word) {
    if (!letter(c) && !is_digit(c)) return false;
  }
  return true;
}

[[noreturn]] inline void circuit_error(Index line, std::string required, std::string came) {
  throw Error(words("theory::parse_circuit, line ", line), std::move(required), std::move(came));
}

/// Splits a line at blanks; what follows # is a comment.
inline std::vector<std::string_view> circuit_words(std::string_view line) {
  std::vector<std::string_view> result;
  for (std::size_t at = 0; at < line.size() && line[at] != '#';) {
    if (is_space(line[at])) {
      ++at;
      continue;
    }
    const std::size_t begin = at;
    while (at < line.size() && !is_space(line[at]) && line[at] != '#') ++at;
    result.push_back(line.substr(begin, at - begin));
  }
  return result;
}

/// A decimal integer with an optional sign.
inline long long circuit_integer(std::string_view word, Index line) {
  const std::string_view whole = word;
  const bool is_negative = !word.empty() && word[0] == '-';
  if (is_negative) word.remove_prefix(1);
  if (word.empty()) circuit_error(line, "a number", words("'", whole, "'"));
  long long value = 0;
  for (char c : word) {
    if (!is_digit(c)) circuit_error(line, "a name of letters, digits and _, or a number", words("'", whole, "'"));
    if (__builtin_mul_overflow(value, 10LL, &value) || __builtin_sub_overflow(value, static_cast<long long>(c - '0'), &value)) {
      circuit_error(line, "a constant of 64 bits", words("the oversized constant ", whole));
    }
  }
  if (is_negative) return value;  // gathered as a negative number, whose range is larger by one
  if (value == std::numeric_limits<long long>::min()) {
    circuit_error(line, "a constant of 64 bits", words("the oversized constant ", whole));
  }
  return -value;
}

/// A constant of the ring: an integer, or integer/integer where the ring divides.
template <Ring S>
S circuit_constant(std::string_view word, Index line) {
  const auto ring_value = [&](std::string_view digits) {
    const long long value = circuit_integer(digits, line);
    if constexpr (std::integral<S>) {
      if (!std::in_range<S>(value))
        circuit_error(line, "a constant that the ring holds", words("the oversized constant ", digits));
    }
    return static_cast<S>(value);
  };
  const std::size_t slash = word.find('/');
  if (slash == std::string_view::npos) return ring_value(word);
  if constexpr (std::integral<S> || !requires(S a) { a / a; }) {
    circuit_error(line, "an integer, as this ring does not divide", words("'", word, "'"));
  } else {
    const S below = ring_value(word.substr(slash + 1));
    if (below == S{}) circuit_error(line, "a denominator other than 0", words("'", word, "'"));
    return ring_value(word.substr(0, slash)) / below;
  }
}

/// A constant as circuit_constant reads it.
template <Ring S>
std::string circuit_text(const S& value) {
  if constexpr (std::integral<S>) {
    return std::to_string(value);
  } else if constexpr (requires { value.centred(); }) {
    return words(value.centred());
  } else {
    return value.denominator() == 1 ? words(value.numerator()) : words(value.numerator(), "/", value.denominator());
  }
}

}  // namespace detail

/// Reads a circuit. One statement a line; words stand apart by blanks; # begins a comment:
///
///     input x y          # the inputs in order; may come again for more of them
///     s = x * y          # name = operand + operand, or -, or *
///     t = s + -3         # an operand is an earlier name or a constant: 7, -7, and 7/2 where the ring divides
///     output t s         # the outputs in order
///
/// `name = operand` gives an operand a second name. Errors, each with the line: a line of another form; a name given twice; an
/// unknown wire; a wire used before its definition; a cycle; a constant that does not fit; no output.
template <Ring S>
Circuit<S> parse_circuit(std::string_view text) {
  std::vector<detail::CircuitLine> lines;                  // definitions; inputs have no operands
  std::vector<std::pair<std::string_view, Index>> wanted;  // outputs, with their lines
  Index number = 0;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto word = detail::circuit_words(text.substr(begin, end - begin));
    begin = end + 1;
    ++number;
    if (word.empty()) continue;
    const auto require_name = [&](std::string_view name) {
      if (!detail::is_name(name) || name == "input" || name == "output") {
        detail::circuit_error(number, "a name of letters, digits and _ that begins with no digit", words("'", name, "'"));
      }
    };
    if (word[0] == "input" || word[0] == "output") {
      if (word.size() < 2) detail::circuit_error(number, words("names after ", word[0]), "none");
      for (std::size_t k = 1; k < word.size(); ++k) {
        require_name(word[k]);
        if (word[0] == "input") {
          lines.push_back({number, word[k], {}, {}, 0});
        } else {
          wanted.emplace_back(word[k], number);
        }
      }
      continue;
    }
    const bool has_operation =
        word.size() == 5 && word[3].size() == 1 && std::string_view("+-*").find(word[3][0]) != std::string_view::npos;
    if (word.size() < 3 || word[1] != "=" || (word.size() != 3 && !has_operation)) {
      detail::circuit_error(number, "'name = operand', 'name = operand + operand' (or -, *), 'input names' or 'output names'",
                            words("a line that begins with '", word[0], "'"));
    }
    require_name(word[0]);
    lines.push_back({number, word[0], word[2], has_operation ? word[4] : std::string_view(), has_operation ? word[3][0] : '='});
  }

  std::vector<std::size_t> sorted(lines.size());  // definitions by name, for look-up
  for (std::size_t k = 0; k < lines.size(); ++k) sorted[k] = k;
  std::sort(sorted.begin(), sorted.end(),
            [&](std::size_t a, std::size_t b) { return lines[a].name != lines[b].name ? lines[a].name < lines[b].name : a < b; });
  for (std::size_t k = 1; k < sorted.size(); ++k) {
    const auto& again = lines[sorted[k]];
    if (lines[sorted[k - 1]].name == again.name) {
      detail::circuit_error(again.number, "a new name for every wire", words("'", again.name, "' a second time"));
    }
  }
  const auto find = [&](std::string_view name) {
    const auto at = std::lower_bound(sorted.begin(), sorted.end(), name,
                                     [&](std::size_t k, std::string_view key) { return lines[k].name < key; });
    return at != sorted.end() && lines[*at].name == name ? *at : lines.size();
  };
  const auto depends_on = [&](std::size_t from, std::size_t on) {
    std::vector<bool> seen(lines.size());
    std::vector<std::size_t> open{from};
    while (!open.empty()) {
      const std::size_t k = open.back();
      open.pop_back();
      if (k == on) return true;
      if (k == lines.size() || seen[k]) continue;
      seen[k] = true;
      if (detail::is_name(lines[k].a)) open.push_back(find(lines[k].a));
      if (detail::is_name(lines[k].b)) open.push_back(find(lines[k].b));
    }
    return false;
  };

  Circuit<S> circuit;
  std::vector<Index> node(lines.size());
  const auto operand = [&](std::size_t k, std::string_view word) {
    const Index line = lines[k].number;
    if (!detail::is_name(word)) return circuit.constant(detail::circuit_constant<S>(word, line)).node();
    const std::size_t at = find(word);
    if (at == lines.size()) detail::circuit_error(line, "wires that are defined", words("the unknown wire '", word, "'"));
    if (at >= k) {
      const bool is_cycle = depends_on(at, k);
      detail::circuit_error(
          line, "wires that are defined above",
          is_cycle ? words("a cycle through '", word, "'") : words("'", word, "', which line ", lines[at].number, " defines"));
    }
    return node[at];
  };
  for (std::size_t k = 0; k < lines.size(); ++k) {
    const auto& line = lines[k];
    if (line.operation == 0) {
      node[k] = circuit.input(circuit.inputs()).node();
      continue;
    }
    const Index a = operand(k, line.a);
    if (line.operation == '=') {
      node[k] = a;
      continue;
    }
    const auto x = circuit.wire(a), y = circuit.wire(operand(k, line.b));
    node[k] = (line.operation == '+' ? x + y : line.operation == '-' ? x - y : x * y).node();
  }
  if (wanted.empty()) detail::circuit_error(number, "an output", "none");
  for (const auto& [name, line] : wanted) {
    const std::size_t at = find(name);
    if (at == lines.size()) detail::circuit_error(line, "wires that are defined", words("the unknown wire '", name, "'"));
    circuit.output(circuit.wire(node[at]));
  }
  return circuit;
}

/// A circuit as parse_circuit reads it: inputs x0, x1, ..; every other node n<number>. For integers, PrimeField and Rational.
template <Ring S>
std::string print_circuit(const Circuit<S>& circuit) {
  using Kind = typename Circuit<S>::Kind;
  const auto name = [&](Index n) {
    const auto& node = circuit.nodes()[n];
    return node.kind == Kind::input ? words("x", node.a) : words("n", n);
  };
  std::string text;
  for (Index n = 0; n < circuit.nodes().size(); ++n) {
    const auto& node = circuit.nodes()[n];
    switch (node.kind) {
      case Kind::input:
        text += words("input ", name(n), "\n");
        break;
      case Kind::constant:
        text += words(name(n), " = ", detail::circuit_text(node.value), "\n");
        break;
      case Kind::add:
        text += words(name(n), " = ", name(node.a), " + ", name(node.b), "\n");
        break;
      case Kind::subtract:
        text += words(name(n), " = ", name(node.a), " - ", name(node.b), "\n");
        break;
      case Kind::multiply:
        text += words(name(n), " = ", name(node.a), " * ", name(node.b), "\n");
        break;
    }
  }
  if (circuit.outputs().size() > 0) text += "output";
  for (Index n : circuit.outputs()) text += words(" ", name(n));
  return circuit.outputs().size() > 0 ? text + "\n" : text;
}

}  // namespace coyote::inline v0::theory

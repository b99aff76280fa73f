// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coyote/theory/circuit.hpp"
#include "coyote/theory/primitives.hpp"
#include "coyote/theory/routing.hpp"
#include "coyote/theory/stack.hpp"

namespace coyote::inline v0::theory {

/// A circuit as a stack, and where its outputs stand afterwards.
template <Ring S>
struct CompiledCircuit {
  struct Place {
    Index row = 0, column = 0;
  };
  Stack<S> stack;
  List<Place> outputs;  ///< of output k; where every row computes the circuit, in row 0

  /// Runs the stack on u in the upper left corner and reads the outputs, `row` rows further down.
  constexpr List<S> run(Rows<const S> u, Index row = 0) const {
    const Matrix<S> y = stack.run(u);
    List<S> result;
    for (const Place& place : outputs) result.emplace(y(place.row + row, place.column));
    return result;
  }
};

/// Which columns products stand in: each in its own, or in one that nothing reads any more (fewer columns, same layers).
enum class Registers { own, recycled };

namespace detail {

/// constant + sum of coefficient * symbol, symbols ascending, none with coefficient 0.
template <Ring S>
struct AffineForm {
  List<typename Form<S>::Term> terms;  ///< `column` is the symbol
  S constant{};

  /// alpha x + beta y.
  static constexpr AffineForm combined(const AffineForm& x, S alpha, const AffineForm& y, S beta) {
    AffineForm result;
    result.constant = alpha * x.constant + beta * y.constant;
    const auto add = [&](Index symbol, S coefficient) {
      if (!(coefficient == S{})) result.terms.emplace(typename Form<S>::Term{symbol, coefficient});
    };
    Index i = 0, j = 0;
    while (i < x.terms.size() || j < y.terms.size()) {
      const bool take_x = j == y.terms.size() || (i < x.terms.size() && x.terms[i].column <= y.terms[j].column);
      const bool take_y = i == x.terms.size() || (j < y.terms.size() && y.terms[j].column <= x.terms[i].column);
      const Index symbol = take_x ? x.terms[i].column : y.terms[j].column;
      S sum{};
      if (take_x) sum += alpha * x.terms[i++].coefficient;
      if (take_y) sum += beta * y.terms[j++].coefficient;
      add(symbol, sum);
    }
    return result;
  }
};

/// Compiler A without its stack: every needed node as an affine form of the inputs (symbols 0 .. inputs - 1) and of the
/// products (one further symbol each), and a column for every symbol.
template <Ring S>
struct ChannelPlan {
  struct Product {
    Index node = 0, level = 0, symbol = 0;
  };
  List<Product> products;
  Array<AffineForm<S>> forms;  ///< of nodes
  Array<Index> column;         ///< of symbols
  Index depth = 0, width = 0;

  constexpr ChannelPlan(const Circuit<S>& circuit, Registers registers) : forms(circuit.nodes().size()) {
    using Kind = typename Circuit<S>::Kind;
    if (circuit.outputs().size() < 1) throw Error("theory::compile", "a circuit with an output", "none");
    const Index inputs = circuit.inputs();
    const Array<bool> need = circuit.needed();
    const Array<Index> level = circuit.levels([&](const auto& node) { return circuit.raises_degree(node); });
    for (Index n = 0; n < circuit.nodes().size(); ++n) {
      const auto& node = circuit.nodes()[n];
      if (!need[n]) continue;
      switch (node.kind) {
        case Kind::input:
          forms[n].terms.emplace(typename Form<S>::Term{node.a, S(1)});
          break;
        case Kind::constant:
          forms[n].constant = node.value;
          break;
        case Kind::add:
          forms[n] = AffineForm<S>::combined(forms[node.a], S(1), forms[node.b], S(1));
          break;
        case Kind::subtract:
          forms[n] = AffineForm<S>::combined(forms[node.a], S(1), forms[node.b], -S(1));
          break;
        case Kind::multiply:
          if (circuit.raises_degree(node)) {
            const Index symbol = inputs + products.size();
            products.emplace(Product{n, level[n], symbol});
            forms[n].terms.emplace(typename Form<S>::Term{symbol, S(1)});
            depth = std::max(depth, level[n]);
          } else {  // one operand is a constant: it scales the other
            const bool is_left = circuit.nodes()[node.a].is_varying;
            const AffineForm<S>& scale = forms[is_left ? node.b : node.a];
            forms[n] = AffineForm<S>::combined(forms[is_left ? node.a : node.b], scale.constant, {}, S{});
          }
          break;
      }
    }
    column = Array<Index>(inputs + products.size());
    for (Index s = 0; s < column.size(); ++s) column[s] = s;
    width = column.size();
    if (registers == Registers::recycled) recycle(circuit);
    width = std::max(width, circuit.outputs().size());
  }

  /// Form and constant of a node over columns.
  constexpr Form<S> form(Index node) const {
    Form<S> result;
    for (const auto& term : forms[node].terms) result.add(column[term.column], term.coefficient);
    return result;
  }

  /// 2 D + 1 layers: for every level of products the right operands, then times the left ones; then the outputs, times a mask,
  /// in the first columns, 0 in the others.
  constexpr void append(Stack<S>& stack, const Circuit<S>& circuit, const Profile<S>& mask) const {
    for (Index l = 1; l <= depth; ++l) {
      Program<S> load, multiply;
      for (const Product& product : products) {
        if (product.level != l) continue;
        const auto& node = circuit.nodes()[product.node];
        load.lin(column[product.symbol], form(node.b), forms[node.b].constant);
        multiply.gate(column[product.symbol], form(node.a), forms[node.a].constant);
      }
      stack.then(std::move(load)).then(std::move(multiply));
    }
    Program<S> last;
    for (Index c = 0; c < stack.width(); ++c) {
      if (c < circuit.outputs().size()) {
        const Index n = circuit.outputs()[c];
        last.lin(c, form(n), forms[n].constant, mask);
      } else {
        last.lin(c, {});
      }
    }
    stack.then(std::move(last));
  }

 private:
  constexpr void recycle(const Circuit<S>& circuit) {
    Array<Index> last(column.size());  // level that reads a symbol last
    const auto read = [&](Index node, Index level) {
      for (const auto& term : forms[node].terms) last[term.column] = std::max(last[term.column], level);
    };
    for (const Product& product : products) {
      read(circuit.nodes()[product.node].a, product.level);
      read(circuit.nodes()[product.node].b, product.level);
    }
    for (Index n : circuit.outputs()) read(n, depth + 1);
    width = circuit.inputs();
    Array<bool> is_live(column.size());
    for (Index s = 0; s < circuit.inputs(); ++s) is_live[s] = true;
    for (Index l = 1; l <= depth; ++l) {
      List<Index> free;
      for (Index s = 0; s < column.size(); ++s) {
        if (is_live[s] && last[s] < l) free.emplace(column[s]);
        is_live[s] = is_live[s] && last[s] >= l;
      }
      // A column stays free until a product takes it.
      for (Index c : spare_) free.emplace(c);
      Index taken = 0;
      for (const Product& product : products) {
        if (product.level != l) continue;
        column[product.symbol] = taken < free.size() ? free[taken++] : width++;
        is_live[product.symbol] = true;
      }
      spare_ = List<Index>();
      for (; taken < free.size(); ++taken) spare_.emplace(free[taken]);
    }
  }
  List<Index> spare_;
};

template <Ring S>
constexpr Index require_shape_of_inputs(const char* where, const Circuit<S>& circuit, Index rows, Index width) {
  if (rows < 1 || width < 1 || circuit.inputs() > rows * width) {
    throw Error(where, words("a circuit of at most rows * width = ", rows * width, " inputs"), words(circuit.inputs()));
  }
  return rows * width;
}

}  // namespace detail

/// Compiler A, wires along channels: each row computes the circuit on its own columns, input k in column k, output k in column k.
/// 2 D + 1 layers (D: degree_depth); width max(inputs + n_mul, outputs), less with recycled columns; any length.
/// Errors: no output. Source: theory.md section 4; Zoology (arXiv 2312.04927), Theorem 4.2.
template <Ring S>
constexpr CompiledCircuit<S> compile_channels(const Circuit<S>& circuit, Index length = 1, Registers registers = Registers::own,
                                              Wrap wrap = Wrap::causal) {
  const detail::ChannelPlan<S> plan(circuit, registers);
  CompiledCircuit<S> result{Stack<S>(length, plan.width, wrap), {}};
  plan.append(result.stack, circuit, S(1));
  for (Index k = 0; k < circuit.outputs().size(); ++k) result.outputs.emplace(typename CompiledCircuit<S>::Place{0, k});
  return result;
}

/// A with a window: row i computes the circuit on rows i, i-1, .., zeros before the first; input t d + c is u[i-t, c], d =
/// width_in. 2 D + 3 layers; width max(window d + n_mul, outputs), window the least number of rows that covers the inputs.
/// Errors: no output; a window longer than the length.
template <Ring S>
constexpr CompiledCircuit<S> compile_windows(Circuit<S> circuit, Index length, Index width_in) {
  detail::require_shape_of_inputs("theory::compile_windows", circuit, length, width_in);
  const Index window = std::max<Index>(ceil_div(circuit.inputs(), width_in), 1);
  circuit.input(window * width_in - 1);
  const detail::ChannelPlan<S> plan(circuit, Registers::own);
  CompiledCircuit<S> result{Stack<S>(length, plan.width), {}};
  primitives::unfold(result.stack, width_in, window);
  plan.append(result.stack, circuit, S(1));
  for (Index k = 0; k < circuit.outputs().size(); ++k) result.outputs.emplace(typename CompiledCircuit<S>::Place{0, k});
  return result;
}

/// A for whole sequences: any circuit from [N, width_in] to [N, width_out], row after row, which may read later rows.
/// 2 D + 5 layers; width max(N width_in + n_mul, N width_out). Cyclic: N' = N. Causal: N' = 2N - 1, and the outputs stand in rows
/// N-1 .. 2N-2. Errors: more than N width_in inputs; not N width_out outputs.
template <Ring S>
constexpr CompiledCircuit<S> compile_sequences(Circuit<S> circuit, Index length, Index width_in, Index width_out, Wrap wrap) {
  const Index inputs = detail::require_shape_of_inputs("theory::compile_sequences", circuit, length, width_in);
  if (width_out < 1 || circuit.outputs().size() != length * width_out) {
    throw Error("theory::compile_sequences", words("a circuit of length * width_out = ", length * width_out, " outputs"),
                words(circuit.outputs().size()));
  }
  circuit.input(inputs - 1);
  const bool is_cyclic = wrap == Wrap::cyclic;
  const detail::ChannelPlan<S> plan(circuit, Registers::own);
  const Index inner = is_cyclic ? length : 2 * length - 1, row = is_cyclic ? 0 : length - 1;  // the row that computes
  CompiledCircuit<S> result{Stack<S>(inner, plan.width, wrap), {}};
  Program<S> copies, gather, spread, sum;
  for (Index i = 0; i < length; ++i) {
    for (Index c = 0; c < width_in; ++c) {
      copies.lin(i * width_in + c, Form<S>::column(c));
      gather.conv(i * width_in + c, Impulses<S>::at(is_cyclic ? (length - i) % length : length - 1 - i));
    }
    for (Index c = 0; c < width_out; ++c) spread.conv(i * width_out + c, Impulses<S>::at(i));
  }
  for (Index c = 0; c < plan.width; ++c) {
    Form<S> form;
    for (Index i = 0; c < width_out && i < length; ++i) form.add(i * width_out + c, S(1));
    sum.lin(c, std::move(form));
  }
  result.stack.then(std::move(copies)).then(std::move(gather));
  plan.append(result.stack, circuit, Profile<S>::on(row, row));
  result.stack.then(std::move(spread)).then(std::move(sum));
  for (Index k = 0; k < length * width_out; ++k) {
    result.outputs.emplace(typename CompiledCircuit<S>::Place{row + k / width_out, k % width_out});
  }
  return result;
}

/// Compiler B, wires along the sequence: input k at row k of column 0, every other node at a row of its own; operands travel by
/// fan_out routes. Delta (10 m - 1) + 1 layers (Delta: depth), width 7, N' = n = 2^m >= inputs + constants + gates, n >= 2;
/// cyclic. Errors: no output. Source: theory.md section 4.
template <Ring S>
constexpr CompiledCircuit<S> compile_routed(const Circuit<S>& circuit) {
  using Kind = typename Circuit<S>::Kind;
  if (circuit.outputs().size() < 1) throw Error("theory::compile_routed", "a circuit with an output", "none");
  constexpr Index wires = 0, left = 1, right = 4, product = 5, width = 7;
  const Array<bool> need = circuit.needed();
  const Array<Index> level = circuit.levels([](const auto&) { return true; });
  const CircuitSize size = circuit.size();
  const Index n = bit_ceil(std::max<Index>(size.inputs + size.constants + size.gates, 2));

  Array<Index> slot(circuit.nodes().size()), node_at(n);
  for (Index& node : node_at) node = -1;
  Index used = size.inputs;
  for (Index k = 0; k < circuit.nodes().size(); ++k) {
    const auto& node = circuit.nodes()[k];
    if (node.kind == Kind::input) {
      slot[k] = node.a;
    } else if (need[k]) {
      node_at[used] = k;
      slot[k] = used++;
    }
  }
  const auto constants = Profile<S>::of(n, [&](Index row) {
    if (node_at[row] < 0 || circuit.nodes()[node_at[row]].kind != Kind::constant) return S{};
    return circuit.nodes()[node_at[row]].value;
  });

  CompiledCircuit<S> result{Stack<S>(n, width, Wrap::cyclic), {}};
  Form<S> update = Form<S>::column(wires);  // what the wires are, before the next layer writes it down
  Profile<S> bias = constants;
  Array<Index> left_source(n), right_source(n);
  for (Index l = 1; l <= size.depth; ++l) {
    const auto gate_at = [&](Index row) {
      const Index k = node_at[row];
      return k >= 0 && level[k] == l ? &circuit.nodes()[k] : nullptr;
    };
    for (Index row = 0; row < n; ++row) {
      const auto* gate = gate_at(row);
      left_source[row] = gate != nullptr ? slot[gate->a] : -1;
      right_source[row] = gate != nullptr ? slot[gate->b] : -1;
    }
    const auto left_route = fan_out({left_source.data(), static_cast<std::size_t>(n)});
    const auto right_route = fan_out({right_source.data(), static_cast<std::size_t>(n)});
    for (Index s = 0; s < left_route.size(); ++s) {
      Program<S> gather, move;
      if (s == 0) {
        for (Index c = 0; c < width; ++c) gather.lin(c, update, bias);
      } else {
        merge_routes(gather, left);
        merge_routes(gather, right);
      }
      route(move, left_route[s], left, n);
      route(move, right_route[s], right, n);
      result.stack.then(std::move(gather)).then(std::move(move));
    }
    // The operands stand at the gates: their product, and their sum or difference, each on the rows that ask for it.
    Program<S> operands, multiply, choose;
    const Form<S> left_sum{{left, S(1)}, {left + 1, S(1)}, {left + 2, S(1)}};
    const Form<S> right_sum{{right, S(1)}, {right + 1, S(1)}, {right + 2, S(1)}};
    operands.lin(left, left_sum).lin(right, right_sum).lin(product, right_sum);
    multiply.gate(product, Form<S>::column(left));
    const auto on = [&](S add, S subtract, S times) {
      return Profile<S>::of(n, [&](Index row) {
        const auto* gate = gate_at(row);
        if (gate == nullptr) return S{};
        return gate->kind == Kind::add ? add : gate->kind == Kind::subtract ? subtract : times;
      });
    };
    choose.lin(left, Form<S>::column(left), {}, on(S(1), S(1), S{}));
    choose.lin(right, Form<S>::column(right), {}, on(S(1), -S(1), S{}));
    choose.lin(product, Form<S>::column(product), {}, on(S{}, S{}, S(1)));
    result.stack.then(std::move(operands)).then(std::move(multiply)).then(std::move(choose));
    update = Form<S>{{wires, S(1)}, {left, S(1)}, {right, S(1)}, {product, S(1)}};
    bias = {};
  }
  Program<S> last;
  last.lin(wires, update, bias);
  for (Index c = 1; c < width; ++c) last.lin(c, {});
  result.stack.then(std::move(last));
  for (Index k : circuit.outputs()) result.outputs.emplace(typename CompiledCircuit<S>::Place{slot[k], wires});
  return result;
}

}  // namespace coyote::inline v0::theory

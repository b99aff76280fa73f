// SPDX-License-Identifier: Apache-2.0
// An arithmetic circuit, read from a text file, as Coyote layers: compiled with wires on channels and with wires along the
// sequence, checked on random inputs in a prime field, and run as ordinary layers in float and double.
//
//     circuit_to_coyote [circuit.txt]      without a file: a small circuit of its own; --help prints it
//
// Exit code: 0 if both stacks compute the circuit and have the sizes that the formulas say, 1 if not, 2 for a bad file.

#include <algorithm>
#include <cctype>
#include <cmath>
#include <coyote/coyote.hpp>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "coyote/theory/compile.hpp"
#include "coyote/theory/layers.hpp"
#include "coyote/theory/prime_field.hpp"
#include "support/report.hpp"

namespace cy = coyote;
namespace th = coyote::theory;

namespace {

constexpr const char* sample = R"(# (a + b i) (c + d i) with three products instead of four, and the square of its modulus
input a b c d
p = a * c
q = b * d
s = a + b
t = c + d
st = s * t
re = p - q            # real part
u = st - p
im = u - q            # imaginary part
re2 = re * re
im2 = im * im
norm = re2 + im2
output re im norm
)";

constexpr const char* usage = R"(circuit_to_coyote [circuit.txt]

A circuit has one statement a line; words stand apart by blanks, # begins a comment:

    input x y       the inputs, in order
    s = x * y       name = operand + operand, or -, or *; an operand is an earlier name or a constant: 7, -7, 7/2
    output s        the outputs, in order

Without a file, this one is compiled:

)";

std::string read(const std::string& path) {
  std::error_code ignored;
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, ignored)) {
    throw cy::Error("file", "a circuit file that can be read", path);
  }
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const bool has_others = std::any_of(text.begin(), text.end(), [](char c) {
    return std::iscntrl(static_cast<unsigned char>(c)) != 0 && c != '\n' && c != '\r' && c != '\t';
  });
  if (text.empty() || has_others) throw cy::Error("file", "a circuit file of plain text", path);
  return text;
}

/// The same circuit over a ring S, three times as a stack.
// [compile]
template <class S>
struct Compiled {
  th::Circuit<S> circuit;
  th::CompiledCircuit<S> own, recycled, routed;

  explicit Compiled(const std::string& text)
      : circuit(th::parse_circuit<S>(text)),
        own(th::compile_channels(circuit)),                                   // A: every product in a column of its own
        recycled(th::compile_channels(circuit, 1, th::Registers::recycled)),  // A: in a column that nothing reads any more
        routed(th::compile_routed(circuit)) {}                                // B: wires along the sequence
};
// [compile]

/// The inputs as a stack reads them: compiler A in a row, compiler B in a column.
template <class S>
cy::Matrix<S> embedded(const std::vector<S>& x, bool as_column) {
  const auto count = static_cast<cy::Index>(x.size());
  cy::Matrix<S> u(as_column ? count : 1, as_column ? 1 : count);
  std::copy(x.begin(), x.end(), u.begin());
  return u;
}

/// Does the stack compute the circuit on random elements of the field? With degree d, a wrong stack passes one draw with a
/// probability of at most d / 998 244 353.
// [verify]
bool computes(const th::CompiledCircuit<th::Field>& compiled, const th::Circuit<th::Field>& circuit, bool as_column) {
  constexpr int draws = 16;
  for (int draw = 0; draw < draws; ++draw) {
    const cy::Stream stream(cy::Seed{1}, cy::Purpose::task, 0, static_cast<std::uint64_t>(draw));
    std::vector<th::Field> x;
    for (cy::Index k = 0; k < circuit.inputs(); ++k) {
      x.push_back(static_cast<long long>(stream.below(static_cast<std::uint64_t>(k), th::Field::modulus)));
    }
    const cy::List<th::Field> came = compiled.run(embedded(x, as_column)), expected = circuit.evaluate(x);
    if (!std::equal(came.begin(), came.end(), expected.begin(), expected.end())) return false;
  }
  return true;
}
// [verify]

/// The stack as ordinary layers with dense parameters, on inputs between -1 and 1: largest distance of an output from the
/// circuit's, over the largest output; infinite where numbers overflow. NaN where the parameters are too many.
template <cy::Wrap W, class T>
double error_as_layers(const th::CompiledCircuit<double>& compiled, const th::Circuit<double>& circuit, bool as_column) {
  constexpr cy::Index most_parameters = 10'000'000;
  const th::Stack<double>& stack = compiled.stack;
  if (stack.size().dense_parameters > most_parameters) return NAN;
  const auto model = th::as_layers<W, cy::Cpu, T>(stack, [](double weight) { return static_cast<T>(weight); });
  cy::Context<cy::Cpu> context;
  double worst = 0, largest = 0;
  for (std::uint64_t draw = 0; draw < 4; ++draw) {
    const cy::Stream stream(cy::Seed{2}, cy::Purpose::task, 0, draw);
    std::vector<double> x;
    for (cy::Index k = 0; k < circuit.inputs(); ++k) {
      x.push_back(static_cast<double>(stream.below(static_cast<std::uint64_t>(k), 2049)) / 1024 - 1);  // exact in float too
    }
    const cy::Matrix<double> start = stack.embedded(embedded(x, as_column));
    cy::Matrix<T> u(stack.length(), stack.width()), y(stack.length(), stack.width());
    std::transform(start.begin(), start.end(), u.begin(), [](double value) { return static_cast<T>(value); });
    model.forward(context, {.sequences = 1, .length = stack.length()}, u, y);
    const cy::List<double> expected = circuit.evaluate(x);
    for (cy::Index k = 0; k < expected.size(); ++k) {
      const auto place = compiled.outputs[k];
      const double error = std::abs(static_cast<double>(y(place.row, place.column)) - expected[k]);
      if (!std::isfinite(error)) return INFINITY;
      worst = std::max(worst, error);
      largest = std::max(largest, std::abs(expected[k]));
    }
  }
  return largest > 0 ? worst / largest : worst;
}

bool convert(const std::string& text) {
  const Compiled<th::Field> exact(text);
  const Compiled<double> real(text);
  const th::CircuitSize size = exact.circuit.size();
  const auto number = [](cy::Index value) { return support::grouped(static_cast<long long>(value)); };
  std::printf("%td inputs, %td outputs, %td constants, %td gates, %td of them products; depth %td, in products %td\n\n",
              size.inputs, size.outputs, size.constants, size.gates, size.multiplications, size.depth, size.degree_depth);

  const cy::Index n = th::bit_ceil(std::max<cy::Index>(size.inputs + size.constants + size.gates, 2)), m = th::log2_ceil(n);
  const cy::Index channel_layers = 2 * size.degree_depth + 1, routed_layers = size.depth * (10 * m - 1) + 1;
  const cy::Index channels = std::max(size.inputs + size.multiplications, size.outputs);
  bool all = true;
  support::Table table({"compiler", "layers", "width", "length", "stored", "parameters", "exact", "float error", "double error"});
  const auto add = [&](const char* name, const th::CompiledCircuit<th::Field>& compiled, bool as_column, bool is_as_stated,
                       double float_error, double double_error) {
    const th::StackSize s = compiled.stack.size();
    const bool is_exact = computes(compiled, exact.circuit, as_column);
    all = all && is_exact && is_as_stated;
    const auto error = [](double value) {
      return std::isnan(value) ? std::string("-") : std::isinf(value) ? "overflow" : support::format("%.1e", value);
    };
    table.add({name, number(s.layers), number(s.width), number(s.length), number(s.stored), number(s.dense_parameters),
               !is_exact       ? "NO"
               : !is_as_stated ? "SIZE"
                               : "yes",
               error(float_error), error(double_error)});
  };
  using enum cy::Wrap;
  const th::StackSize own = exact.own.stack.size(), recycled = exact.recycled.stack.size(), routed = exact.routed.stack.size();
  add("A, channels", exact.own, false, own.layers == channel_layers && own.width == channels && own.length == 1,
      error_as_layers<causal, float>(real.own, real.circuit, false),
      error_as_layers<causal, double>(real.own, real.circuit, false));
  add("A, recycled", exact.recycled, false, recycled.layers == channel_layers && recycled.width <= channels,
      error_as_layers<causal, float>(real.recycled, real.circuit, false),
      error_as_layers<causal, double>(real.recycled, real.circuit, false));
  add("B, sequence", exact.routed, true, routed.layers == routed_layers && routed.width == 7 && routed.length == n,
      error_as_layers<cyclic, float>(real.routed, real.circuit, true),
      error_as_layers<cyclic, double>(real.routed, real.circuit, true));
  std::printf(
      "%s\nExact: equal to the circuit on random elements of the field of 998 244 353 elements, with the sizes of the formulas.\n"
      "Stored: numbers of the column programs; parameters: the same written out as dense layers. Errors: those layers on the\n"
      "CPU, inputs between -1 and 1, relative to the largest output; - for more than ten million parameters.\n%s\n",
      table.text().c_str(), all ? "Both compilers hold." : "SOMETHING DOES NOT HOLD.");
  return all;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count > 2) throw cy::Error("command line", "at most one argument, the circuit's file", cy::words(count - 1));
  if (count == 2 && (std::strcmp(arguments[1], "--help") == 0 || std::strcmp(arguments[1], "-h") == 0)) {
    std::printf("%s%s", usage, sample);
    return 0;
  }
  return convert(count == 2 ? read(arguments[1]) : sample) ? 0 : 1;
} catch (const cy::Error& error) {
  std::fprintf(stderr, "circuit_to_coyote: %s\n", error.what());
  return 2;
}

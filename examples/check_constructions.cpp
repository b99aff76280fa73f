// SPDX-License-Identifier: Apache-2.0
// Weights that theorems write down, checked: every construction that solves multi-query associative recall with Coyote layers,
// and attention beside them, over a grid of sizes. Exactly against the definition, then as ordinary float layers on the CPU.
//
//     check_constructions [picture.svg]

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <coyote/coyote.hpp>
#include <cstdio>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "coyote/theory/lanes.hpp"
#include "coyote/theory/layers.hpp"
#include "coyote/theory/mqar.hpp"
#include "coyote/theory/sort_scan.hpp"
#include "support/svg_chart.hpp"

namespace cy = coyote;
namespace th = coyote::theory;

namespace {

struct Size {
  cy::Index rows, key_bits, value_bits;
  cy::Index keys() const { return cy::Index{1} << key_bits; }
};

struct Instance {
  std::vector<cy::Token> keys, values, queries, answers;
  operator th::Aligned() const { return {keys, values, queries}; }
};

/// Unique keys, random values; three of four queries ask for a key of the sequence, earlier or not.
std::vector<Instance> draw(Size size, std::size_t count) {
  std::vector<Instance> result(count);
  for (std::size_t s = 0; s < count; ++s) {
    const auto stream = [&](std::uint64_t part) { return cy::Stream(cy::Seed{1}, cy::Purpose::task, part, s); };
    const cy::Stream shuffle = stream(0), value = stream(1), query = stream(2);
    const auto below = [](const cy::Stream& draws, cy::Index at, cy::Index bound) {
      return static_cast<cy::Index>(draws.below(static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(bound)));
    };
    std::vector<cy::Token> keys(static_cast<std::size_t>(size.keys()));
    for (std::size_t a = 0; a < keys.size(); ++a) keys[a] = static_cast<cy::Token>(a);
    for (std::size_t a = keys.size(); a-- > 1;) {
      std::swap(keys[a],
                keys[static_cast<std::size_t>(below(shuffle, static_cast<cy::Index>(a), static_cast<cy::Index>(a + 1)))]);
    }
    Instance& x = result[s];
    for (cy::Index i = 0; i < size.rows; ++i) {
      x.keys.push_back(keys[static_cast<std::size_t>(i)]);
      x.values.push_back(static_cast<cy::Token>(below(value, i, cy::Index{1} << size.value_bits)));
      x.queries.push_back(keys[static_cast<std::size_t>(below(query, i, i % 4 == 3 ? size.keys() : size.rows))]);
    }
    x.answers = cy::mqar_aligned(x.keys, x.values, x.queries);
  }
  return result;
}
cy::Token answer(const Instance& x, cy::Index row) { return std::max(x.answers[static_cast<std::size_t>(row)], cy::Token{0}); }

bool agrees(const Instance& x, const cy::Array<cy::Token>& answers) {
  for (cy::Index i = 0; i < answers.size(); ++i) {
    if (answers[i] != answer(x, i)) return false;
  }
  return true;
}

/// Largest distances of an answer bit of ordinary layers from the bit.
struct Errors {
  double in_float = NAN, in_bf16 = NAN, in_double = NAN;
};
struct Result {
  bool exact = false;
  Errors errors = {};
  double seconds = 0;  ///< building and running exactly
};

/// The nearest number with the 8 significant bits of bfloat16, ties to even.
float to_bf16(float x) {
  if (!std::isfinite(x)) return x;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000);
}
static_assert(std::bit_cast<std::uint32_t>(1.0f) == 0x3F800000);

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// An instance as a stack's input, and the largest distance of an answer from it in an output.
template <class T>
cy::Matrix<T> input(const th::Construction<double>& construction, const Instance& x) {
  cy::Matrix<T> u(construction.stack.length(), construction.stack.width());
  construction.write(x, [&](cy::Index i, cy::Index c, cy::Token number) { u(i, c) = static_cast<T>(number); });
  return u;
}
template <class T>
void compare(double& worst, const th::Construction<double>& construction, const Instance& x, const cy::Matrix<T>& y) {
  for (cy::Index i = 0; i < construction.rows; ++i) {
    for (cy::Index r = 0; r < construction.value.size; ++r) {
      const double bit = (answer(x, i) >> (construction.value.size - 1 - r)) & 1;
      const double error = std::abs(y(construction.answer_row + i, construction.answer_column + r) - bit);
      if (worst == worst && !(error <= worst)) worst = error;
    }
  }
}

/// The stack as ordinary layers, made and run one after another, where one of them has at most ten million dense parameters.
/// `round` is applied to weights, input and what every layer puts out; inside a layer, sums, convolutions and the gate are T's.
template <cy::Wrap W, class T, class Round>
double error_of(const th::Construction<double>& construction, std::span<const Instance> instances, Round&& round) {
  const auto& stack = construction.stack;
  const th::StackSize size = stack.size();
  if (size.dense_parameters / size.layers > 10'000'000) return NAN;
  cy::Context<cy::Cpu> context;
  std::vector<cy::Matrix<T>> rows;
  for (const Instance& x : instances) rows.push_back(input<T>(construction, x));
  cy::Matrix<T> y(stack.length(), stack.width());
  for (const auto& program : stack.programs()) {
    th::Stack<double> alone(stack.length(), stack.width(), stack.wrap());
    alone.then(program);
    const auto layer = th::as_layers<W, cy::Cpu, T>(alone, [&](double weight) { return round(static_cast<T>(weight)); });
    for (cy::Matrix<T>& u : rows) {
      layer.forward(context, {.sequences = 1, .length = stack.length()}, u, y);
      std::transform(y.begin(), y.end(), u.begin(), round);
    }
  }
  double worst = 0;
  for (std::size_t s = 0; s < rows.size(); ++s) compare(worst, construction, instances[s], rows[s]);
  return worst;
}

template <cy::Wrap W>
void as_layers(Result& result, const th::Construction<double>& construction, const std::vector<Instance>& instances) {
  const std::span<const Instance> some = std::span(instances).first(std::min(instances.size(), std::size_t{2}));
  const auto as_it_is = [](auto x) { return x; };
  result.errors = {error_of<W, float>(construction, some, as_it_is), error_of<W, float>(construction, some, to_bf16),
                   error_of<W, double>(construction, some, as_it_is)};
}

template <cy::Ring S, class Build>
Result check(const std::vector<Instance>& instances, Build&& build) {
  Result result{.exact = true};
  const auto start = std::chrono::steady_clock::now();
  const th::Construction<S> construction = build();
  for (const Instance& x : instances) result.exact = result.exact && agrees(x, construction.solve(x));
  result.seconds = since(start);
  return result;
}
Result check_lanes(const std::vector<Instance>& instances, const th::Construction<th::Lanes<>>& construction,
                   std::chrono::steady_clock::time_point start) {
  Result result{.exact = true};
  const std::vector<th::Aligned> views(instances.begin(), instances.end());
  const auto answers = th::solve_all(construction, std::span(views));
  for (std::size_t s = 0; s < instances.size(); ++s) {
    result.exact = result.exact && agrees(instances[s], answers[static_cast<cy::Index>(s)]);
  }
  result.seconds = since(start);
  return result;
}

/// Softmax attention on keys and queries of signs. The convolution delays keys and values by a row, so that row i sees rows j <
/// i; the sharpness leaves all other rows together a share of at most `miss`.
using Shift = cy::ShortConv<2, cy::NoBias>;
constexpr double miss = 1e-3;

struct Attending {
  Result result;
  cy::Index width = 0, parameters = 0;
};

/// The largest error of an answered query, over all instances. With `round`, weights, input and what the convolution and the
/// attention put out are rounded to bfloat16; inside attention everything is float.
double attention_error(Size size, const std::vector<Instance>& instances, bool round) {
  const cy::Index l = size.key_bits, mv = size.value_bits, width = 2 * l + mv;
  const auto number = [round](float x) { return round ? to_bf16(x) : x; };
  auto shift = cy::Model<Shift, cy::Cpu, float>::blank({.width = width, .length = size.rows});
  auto attend = cy::Model<cy::Attention<>, cy::Cpu, float>::blank({.width = width, .length = size.rows});
  const double others = static_cast<double>(size.rows), gap = std::min(2.0 / static_cast<double>(l), 1.0);
  const double beta = std::log(others * (1 - miss) / miss) / gap;
  const auto scale = static_cast<float>(beta / static_cast<double>(l) * std::sqrt(static_cast<double>(width)));
  auto set = [&](const cy::Path& path, auto& p) {
    const std::string name(path.view());
    for (cy::Index i = 0; i < p.rows; ++i) {
      for (cy::Index c = 0; c < p.columns; ++c) {
        float value = 0;
        if (name == "taps") value = i == (c < l ? 0 : 1) ? 1.f : 0.f;
        if (name == "query.weight") value = i == c && c < l ? scale : 0.f;
        if (name == "key.weight") value = i == c + l && c < l ? 1.f : 0.f;
        if (name == "value.weight") value = i == c + 2 * l ? 1.f : 0.f;
        if (name == "out.weight") value = i == c ? 1.f : 0.f;
        p.value(i, c) = number(value);
      }
    }
  };
  shift.visit(set);
  attend.visit(set);
  cy::Context<cy::Cpu> context;
  double worst = 0;
  for (const Instance& x : instances) {
    cy::Matrix<float> u(size.rows, width), y(size.rows, width);
    for (cy::Index i = 0; i < size.rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const auto put = [&](th::Code code, cy::Index first, cy::Index bits, cy::Token token) {
        th::Slot{code, first, bits}.write(token, [&](cy::Index c, cy::Token value) { u(i, c) = static_cast<float>(value); });
      };
      put(th::Code::signs, 0, l, x.queries[at]);
      put(th::Code::signs, l, l, x.keys[at]);
      put(th::Code::bits, 2 * l, mv, x.values[at]);
    }
    const cy::Batch batch{.sequences = 1, .length = size.rows};
    shift.forward(context, batch, u, y);
    std::transform(y.begin(), y.end(), u.begin(), number);
    attend.forward(context, batch, u, y);
    std::transform(y.begin(), y.end(), y.begin(), number);
    for (cy::Index i = 0; i < size.rows; ++i) {
      if (x.answers[static_cast<std::size_t>(i)] < 0) continue;  // without a match softmax mixes; a sink would answer 0
      for (cy::Index r = 0; r < mv; ++r) {
        const double bit = (answer(x, i) >> (mv - 1 - r)) & 1, error = std::abs(y(i, r) - bit);
        if (worst == worst && !(error <= worst)) worst = error;  // NaN stays
      }
    }
  }
  return worst;
}
Attending attention(Size size, const std::vector<Instance>& instances) {
  const auto start = std::chrono::steady_clock::now();
  const cy::Index width = 2 * size.key_bits + size.value_bits;
  Attending outcome{{}, width, cy::cost<cy::Chain<Shift, cy::Attention<>>>(width, size.rows).parameters};
  outcome.result.errors.in_float = attention_error(size, instances, false);
  outcome.result.exact = outcome.result.errors.in_float <= miss;  // so that rounding the bits is right
  outcome.result.seconds = since(start);
  outcome.result.errors.in_bf16 = attention_error(size, instances, true);
  return outcome;
}

/// Width against length for fixed keys and values, from the formulas that the checked stacks have.
std::string picture() {
  constexpr cy::Index l = 10, mv = 8;
  support::Chart chart;
  chart.title = "Width that solves recall of N rows (10-bit keys, 8-bit values)";
  chart.x_label = "N";
  chart.y_label = "log2 of the width";
  chart.log_x = true;
  support::Series attend{"attention", {}}, table{"M0 table", {}}, unfold{"M1 lag unfold", {}}, scalar{"M2 scalar tokens", {}},
      sort{"M3 sort, scan, unsort", {}};
  for (cy::Index n = 2; n <= 1024; n *= 2) {
    const auto add = [&](support::Series& series, cy::Index width) {
      series.points.emplace_back(static_cast<double>(n), std::log2(static_cast<double>(width)));
    };
    add(attend, 2 * l + mv);
    add(table, 2 * (cy::Index{1} << l) + mv + mv * (cy::Index{1} << l));
    add(unfold, th::lag_unfold<double>(n, l, mv).stack.width());
    add(scalar, 3 * n);
    add(sort, th::sort_scan<int>(n, l, mv).stack.width());
  }
  chart.series = {attend, table, unfold, scalar, sort};
  return support::svg_chart(chart);
}

}  // namespace

int main(int count, char** arguments) try {
  if (count > 2) throw cy::Error("check_constructions", "at most one argument, the picture's file", cy::words(count - 1));
  const std::string path = count == 2 ? arguments[1] : "constructions.svg";
  support::Table table({"construction", "N", "keys", "value bits", "layers", "width", "inner length", "parameters", "stored",
                        "stepwise", "exact", "float error", "bf16 error", "double error", "seconds"});
  bool all = true;
  const auto number = [](auto value) { return support::grouped(static_cast<long long>(value)); };
  const auto finish = [&](std::vector<std::string> cells, const Result& result) {
    const bool as_layers = std::isnan(result.errors.in_double) || result.errors.in_double <= 1e-3;
    all = all && result.exact && as_layers;
    cells.push_back(result.exact ? "yes" : "NO");
    for (const double error : {result.errors.in_float, result.errors.in_bf16, result.errors.in_double}) {
      cells.push_back(std::isnan(error) ? "-" : support::format("%.1e", error));
    }
    cells.push_back(support::format("%.2f", result.seconds));
    table.add(std::move(cells));
  };
  const auto report = [&]<class S>(const char* name, Size size, const th::Construction<S>& construction, const Result& result) {
    const th::StackSize stack = construction.stack.size();
    finish({name, number(size.rows), number(size.keys()), number(size.value_bits), number(stack.layers), number(stack.width),
            number(stack.length), number(stack.dense_parameters), number(stack.stored),
            construction.is_causal_step_by_step ? "yes" : "no"},
           result);
  };
  for (const Size size : {Size{4, 2, 1}, Size{4, 4, 4}, Size{16, 4, 4}, Size{16, 8, 8}, Size{64, 6, 8}, Size{256, 8, 8}}) {
    const cy::Index n = size.rows, l = size.key_bits, mv = size.value_bits;
    const cy::Index c = size.keys();
    const std::vector<Instance> instances = draw(size, 32), few = draw(size, 4);

    const Attending attending = attention(size, instances);
    finish({"attention", number(n), number(c), number(mv), "2", number(attending.width), number(n), number(attending.parameters),
            number(attending.parameters), "yes"},
           attending.result);

    Result m0 = check<long>(few, [&] { return th::table<long>(n, c, mv); });
    const auto m0_layers = th::table<double>(n, c, mv);
    as_layers<cy::Wrap::causal>(m0, m0_layers, instances);
    report("M0 table", size, m0_layers, m0);

    Result m1 = check<th::Field>(few, [&] { return th::lag_unfold<th::Field>(n, l, mv); });
    const auto m1_layers = th::lag_unfold<double>(n, l, mv);
    as_layers<cy::Wrap::causal>(m1, m1_layers, instances);
    report("M1 lag unfold", size, m1_layers, m1);

    const Result m2 = check<th::Field>(few, [&] { return th::scalar_tokens(n); });  // numbers of a field: nothing for floats
    report("M2 scalar tokens", size, th::scalar_tokens(n), m2);

    for (const cy::Wrap wrap : {cy::Wrap::cyclic, cy::Wrap::causal}) {
      if (wrap == cy::Wrap::causal && n > 64) continue;  // as exact, but ten times the work: the records wander
      const auto start = std::chrono::steady_clock::now();
      Result m3 = check_lanes(instances, th::sort_scan<th::Lanes<>>(n, l, mv, wrap), start);
      const auto m3_layers = th::sort_scan<double>(n, l, mv, wrap);
      if (wrap == cy::Wrap::cyclic) {
        as_layers<cy::Wrap::cyclic>(m3, m3_layers, instances);
      } else {
        as_layers<cy::Wrap::causal>(m3, m3_layers, instances);
      }
      report(wrap == cy::Wrap::cyclic ? "M3 sort, scan (cyclic)" : "M3 sort, scan (causal)", size, m3_layers, m3);
    }
  }
  std::printf(
      "Multi-query associative recall by construction. Exact: every answer equals the definition's, in exact arithmetic\n"
      "(attention: every answered query to %.0e, so that bits round right). Float and double error: the same stack as\n"
      "ordinary layers on the CPU, largest distance of an answer bit; bf16 error: the float layers with weights, input and\n"
      "every layer's output rounded to bfloat16. - where one layer has too many dense parameters, or numbers are a prime\n"
      "field's. Long convolutions by transforms round, and layers multiply errors: the hundreds of layers of M3, exact\n"
      "where convolutions are added up directly, need double there. Rounding to bfloat16 takes numbers near -1 and 1 back\n"
      "to them, and so undoes part of what transforms did.\n\n%s\n",
      miss, table.text().c_str());
  std::ofstream file(path);
  file << picture();
  if (!file.flush()) throw cy::Error("check_constructions", "a file that can be written", path);
  std::printf("Width against N: %s\n%s\n", path.c_str(), all ? "All constructions hold." : "SOMETHING DOES NOT HOLD.");
  return all ? 0 : 1;
} catch (const cy::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}

// SPDX-License-Identifier: Apache-2.0
// Weights that theorems write down, checked: every construction that solves multi-query associative recall with Coyote layers,
// and attention beside them, over a grid of sizes. Exactly against the definition, then as ordinary float layers on the CPU.
//
//     check_constructions [picture.svg]

#include <algorithm>
#include <chrono>
#include <cmath>
#include <coyote/coyote.hpp>
#include <cstdio>
#include <fstream>
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

struct Result {
  bool exact = false;
  double float_error = NAN, double_error = NAN;  ///< largest distance of an answer bit of ordinary layers from the bit
  double seconds = 0;                            ///< building and running exactly
};

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The stack as ordinary layers with dense parameters, where those fit in a few hundred megabytes.
template <cy::Wrap W, class T>
double error_of(const th::Construction<double>& construction, const std::vector<Instance>& instances) {
  constexpr cy::Index most_parameters = 30'000'000;
  const auto& stack = construction.stack;
  if (stack.size().dense_parameters > most_parameters) return NAN;
  const auto model = th::as_layers<W, cy::Cpu, T>(stack, [](double weight) { return static_cast<T>(weight); });
  cy::Context<cy::Cpu> context;
  double worst = 0;
  for (std::size_t s = 0; s < std::min(instances.size(), std::size_t{2}); ++s) {
    const Instance& x = instances[s];
    cy::Matrix<T> u(stack.length(), stack.width()), y(stack.length(), stack.width());
    construction.write(x, [&](cy::Index i, cy::Index c, cy::Token number) { u(i, c) = static_cast<T>(number); });
    model.forward(context, {.sequences = 1, .length = stack.length()}, u, y);
    for (cy::Index i = 0; i < construction.rows; ++i) {
      for (cy::Index r = 0; r < construction.value.size; ++r) {
        const double bit = (answer(x, i) >> (construction.value.size - 1 - r)) & 1;
        const double error = std::abs(y(construction.answer_row + i, construction.answer_column + r) - bit);
        if (worst == worst && !(error <= worst)) worst = error;
      }
    }
  }
  return worst;
}

template <cy::Wrap W>
void as_layers(Result& result, const th::Construction<double>& construction, const std::vector<Instance>& instances) {
  result.float_error = error_of<W, float>(construction, instances);
  result.double_error = error_of<W, double>(construction, instances);
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
using Attend = cy::Chain<cy::ShortConv<2, cy::NoBias>, cy::Attention<>>;
constexpr double miss = 1e-3;

struct Attending {
  Result result;
  cy::Index width = 0, parameters = 0;
};

Attending attention(Size size, const std::vector<Instance>& instances) {
  const auto start = std::chrono::steady_clock::now();
  const cy::Index l = size.key_bits, mv = size.value_bits, width = 2 * l + mv;
  auto model = cy::Model<Attend, cy::Cpu, float>::blank({.width = width, .length = size.rows});
  const double others = static_cast<double>(size.rows), gap = std::min(2.0 / static_cast<double>(l), 1.0);
  const double beta = std::log(others * (1 - miss) / miss) / gap;
  const auto scale = static_cast<float>(beta / static_cast<double>(l) * std::sqrt(static_cast<double>(width)));
  auto set = [&](const cy::Path& path, auto& p) {
    const std::string name(path.view());
    for (cy::Index i = 0; i < p.rows; ++i) {
      for (cy::Index c = 0; c < p.columns; ++c) {
        float value = 0;
        if (name == "0.taps") value = i == (c < l ? 0 : 1) ? 1.f : 0.f;
        if (name == "1.query.weight") value = i == c && c < l ? scale : 0.f;
        if (name == "1.key.weight") value = i == c + l && c < l ? 1.f : 0.f;
        if (name == "1.value.weight") value = i == c + 2 * l ? 1.f : 0.f;
        if (name == "1.out.weight") value = i == c ? 1.f : 0.f;
        p.value(i, c) = value;
      }
    }
  };
  model.visit(set);
  Attending outcome{{.exact = true, .float_error = 0}, width, cy::cost<Attend>(width, size.rows).parameters};
  cy::Context<cy::Cpu> context;
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
    model.forward(context, {.sequences = 1, .length = size.rows}, u, y);
    for (cy::Index i = 0; i < size.rows; ++i) {
      if (x.answers[static_cast<std::size_t>(i)] < 0) continue;  // without a match softmax mixes; a sink would answer 0
      for (cy::Index r = 0; r < mv; ++r) {
        const double bit = (answer(x, i) >> (mv - 1 - r)) & 1, error = std::abs(y(i, r) - bit);
        double& worst = outcome.result.float_error;
        if (worst == worst && !(error <= worst)) worst = error;  // NaN stays
      }
    }
  }
  outcome.result.exact = outcome.result.float_error <= miss;  // so that rounding the bits is right
  outcome.result.seconds = since(start);
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
                        "stepwise", "exact", "float error", "double error", "seconds"});
  bool all = true;
  const auto number = [](auto value) { return support::grouped(static_cast<long long>(value)); };
  const auto finish = [&](std::vector<std::string> cells, const Result& result) {
    const bool as_layers = std::isnan(result.double_error) || result.double_error <= 1e-3;
    all = all && result.exact && as_layers;
    cells.push_back(result.exact ? "yes" : "NO");
    for (const double error : {result.float_error, result.double_error}) {
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
      "ordinary layers on the CPU, largest distance of an answer bit; - where dense parameters are too many, or numbers\n"
      "are a prime field's. Long convolutions by transforms round, and layers multiply errors: the hundreds of layers of\n"
      "M3, exact where convolutions are added up directly, need double there.\n\n%s\n",
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

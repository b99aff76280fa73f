// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coyote/core/mixer.hpp"

namespace coyote::inline v0 {

namespace detail {

/// A count with commas between thousands.
inline std::string grouped(Index value) {
  std::string digits = words(value);
  const std::size_t sign = value < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > sign + 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

/// Appends "  name      value\n" with all values in one column.
inline void report_line(std::string& text, std::string_view name, const std::string& value) {
  constexpr std::size_t column = 20;
  text += "  ";
  text += name;
  text.append(name.size() < column ? column - name.size() : 1, ' ');
  text += value;
  text += '\n';
}

inline std::string report(Dimensions dims, bool causal, bool input_dependent, bool bounded, Degree degree, const Cost& cost) {
  const auto yes_or_no = [](bool fact) { return std::string(fact ? "yes" : "no"); };
  std::string text = words("one sequence of ", dims.length, " rows, width ", dims.width, "\n");
  report_line(text, "causal", yes_or_no(causal));
  report_line(text, "input-dependent", yes_or_no(input_dependent));
  report_line(text, "degree", degree.is_infinite() ? "not a polynomial" : words(degree.value));
  report_line(text, "parameters", grouped(cost.parameters));
  report_line(text, "multiplications", grouped(cost.multiplications));
  report_line(text, "additions", grouped(cost.additions));
  report_line(text, "functions", grouped(cost.functions));
  if (causal) {
    std::string state = grouped(cost.state_scalars) + " scalars";
    if (cost.state_integers > 0) state += ", " + grouped(cost.state_integers) + " integers";
    report_line(text, "decoding state", state + (bounded ? ", whatever the length" : ", growing with the length"));
  }
  if (cost.worst_case) text += "  (upper bounds: which pairs attend depends on the tokens)\n";
  return text;
}

}  // namespace detail

/// The facts and the cost of an architecture for one sequence, as a plain text table: what the compiler and the textbook
/// algorithm say, without running anything. `pairs` and `options` as in cost<M>.
template <class M>
std::string describe(Index width, Index length, Index pairs = -1, const typename M::Options& options = {}) {
  return detail::report({width, length}, is_causal<M>, is_input_dependent<M>, state_is_bounded<M>, degree<M>,
                        cost<M>(width, length, pairs, options));
}

}  // namespace coyote::inline v0

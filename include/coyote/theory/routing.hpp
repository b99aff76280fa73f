// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "coyote/theory/stack.hpp"

namespace coyote::inline v0::theory {

/// One step of routing n rows: every row keeps its value or takes the one `distance` rows further. Rows whose bit `distance` is 0
/// form the low side: in an exchange, a low row takes from below (i + distance), a high one from above (i - distance). In a
/// copying step any row takes from above.
struct RouteStage {
  Index distance = 0;
  bool copies = false;
  Array<bool> takes;  ///< for every row, whether it takes
  constexpr bool from_below(Index i) const { return takes[i] && !copies && (i & distance) == 0; }
  constexpr bool from_above(Index i) const { return takes[i] && (copies || (i & distance) != 0); }
};

/// n = 2^m rows. Errors: another number; fewer than 2.
constexpr Index route_levels(Index n, const char* where) {
  if (n < 2 || (n & (n - 1)) != 0) throw Error(where, "a power of two of at least 2 rows", words(n));
  return log2_ceil(n);
}

namespace detail {
/// The looping algorithm: sets the outermost two stages of the rows first .. first + n - 1 and goes on with the two halves.
constexpr void route_block(List<RouteStage>& stages, Index outer, Index first, std::span<const Index> source) {
  const Index n = static_cast<Index>(source.size()), half = n / 2, inner = stages.size() - 1 - outer;
  const auto from = [&](Index o) { return source[static_cast<std::size_t>(o)]; };
  if (n == 2) {
    stages[outer].takes[first] = stages[outer].takes[first + 1] = from(0) == 1;
    return;
  }
  Array<Index> to(n);
  for (Index o = 0; o < n; ++o) to[from(o)] = o;
  // Two inputs half a block apart pass through different halves, and so do two outputs: follow these constraints in a loop.
  Array<int> side(n);  // of an input: 0 open, 1 upper half, 2 lower half
  for (Index start = 0; start < n; ++start) {
    for (Index s = start; side[s] == 0;) {
      const Index partner = s ^ half;
      side[s] = 1;
      side[partner] = 2;
      s = from(to[partner] ^ half);
    }
  }
  Array<Index> upper(half), lower(half);
  for (Index o = 0; o < half; ++o) {
    const bool crossed_in = side[o] == 2, crossed_out = side[from(o)] == 2;
    stages[outer].takes[first + o] = stages[outer].takes[first + o + half] = crossed_in;
    stages[inner].takes[first + o] = stages[inner].takes[first + o + half] = crossed_out;
    upper[o] = from(crossed_out ? o + half : o) % half;
    lower[o] = from(crossed_out ? o : o + half) % half;
  }
  route_block(stages, outer + 1, first, {upper.data(), static_cast<std::size_t>(half)});
  route_block(stages, outer + 1, first + half, {lower.data(), static_cast<std::size_t>(half)});
}
}  // namespace detail

/// Benes network: row o receives the value of row source[o], source a permutation of n = 2^m rows. 2m - 1 exchanges, at
/// distances n/2, n/4, .., 1, .., n/2. Errors: not a permutation; n not a power of two or below 2.
constexpr List<RouteStage> benes(std::span<const Index> source) {
  const Index n = static_cast<Index>(source.size()), m = route_levels(n, "theory::benes");
  Array<bool> seen(n);
  for (Index s : source) {
    if (s < 0 || s >= n || seen[s]) throw Error("theory::benes", words("a permutation of 0 .. ", n - 1), words("row ", s));
    seen[s] = true;
  }
  List<RouteStage> stages;
  for (Index k = 0; k < 2 * m - 1; ++k) {
    const Index down = k < m ? m - 1 - k : k - m + 1;
    stages.emplace(RouteStage{Index{1} << down, false, Array<bool>(n)});
  }
  detail::route_block(stages, 0, 0, source);
  return stages;
}

/// Any map: row o receives the value of row source[o]; several rows may ask for the same one, and a row with source -1 receives
/// anything. 5m - 2 stages: a Benes network to blocks of equal values, m copying steps that fill the blocks, a Benes network to
/// the destinations. Errors: a source outside -1 .. n-1; n not a power of two or below 2.
constexpr List<RouteStage> fan_out(std::span<const Index> source) {
  const Index n = static_cast<Index>(source.size()), m = route_levels(n, "theory::fan_out");
  const auto from = [&](Index o) { return source[static_cast<std::size_t>(o)]; };
  Array<Index> wanted(n), start(n), place(n), place_in_block(n);
  for (Index o = 0; o < n; ++o) {
    if (from(o) < -1 || from(o) >= n) throw Error("theory::fan_out", words("a source in -1 .. ", n - 1), words(from(o)));
    if (from(o) >= 0) ++wanted[from(o)];
  }
  // Blocks stand in the order of their sources; the rows behind them and the sources nobody wants are paired in order.
  Index used = 0;
  for (Index s = 0; s < n; ++s) {
    start[s] = used;
    used += wanted[s];
  }
  Array<Index> gather(n), scatter(n), filled(n);
  Array<bool> is_start(n);
  for (Index s = 0; s < n; ++s) {
    if (wanted[s] == 0) continue;
    gather[start[s]] = s;
    is_start[start[s]] = true;
  }
  Index idle = 0;
  for (Index k = 0; k < n; ++k) {
    if (is_start[k]) continue;
    while (wanted[idle] > 0) ++idle;
    gather[k] = idle++;
  }
  for (Index o = 0; o < n; ++o) {
    if (from(o) < 0) {
      scatter[o] = used++;
      continue;
    }
    place_in_block[start[from(o)] + filled[from(o)]] = filled[from(o)];
    scatter[o] = start[from(o)] + filled[from(o)]++;
  }
  List<RouteStage> stages = benes({gather.data(), static_cast<std::size_t>(n)});
  for (Index k = 0; k < m; ++k) {
    RouteStage& stage = stages.emplace(RouteStage{Index{1} << k, true, Array<bool>(n)});
    for (Index i = 0; i < n; ++i) stage.takes[i] = (place_in_block[i] >> k) == 1;
  }
  for (RouteStage& stage : benes({scatter.data(), static_cast<std::size_t>(n)})) stages.emplace(std::move(stage));
  return stages;
}

/// The moving half of a stage in three columns that hold the same value: the first keeps, the second takes from below, the third
/// from above, each masked; their sum is the routed value. Cyclic stacks move in place. Causal ones cannot look
/// below: the frame of n rows, which begins at row `drift`, moves down by the stage's distance.
template <Ring S>
constexpr void route(Program<S>& program, const RouteStage& stage, Index first_column, Index length, Wrap wrap = Wrap::cyclic,
                     Index drift = 0) {
  const Index n = stage.takes.size(), d = stage.distance;
  const bool is_cyclic = wrap == Wrap::cyclic;
  const Index begin = is_cyclic ? 0 : drift + d;
  const auto mask = [&](auto&& holds) {
    return Profile<S>::of(length, [&](Index i) { return S(begin <= i && i < begin + n && holds(i - begin) ? 1 : 0); });
  };
  program.conv(first_column, Impulses<S>::at(is_cyclic ? 0 : d), mask([&](Index i) { return !stage.takes[i]; }));
  program.conv(first_column + 1, Impulses<S>::at(is_cyclic ? length - d : 0), mask([&](Index i) { return stage.from_below(i); }));
  program.conv(first_column + 2, Impulses<S>::at(is_cyclic ? d : 2 * d), mask([&](Index i) { return stage.from_above(i); }));
}

/// The sum of three columns, in all three.
template <Ring S>
constexpr void merge_routes(Program<S>& program, Index first_column) {
  const Index c = first_column;
  for (Index k = c; k < c + 3; ++k) program.lin(k, {{c, S(1)}, {c + 1, S(1)}, {c + 2, S(1)}});
}

/// A stack that routes a column, and the row at which the result begins, in column 0.
template <Ring S>
struct RoutingStack {
  Stack<S> stack;
  Index first_row = 0;
};

namespace detail {
template <Ring S>
constexpr RoutingStack<S> routing_stack(const List<RouteStage>& stages, Index n, Wrap wrap) {
  Index length = n, drift = 0;
  for (const RouteStage& stage : stages) length += wrap == Wrap::causal ? stage.distance : 0;
  RoutingStack<S> result{Stack<S>(length, 3, wrap), 0};
  result.stack.then(Program<S>().lin(1, Form<S>::column(0)).lin(2, Form<S>::column(0)));
  for (const RouteStage& stage : stages) {
    Program<S> move, merge;
    route(move, stage, 0, length, wrap, drift);
    merge_routes(merge, 0);
    result.stack.then(std::move(move)).then(std::move(merge));
    drift += wrap == Wrap::causal ? stage.distance : 0;
  }
  result.first_row = drift;
  return result;
}
}  // namespace detail

/// y[first_row + o] = u[source[o]] in column 0, source a permutation of n = 2^m rows: 4m - 1 layers, width 3. Cyclic: N' = n,
/// first row 0; causal: N' = 3n - 3, first row 2n - 3. Errors: as benes.
template <Ring S>
constexpr RoutingStack<S> permute_rows(std::span<const Index> source, Wrap wrap = Wrap::cyclic) {
  return detail::routing_stack<S>(benes(source), static_cast<Index>(source.size()), wrap);
}

/// The same for any map, as fan_out reads it: 10m - 3 layers, width 3. Cyclic: N' = n, first row 0; causal: N' = 6n - 7, first
/// row 5n - 7. Errors: as fan_out.
template <Ring S>
constexpr RoutingStack<S> map_rows(std::span<const Index> source, Wrap wrap = Wrap::cyclic) {
  return detail::routing_stack<S>(fan_out(source), static_cast<Index>(source.size()), wrap);
}

}  // namespace coyote::inline v0::theory

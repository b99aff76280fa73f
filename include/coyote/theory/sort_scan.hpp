// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/theory/mqar.hpp"

namespace coyote::inline v0::theory {

namespace detail {

/// The layers of sort_scan, column by column. Names as in its comment.
template <Ring S>
class SortScan {
 public:
  constexpr SortScan(Index rows, Index l, Index mv, Wrap wrap)
      : l_(l),
        mv_(mv),
        half_(bit_ceil(rows)),
        n_(2 * half_),
        m_(log2_ceil(n_)),
        w_(l + m_),
        record_(w_ + 1 + mv),
        stages_(m_ * (m_ + 1) / 2),
        cyclic_(wrap == Wrap::cyclic),
        stack_(cyclic_ ? n_ : 5 * n_ - 2 * m_ - 4, 3 * record_ + 2 * w_ + 2 * stages_, wrap) {}

  constexpr Construction<S> build(Index rows) {
    Program<S> split;  // row r < half is query record r, row half + j key record j
    for (Index r = 0; r < l_; ++r) split.conv(u(r), Impulses<S>::at(half_));
    for (Index b = 0; b < mv_; ++b) split.conv(u(w_ + 1 + b), Impulses<S>::at(half_));
    stack_.then(std::move(split));
    Index stage = 0;
    for (Index block = 1; block <= m_; ++block) {
      for (Index q = block; q-- > 0; ++stage) exchange(stage, Index{1} << q, Index{1} << block);
    }
    scan();
    compare_and_take();
    for (Index block = m_; block > 0; --block) {
      for (Index q = 0; q < block; ++q) undo(--stage, Index{1} << q, block == m_ && q == 0);
    }
    Program<S> merge;
    for (Index b = 0; b < mv_; ++b) merge.lin(value(b), merged(w_ + 1 + b));
    stack_.then(std::move(merge));
    Construction<S> result{std::move(stack_), rows, {Code::bits, u(0), l_}, {Code::bits, u(w_ + 1), mv_}, {Code::bits, x(0), l_}};
    result.answer_row = offset_;
    result.answer_column = value(0);
    result.is_causal_step_by_step = false;
    return result;
  }

 private:
  // Columns: the records, two copies of them for the partner above and below, and what comparisons and stages need.
  constexpr Index x(Index r) const { return r; }
  constexpr Index u(Index r) const { return record_ + r; }
  constexpr Index d(Index r) const { return 2 * record_ + r; }
  constexpr Index less(Index r) const { return 3 * record_ + r; }
  constexpr Index equal(Index r) const { return 3 * record_ + w_ + r; }
  constexpr Index swap_low(Index stage) const { return 3 * record_ + 2 * w_ + 2 * stage; }
  constexpr Index swap_high(Index stage) const { return swap_low(stage) + 1; }
  constexpr Index value(Index b) const { return x(w_ + 1 + b); }

  static constexpr Form<S> form(Index a) { return Form<S>::column(a); }
  constexpr Form<S> merged(Index r) const { return {{x(r), S(1)}, {u(r), S(1)}, {d(r), S(1)}}; }
  static constexpr Form<S> sum(Index a, Index b) { return {{a, S(1)}, {b, S(1)}}; }
  static constexpr Form<S> minus(Index a, Index b) { return {{a, S(-1)}, {b, S(-1)}}; }
  /// x XNOR y from x, y and their product, up to the bias 1.
  static constexpr Form<S> same(Index a, Index b, Index product) { return {{a, S(-1)}, {b, S(-1)}, {product, S(2)}}; }

  /// f(row of the frame), 0 outside of the frame: the rows that hold records, which causal exchanges move down.
  template <class F>
  constexpr Profile<S> framed(F&& f) const {
    Profile<S> p;
    for (Index i = 0; i < n_;) {
      const int v = f(i);
      Index last = i;
      while (last + 1 < n_ && f(last + 1) == v) ++last;
      if (v != 0) p.runs.emplace(typename Profile<S>::Run{offset_ + i, offset_ + last, S(v)});
      i = last + 1;
    }
    return p;
  }
  /// Moves every column down with the frame, but for those that `of_its_own` says.
  template <class F>
  constexpr void drift(Program<S>& program, Index distance, F&& of_its_own) const {
    for (Index c = 0; c < stack_.width(); ++c) {
      if (!of_its_own(c)) program.conv(c, Impulses<S>::at(distance));
    }
  }
  // Taps that read the same row, the partner below (a later row) and the partner above, in the frame after this layer.
  constexpr Impulses<S> own(Index distance) const { return Impulses<S>::at(cyclic_ ? 0 : distance); }
  constexpr Impulses<S> from_below(Index distance) const { return Impulses<S>::at(cyclic_ ? n_ - distance : 0); }
  constexpr Impulses<S> from_above(Index distance) const { return Impulses<S>::at(cyclic_ ? distance : 2 * distance); }

  /// The records of the first stage: token from x or u, time and kind through biases, value from u.
  constexpr Form<S> loaded(Index r) const {
    Form<S> result;
    if (r < l_) result = sum(x(r), u(r));
    if (r > w_) result = form(u(r));
    return result;
  }
  constexpr Profile<S> load_bias(Index r) const {
    return framed([&](Index i) -> int {
      if (r < l_ || r > w_) return 0;
      const bool is_key = i >= half_;
      if (r == w_) return is_key ? 1 : 0;
      const Index time = is_key ? 2 * (i - half_) + 1 : 2 * i;
      return static_cast<int>((time >> (w_ - 1 - r)) & 1);
    });
  }

  /// One stage of the bitonic network: rows i and i + distance compare their words and exchange records.
  constexpr void exchange(Index stage, Index distance, Index block) {
    const auto low = [=](Index i) { return (i & distance) == 0 ? 1 : 0; };
    const auto high = [=](Index i) { return (i & distance) == 0 ? 0 : 1; };
    // A row keeps the smaller record where its side and the direction of its block agree.
    const auto keeps_smaller = [=](Index i) { return ((i & distance) == 0) == ((i & block) == 0); };
    const auto sign = [=](Index i) { return keeps_smaller(i) ? 1 : -1; };
    Program<S> copy;
    for (Index r = 0; r < record_; ++r) {
      const Form<S> f = stage == 0 ? loaded(r) : merged(r);
      const Profile<S> bias = stage == 0 ? load_bias(r) : Profile<S>();
      copy.lin(x(r), f, bias);
      copy.lin(u(r), f, bias);
      copy.lin(d(r), f, bias);
      if (r < w_) copy.lin(less(r), f, bias);
    }
    stack_.then(std::move(copy));
    Program<S> fetch;
    if (!cyclic_) {
      offset_ += distance;
      drift(fetch, distance, [&](Index c) { return c >= u(0) && c < less(0); });
    }
    const Profile<S> on_low = framed(low), on_high = framed(high);
    for (Index r = 0; r < record_; ++r) {
      fetch.conv(u(r), from_below(distance), on_low);
      fetch.conv(d(r), from_above(distance), on_high);
    }
    stack_.then(std::move(fetch));
    Program<S> product, bits;
    for (Index r = 0; r < w_; ++r) {
      product.gate(less(r), sum(u(r), d(r)));
      bits.lin(less(r), {{x(r), S(1)}, {less(r), S(-1)}});  // partner's bit < own bit
      bits.lin(equal(r), {{x(r), S(-1)}, {u(r), S(-1)}, {d(r), S(-1)}, {less(r), S(2)}}, S(1));
    }
    stack_.then(std::move(product));
    stack_.then(std::move(bits));
    for (Index level = 0; level < log2_ceil(w_); ++level) {
      Program<S> tree;  // less(r): all higher bits of its block equal, and this one smaller
      for (Index r = 0; r < w_; ++r) {
        if (((r >> level) & 1) == 0) continue;
        const Index left = ((r >> level) << level) - 1, last = std::min(((r >> level) + 1) << level, w_) - 1;
        tree.gate(less(r), form(equal(left)));
        if (r == last) tree.gate(equal(r), form(equal(left)));
      }
      stack_.then(std::move(tree));
    }
    Program<S> decide;
    const Profile<S> bias = framed([&](Index i) { return keeps_smaller(i) ? 0 : -1; });
    decide.lin(swap_low(stage), columns<S>(less(0), w_), bias, framed([&](Index i) { return sign(i) * low(i); }));
    decide.lin(swap_high(stage), columns<S>(less(0), w_), bias, framed([&](Index i) { return sign(i) * high(i); }));
    stack_.then(std::move(decide));
    Program<S> swap;
    for (Index r = 0; r < record_; ++r) {
      swap.gate(x(r), minus(swap_low(stage), swap_high(stage)), S(1));
      swap.gate(u(r), form(swap_low(stage)));
      swap.gate(d(r), form(swap_high(stage)));
    }
    stack_.then(std::move(swap));
  }

  /// Carries the latest key record at or above each row down to it: flag, token and value.
  constexpr void scan() {
    const auto first = [](Index i) { return i == 0 ? 1 : 0; };
    Program<S> merge, mark;
    for (Index r = 0; r < record_; ++r) merge.lin(x(r), merged(r));
    for (Index r = 0; r < l_; ++r) merge.lin(less(r), merged(r));
    merge.lin(flag(), merged(w_), {}, [&] {  // row 0 holds a query of time 0 or nothing that anyone may read
      Profile<S> not_first = S(1);
      not_first.runs.emplace(typename Profile<S>::Run{offset_, offset_, S{}});
      return not_first;
    }());
    stack_.then(std::move(merge));
    for (Index r = 0; r < l_; ++r) mark.gate(less(r), form(x(w_)));
    mark.lin(flag(), form(flag()), framed(first));  // a sentinel: no row reads past row 0
    stack_.then(std::move(mark));
    for (Index k = 0; k < m_; ++k) {
      Program<S> copy, step;
      for (Index s = 0; s < 1 + l_ + mv_; ++s) {
        const Index a = scanned(s), b = partner(s);
        const Form<S> both = k == 0 ? form(a) : sum(a, b);
        copy.lin(a, both);
        copy.lin(b, both);
        step.gate(b, {{flag(), S(-1)}}, S(1), Impulses<S>::at(Index{1} << k));
      }
      stack_.then(std::move(copy));
      stack_.then(std::move(step));
    }
  }
  constexpr Index flag() const { return equal(w_ - 1); }
  constexpr Index scanned(Index s) const { return s == 0 ? flag() : s <= l_ ? less(s - 1) : value(s - 1 - l_); }
  constexpr Index partner(Index s) const { return s == 0 ? u(w_) : s <= l_ ? u(s - 1) : u(w_ + s - l_); }

  /// Keeps the carried value where the carried token is the row's own.
  constexpr void compare_and_take() {
    Program<S> merge, product, bits, take;
    for (Index s = 0; s < 1 + l_ + mv_; ++s) merge.lin(scanned(s), sum(scanned(s), partner(s)));
    for (Index r = 0; r < l_; ++r) {
      merge.lin(d(r), sum(less(r), u(r)));
      product.gate(d(r), form(x(r)));
      bits.lin(equal(r), same(x(r), less(r), d(r)), S(1));
    }
    stack_.then(std::move(merge));
    stack_.then(std::move(product));
    stack_.then(std::move(bits));
    for (Index level = 0, nodes = l_; nodes > 1; ++level, nodes = (nodes + 1) / 2) {
      const auto at = [&](Index node) { return equal(std::min((node + 1) << level, l_) - 1); };
      Program<S> tree;
      for (Index node = 0; node + 1 < nodes; node += 2) tree.gate(at(node + 1), form(at(node)));
      stack_.then(std::move(tree));
    }
    for (Index b = 0; b < mv_; ++b) take.gate(value(b), form(equal(l_ - 1)));
    stack_.then(std::move(take));
  }

  /// Takes one stage's exchange back, for the values alone.
  constexpr void undo(Index stage, Index distance, bool first) {
    Program<S> copy, swap;
    for (Index b = 0; b < mv_; ++b) {
      const Index r = w_ + 1 + b;
      const Form<S> f = first ? form(x(r)) : merged(r);
      copy.lin(x(r), f);
      copy.lin(u(r), f);
      copy.lin(d(r), f);
    }
    if (!cyclic_) {  // the swap bits of this stage go ahead, to where the frame is after the exchange
      copy.conv(swap_low(stage), Impulses<S>::at(distance));
      copy.conv(swap_high(stage), Impulses<S>::at(distance));
      offset_ += distance;
      drift(swap, distance, [&](Index c) {
        const bool of_value = c < less(0) && c % record_ > w_;
        return of_value || c == swap_low(stage) || c == swap_high(stage);
      });
    }
    stack_.then(std::move(copy));
    for (Index b = 0; b < mv_; ++b) {
      const Index r = w_ + 1 + b;
      swap.gate(x(r), minus(swap_low(stage), swap_high(stage)), S(1), own(distance));
      swap.gate(u(r), form(swap_low(stage)), {}, from_below(distance));
      swap.gate(d(r), form(swap_high(stage)), {}, from_above(distance));
    }
    stack_.then(std::move(swap));
  }

  Index l_, mv_, half_, n_, m_, w_, record_, stages_;
  bool cyclic_;
  Stack<S> stack_;
  Index offset_ = 0;
};

}  // namespace detail

/// M3: sort, scan, unsort. Solves aligned MQAR of N rows, keys of l bits (every code is a token), values of mv bits, with as many
/// layers and columns as the logarithms of N say, where several rows have the key by the latest one. With n = 2 bit_ceil(N) = 2^m
/// records (N queries (q_r, time 2r), N keys (k_j, time 2j + 1) with their values) and words of w = l + m bits:
/// a bitonic network sorts by token, then time; a scan of m steps carries the latest key record down to each query; where the
/// tokens agree its value is kept; the network backwards brings every answer home.
///     layers  m(m+1)/2 (8 + ceil(log2 w)) + 2m + 8 + ceil(log2 l)
///     width   3 (w + 1 + mv) + 2w + m(m+1)
///     length  n with cyclic ends; 5n - 2m - 4 with causal ones, where every exchange moves the records down
/// All numbers of all layers are -1, 0 or 1, so it is exact in any arithmetic. The function is causal, the layers are not: not
/// decodable step by step.
template <Ring S>
constexpr Construction<S> sort_scan(Index rows, Index key_bits, Index value_bits, Wrap wrap = Wrap::cyclic) {
  constexpr const char* where = "theory::sort_scan";
  detail::at_least(where, "rows", rows, 1);
  detail::at_least(where, "key bits", key_bits, 1);
  detail::at_least(where, "value bits", value_bits, 1);
  return detail::SortScan<S>(rows, key_bits, value_bits, wrap).build(rows);
}

}  // namespace coyote::inline v0::theory

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coyote/theory/prime_field.hpp"
#include "coyote/theory/stack.hpp"

namespace coyote::inline v0::theory {

/// Aligned multi-query associative recall: row i shows keys[i] and values[i] and asks for queries[i]; its answer is the value of
/// an earlier row with that key, 0 where there is none. Values are numbers from 0. A negative key or query means none
/// where the code has a none (one-hot).
struct Aligned {
  std::span<const Token> keys, values, queries;
};

/// How a token becomes columns.
enum class Code {
  one_hot,  ///< column token is 1; a negative token is the zero row
  bits,     ///< 0 or 1, the highest bit first
  signs,    ///< -1 or 1, the highest bit first
  number,   ///< one column: the token as a number of the ring
};

/// Where and how a stack reads keys, values or queries.
struct Slot {
  Code code = Code::one_hot;
  Index first = 0;   ///< first column
  Index size = 0;    ///< tokens of a one-hot code or of numbers (0: any), bits of the others
  Index repeat = 1;  ///< one-hot: each column stands that many times side by side

  /// Calls put(column, value) for every column of a token that is not 0.
  /// Errors: a token that the code does not have.
  template <class Put>
  constexpr void write(Token token, Put&& put) const {
    const bool none = token < 0 && code == Code::one_hot;
    const bool in_bits = code == Code::bits || code == Code::signs;
    const bool known = token >= 0 && (in_bits ? (token >> size) == 0 : token < size || (code == Code::number && size == 0));
    if (!none && !known) {
      throw Error("theory::Slot", in_bits ? words("a token of ", size, " bits") : words("a token in 0 .. ", size - 1),
                  words(token));
    }
    if (none) return;
    switch (code) {
      case Code::one_hot:
        for (Index b = 0; b < repeat; ++b) put(first + token * repeat + b, 1);
        break;
      case Code::bits:
      case Code::signs:
        for (Index r = 0; r < size; ++r) {
          const int bit = (token >> (size - 1 - r)) & 1;
          if (const int value = code == Code::bits ? bit : 2 * bit - 1; value != 0) put(first + r, value);
        }
        break;
      case Code::number:
        put(first, token);
        break;
    }
  }
};

/// A stack with exact weights that solves aligned MQAR, and how to write an instance into it and read its answers.
template <Ring S>
struct Construction {
  Stack<S> stack;
  Index rows = 0;  ///< N: rows of an instance
  Slot key, value, query;
  Index answer_row = 0, answer_column = 0;  ///< row i's answer stands in row answer_row + i, coded as values are
  S unit = S(1);                            ///< what an answer bit 1 reads as
  bool is_causal_step_by_step = true;       ///< decodable: no row of any layer reads a later one

  /// Calls put(row, column, value) for every number of the stack's input that is not 0. Errors: not N keys, values and queries
  /// (tokens that the codes lack throw too).
  template <class Put>
  constexpr void write(const Aligned& instance, Put&& put) const {
    const auto n = static_cast<std::size_t>(rows);
    if (instance.keys.size() != n || instance.values.size() != n || instance.queries.size() != n) {
      throw Error("theory::Construction", words(rows, " keys, values and queries"),
                  words(instance.keys.size(), ", ", instance.values.size(), " and ", instance.queries.size()));
    }
    for (Index i = 0; i < rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const auto here = [&](Index column, Token number) { put(i, column, number); };
      key.write(instance.keys[at], here);
      value.write(instance.values[at], here);
      query.write(instance.queries[at], here);
    }
  }
  /// The answers, from read(row, column): numbers, or 0 and 1 for bits. -1 where a bit is neither: not exact.
  template <class Read>
  constexpr Array<Token> read_answers(Read&& read) const {
    Array<Token> result(rows);
    for (Index i = 0; i < rows; ++i) {
      if (value.code == Code::number) {
        result[i] = static_cast<Token>(read(answer_row + i, answer_column));
        continue;
      }
      for (Index r = 0; r < value.size && result[i] >= 0; ++r) {
        const auto bit = read(answer_row + i, answer_column + r);
        result[i] = bit == 0 || bit == 1 ? static_cast<Token>(2 * result[i] + static_cast<Token>(bit)) : Token{-1};
      }
    }
    return result;
  }

  constexpr Matrix<S> embed(const Aligned& instance) const {
    Matrix<S> x(stack.length(), stack.width());
    write(instance, [&](Index i, Index c, Token number) { x(i, c) = static_cast<S>(number); });
    return x;
  }
  /// The answers of a finished run.
  constexpr Array<Token> answers(const Matrix<S>& y) const {
    return read_answers([&](Index i, Index c) -> long long {
      if (value.code != Code::number) return y(i, c) == S{} ? 0 : y(i, c) == unit ? 1 : -1;
      if constexpr (requires(S s) { s.value(); }) {
        return static_cast<long long>(y(i, c).value());
      } else {
        return static_cast<long long>(y(i, c));
      }
    });
  }
  /// Embeds, runs every layer exactly, reads.
  constexpr Array<Token> solve(const Aligned& instance) const { return answers(stack.run(embed(instance))); }
};

namespace detail {
constexpr void at_least(const char* where, const char* what, Index value, Index least) {
  if (value < least) throw Error(where, words(what, " of at least ", least), words(value));
}
/// One half where the ring has it, else 1.
template <Ring S>
constexpr S half() {
  if constexpr (is_real<S> || requires(S s) { s.inverse(); }) {
    return S(1) / S(2);
  } else {
    return S(1);
  }
}
template <Ring S>
constexpr Form<S> columns(Index first, Index count, Index stride = 1) {
  Form<S> form;
  for (Index n = 0; n < count; ++n) form.add(first + n * stride, S(1));
  return form;
}
/// Taps of 1 at lags first .. last; none where last < first. (Not a conditional expression: g++ 12 destroys the wrong
/// temporary of one in constant evaluation.)
template <Ring S>
constexpr Impulses<S> lags(Index first, Index last) {
  Impulses<S> taps;
  if (first <= last) taps.runs.emplace(typename Impulses<S>::Run{first, last, S(1)});
  return taps;
}
}  // namespace detail

/// M0, a table: keys and queries one-hot over c tokens, values of `bits` bits. Column (a, b) holds k_a v_b, summed over all
/// earlier rows, times q_a. Exact over every ring; repeated keys are summed, so keys must be unique (or absent).
///     4 layers (2 gate layers, which is the least), width 2c + bits + c bits, whatever N is.
/// `copied`: the embedding writes k_a into every (a, b) itself: 3 layers, width c + bits + c bits.
template <Ring S>
constexpr Construction<S> table(Index rows, Index tokens, Index bits, bool copied = false) {
  constexpr const char* where = "theory::table";
  detail::at_least(where, "rows", rows, 1);
  detail::at_least(where, "tokens", tokens, 1);
  detail::at_least(where, "value bits", bits, 1);
  const Index value = tokens, query = copied ? 0 : tokens + bits, cells = tokens + bits + (copied ? 0 : tokens);
  Program<S> copy, bind, ask, read;
  for (Index a = 0; a < tokens; ++a) {
    for (Index b = 0; b < bits; ++b) {
      const Index cell = cells + a * bits + b;
      copy.lin(cell, Form<S>::column(a));
      bind.gate(cell, Form<S>::column(value + b));
      ask.gate(cell, Form<S>::column(query + a), {}, detail::lags<S>(1, rows - 1));
    }
  }
  for (Index b = 0; b < bits; ++b) read.lin(b, detail::columns<S>(cells + b, tokens, bits));
  Construction<S> result{Stack<S>(rows, cells + tokens * bits), rows, {}, {}, {}};
  result.key = {Code::one_hot, copied ? cells : 0, tokens, copied ? bits : 1};
  result.value = {Code::bits, value, bits};
  result.query = {Code::one_hot, query, tokens};
  if (!copied) result.stack.then(std::move(copy));
  result.stack.then(std::move(bind));
  result.stack.then(std::move(ask));
  result.stack.then(std::move(read));
  return result;
}

/// M0 on raw tokens, one-hot over `tokens`, in columns 0 .. tokens - 1. With keys the tokens 0 .. keys - 1 and values the
/// tokens value .. value + values - 1, output column b of row i counts how often token x_i, a key, was followed by token
/// value + b within x_0 .. x_i. 4 layers, width tokens + keys * values. With keys = values = tokens (value = 0) it counts all
/// bigrams; with the keys and values of single-query recall, `k v k v ... (separator) q`, the last row holds the answer: a
/// small vocabulary needs a small width, however long the sequence.
template <Ring S>
constexpr Stack<S> bigram_table(Index rows, Index tokens, Index keys, Index value, Index values) {
  constexpr const char* where = "theory::bigram_table";
  detail::at_least(where, "rows", rows, 1);
  detail::at_least(where, "keys", keys, 1);
  detail::at_least(where, "values", values, 1);
  detail::at_least(where, "tokens", tokens, std::max(keys, value + values));
  Program<S> copy, bind, ask, read;
  for (Index a = 0; a < keys; ++a) {
    for (Index b = 0; b < values; ++b) {
      const Index cell = tokens + a * values + b;
      copy.lin(cell, Form<S>::column(a));
      bind.gate(cell, Form<S>::column(value + b), {}, detail::lags<S>(1, std::min(rows - 1, Index{1})));
      ask.gate(cell, Form<S>::column(a), {}, Impulses<S>::range(0, rows - 1));
    }
  }
  for (Index b = 0; b < values; ++b) read.lin(b, detail::columns<S>(tokens + b, keys, values));
  Stack<S> stack(rows, tokens + keys * values);
  stack.then(std::move(copy));
  stack.then(std::move(bind));
  stack.then(std::move(ask));
  stack.then(std::move(read));
  return stack;
}

/// All lags 1 .. rows - 1.
constexpr Array<Index> all_lags(Index rows) {
  Array<Index> lags(rows > 1 ? rows - 1 : 0);
  for (Index t = 1; t < rows; ++t) lags[t - 1] = t;
  return lags;
}

namespace detail {
template <class Lags>
constexpr void check_lags(const char* where, const Lags& lags, Index rows) {
  for (const Index t : lags) {
    if (t < 1 || t >= rows) throw Error(where, words("lags in 1 .. ", rows - 1), words(t));
  }
}
}  // namespace detail

/// M1, lag unfold: keys and queries of `key_bits` signs (l), values of `value_bits` bits (mv). For every lag t of T a copy of key
/// and value shifted by t; equality is the product over bits of (1 + q_r k_r)/2. Exact for unique keys as long as T contains
/// every distance between a query and its key. Every query is a code: one without an answer must be a code that no key has.
///     5 + ceil(log2 l) layers, 2 + ceil(log2 l) of them gate layers, width 2l + mv + |T| (l + mv).
/// With `half` = 1/2 answer bits are 0 and 1; with half = 1, where the ring has no 1/2, they are 0 and 2^l.
/// `raw`: keys, values and queries are the same tokens, an answer is what followed the earlier occurrence: value lag t - 1.
template <Ring S>
constexpr Construction<S> lag_unfold(Index rows, Index key_bits, Index value_bits, const Array<Index>& lags, bool raw = false,
                                     S half = detail::half<S>()) {
  constexpr const char* where = "theory::lag_unfold";
  detail::at_least(where, "rows", rows, 1);
  detail::at_least(where, "key bits", key_bits, 1);
  detail::at_least(where, "value bits", value_bits, 1);
  detail::check_lags(where, lags, rows);
  const Index l = key_bits, mv = value_bits, base = 2 * l + mv, count = lags.size();
  const auto k = [&](Index n, Index r) { return base + n * (l + mv) + r; };
  const auto v = [&](Index n, Index b) { return base + n * (l + mv) + l + b; };
  const auto equal = [&](Index column) { return Form<S>{{column, half}}; };  // + half: (1 + s)/2
  Construction<S> result{Stack<S>(rows, base + count * (l + mv)), rows, {}, {}, {}};
  result.query = {Code::signs, 0, l};
  result.key = {Code::signs, l, l};
  result.value = {Code::bits, 2 * l, mv};
  for (Index r = 0; r < l; ++r) result.unit = result.unit * (half + half);
  Program<S> copy, shift, compare, take, sum;
  for (Index n = 0; n < count; ++n) {
    for (Index r = 0; r < l; ++r) {
      copy.lin(k(n, r), Form<S>::column(l + r));
      shift.conv(k(n, r), Impulses<S>::at(lags[n]));
      compare.gate(k(n, r), Form<S>::column(r));
    }
    for (Index b = 0; b < mv; ++b) {
      copy.lin(v(n, b), Form<S>::column(2 * l + b));
      // Row t - 1 of raw tokens would read the value of row 0 beside a key from before the first row: the mask removes it.
      shift.conv(v(n, b), Impulses<S>::at(lags[n] - (raw ? 1 : 0)), Profile<S>::on(lags[n], rows - 1));
    }
  }
  result.stack.then(std::move(copy));
  result.stack.then(std::move(shift));
  result.stack.then(std::move(compare));
  // A binary tree over bits; node r of a level stands at the last bit that it covers.
  Index nodes = l;
  const auto at = [&](Index node, Index level) { return std::min(((node + 1) << level), l) - 1; };
  for (Index level = 0; nodes > 1; ++level, nodes = (nodes + 1) / 2) {
    Program<S> tree;
    for (Index n = 0; n < count; ++n) {
      for (Index node = 0; node + 1 < nodes; node += 2) {
        const Index left = k(n, at(node, level)), right = k(n, at(node + 1, level));
        if (level == 0) {
          tree.gate(right, equal(left), half, Impulses<S>::at(0, half), half);
        } else {
          tree.gate(right, Form<S>::column(left));
        }
      }
      if (level == 0 && nodes % 2 == 1) tree.lin(k(n, l - 1), equal(k(n, l - 1)), half);
    }
    result.stack.then(std::move(tree));
  }
  for (Index n = 0; n < count; ++n) {
    for (Index b = 0; b < mv; ++b) {
      if (l == 1) {
        take.gate(v(n, b), equal(k(n, 0)), half);
      } else {
        take.gate(v(n, b), Form<S>::column(k(n, l - 1)));
      }
    }
  }
  for (Index b = 0; b < mv; ++b) sum.lin(b, detail::columns<S>(v(0, b), count, l + mv));
  result.stack.then(std::move(take));
  result.stack.then(std::move(sum));
  return result;
}
template <Ring S>
constexpr Construction<S> lag_unfold(Index rows, Index key_bits, Index value_bits) {
  return lag_unfold<S>(rows, key_bits, value_bits, all_lags(rows));
}

/// M2: keys, values and queries are single numbers of the prime field, any vocabulary up to p. For every lag, equality is
/// 1 - (q - k)^(p-1) by Fermat's little theorem, 30 layers of squarings and products.
///     35 layers, 31 of them gate layers, width 3N. Unique keys. The number 0 is a key like any other: before the first row the
/// shifted key reads 0 too, but with the value 0.
constexpr Construction<Field> scalar_tokens(Index rows) {
  detail::at_least("theory::scalar_tokens", "rows", rows, 1);
  using F = Form<Field>;
  Construction<Field> result{Stack<Field>(rows, 3 * rows), rows, {}, {}, {}};
  constexpr auto p = static_cast<Index>(Field::modulus);
  result.query = {Code::number, 0, p};
  result.key = {Code::number, 1, p};
  result.value = {Code::number, 2, p};
  Program<Field> copy, shift, differ, take, sum;
  F taken;
  for (Index t = 1; t < rows; ++t) {
    const Index d = 3 * t, a = d + 1, v = d + 2;
    copy.lin(d, F::column(1)).lin(v, F::column(2));
    shift.conv(d, Impulses<Field>::at(t)).conv(v, Impulses<Field>::at(t));
    differ.lin(d, {{0, 1}, {d, -1}}).lin(a, {}, Field(1));
    take.gate(v, {{a, -1}}, Field(1));
    taken.add(v, 1);
  }
  result.stack.then(std::move(copy));
  result.stack.then(std::move(shift));
  result.stack.then(std::move(differ));
  for (std::uint32_t e = Field::modulus - 1; e > 0; e >>= 1) {
    Program<Field> power;
    for (Index t = 1; t < rows; ++t) {
      if (e & 1) power.gate(3 * t + 1, F::column(3 * t));
      if (e > 1) power.gate(3 * t, F::column(3 * t));
    }
    result.stack.then(std::move(power));
  }
  sum.lin(0, std::move(taken));
  result.stack.then(std::move(take));
  result.stack.then(std::move(sum));
  return result;
}

// ---- input-dependent convolution -------------------------------------------------------------------------------------

/// R[t] = sum_{i >= t} <q_i, k_{i-t}>, t = 0 .. N-1. With one-hot rows: how many queries find a match at distance t. Rows of q
/// and k stand side by side: [N, c] each.
template <Ring S>
constexpr Array<S> lag_scores(Rows<const S> q, Rows<const S> k) {
  require_shape("theory::lag_scores", "keys", k, q.rows, q.width);
  Array<S> scores(q.rows);
  for (Index t = 0; t < q.rows; ++t) {
    for (Index i = t; i < q.rows; ++i) {
      for (Index a = 0; a < q.width; ++a) scores[t] += q(i, a) * k(i - t, a);
    }
  }
  return scores;
}
/// The same by transforms: c correlations, padded to 2N - 1 so that nothing wraps, 2c transforms and one back.
constexpr Array<Field> lag_scores_by_transform(Rows<const Field> q, Rows<const Field> k) {
  require_shape("theory::lag_scores", "keys", k, q.rows, q.width);
  const Index n = q.rows, size = bit_ceil(2 * n - 1);
  Array<Field> sum(size), x(size), y(size);
  for (Index a = 0; a < q.width; ++a) {
    for (Index i = 0; i < size; ++i) {
      x[i] = i < n ? q(i, a) : Field();
      y[i] = i < n ? k(n - 1 - i, a) : Field();
    }
    transform(x.data(), size, false);
    transform(y.data(), size, false);
    for (Index i = 0; i < size; ++i) sum[i] += x[i] * y[i];
  }
  transform(sum.data(), size, true);
  Array<Field> scores(n);
  for (Index t = 0; t < n; ++t) scores[t] = sum[n - 1 + t];
  return scores;
}

/// The lags of an input-dependent convolution: every t >= 1 with R[t] other than 0. For one-hot rows exactly the distances at
/// which some query finds a match.
template <Ring S>
constexpr Array<Index> scored_lags(const Array<S>& scores) {
  Index count = 0;
  for (Index t = 1; t < scores.size(); ++t) count += scores[t] == S{} ? 0 : 1;
  Array<Index> lags(count);
  for (Index t = 1, n = 0; t < scores.size(); ++t) {
    if (!(scores[t] == S{})) lags[n++] = t;
  }
  return lags;
}

/// The gated look-up over given lags: y_i = sum_{t in T} <q_i, k_{i-t}> v_{i-t}, one-hot keys and queries over c tokens, values
/// numbers of the ring. Equals MQAR exactly when keys are unique and T contains all interaction distances; more lags do no harm,
/// a missing one does. 5 layers, 2 of them gate layers, width 2c + 1 + |T| (c + 1). The lags come from the whole input
/// (scored_lags), so as an input-dependent mixer it is not causal step by step, unless T holds all lags.
template <Ring S>
constexpr Construction<S> gated_lookup(Index rows, Index tokens, const Array<Index>& lags) {
  constexpr const char* where = "theory::gated_lookup";
  detail::at_least(where, "rows", rows, 1);
  detail::at_least(where, "tokens", tokens, 1);
  detail::check_lags(where, lags, rows);
  const Index c = tokens, base = 2 * c + 1, count = lags.size();
  Construction<S> result{Stack<S>(rows, base + count * (c + 1)), rows, {}, {}, {}};
  result.query = {Code::one_hot, 0, c};
  result.key = {Code::one_hot, c, c};
  result.value = {Code::number, 2 * c};
  result.is_causal_step_by_step = count == rows - 1;
  Program<S> copy, compare, match, take, sum;
  for (Index n = 0; n < count; ++n) {
    const Index z = base + n * (c + 1), v = z + c;
    for (Index a = 0; a < c; ++a) {
      copy.lin(z + a, Form<S>::column(c + a));
      compare.gate(z + a, Form<S>::column(a), {}, Impulses<S>::at(lags[n]));
    }
    copy.lin(v, Form<S>::column(2 * c));
    compare.conv(v, Impulses<S>::at(lags[n]));
    match.lin(z, detail::columns<S>(z, c));
    take.gate(v, Form<S>::column(z));
  }
  sum.lin(0, detail::columns<S>(base + c, count, c + 1));
  result.stack.then(std::move(copy));
  result.stack.then(std::move(compare));
  result.stack.then(std::move(match));
  result.stack.then(std::move(take));
  result.stack.then(std::move(sum));
  return result;
}

}  // namespace coyote::inline v0::theory

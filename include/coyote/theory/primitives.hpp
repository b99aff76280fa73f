// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/theory/stack.hpp"

/// The building blocks of constructions. Each appends its layers to a stack and states how many; columns that it does not name
/// keep their values. Row i, column c of what stands before is u[i,c]; of what stands afterwards y[i,c]; rows before the first
/// read as 0 in a causal stack. Errors of all of them: columns, lags and rows outside the stack.
namespace coyote::inline v0::theory::primitives {

/// Some columns: one, a list, or a range.
class Columns {
 public:
  constexpr Columns() = default;
  constexpr Columns(Index column) { list_.emplace(column); }
  constexpr Columns(std::initializer_list<Index> columns) {
    for (Index column : columns) list_.emplace(column);
  }
  static constexpr Columns range(Index first, Index count) {
    Columns columns;
    for (Index c = first; c < first + count; ++c) columns.list_.emplace(c);
    return columns;
  }
  constexpr Index size() const { return list_.size(); }
  constexpr Index operator[](Index k) const { return list_[k]; }
  constexpr const Index* begin() const { return list_.begin(); }
  constexpr const Index* end() const { return list_.end(); }

 private:
  List<Index> list_;
};

namespace detail {
/// Column c of a table with one value per row; an empty table is a constant.
template <Ring S>
constexpr Profile<S> profile(Rows<const S> table, Index c, S otherwise) {
  if (table.data == nullptr) return otherwise;
  return Profile<S>::of(table.rows, [&](Index i) { return table(i, c); });
}
template <Ring S>
constexpr void require_table(const char* where, const char* what, Rows<const S> table, const Stack<S>& stack, Index width) {
  if (table.data != nullptr) require_shape(where, what, table, stack.length(), width);
}
template <Ring S>
constexpr void require_wrap(const char* where, const Stack<S>& stack, Wrap wrap) {
  if (stack.wrap() == wrap) return;
  throw Error(where, wrap == Wrap::causal ? "a causal stack" : "a cyclic stack: causal filters never move a row upwards",
              wrap == Wrap::causal ? "a cyclic one" : "a causal one");
}
template <Ring S>
constexpr Profile<S> product(const Profile<S>& a, const Profile<S>& b, Index length) {
  return Profile<S>::of(length, [&](Index i) { return a.at(i) * b.at(i); });
}
}  // namespace detail

/// y[i,c] = (sum_a u[i,a] weight[a,c] + bias[i,c]) * mask[i,c] on the first d columns: 1 layer. weight [d, d]; bias and mask
/// [N', d], or none (0 and 1).
template <Ring S>
constexpr Stack<S>& affine(Stack<S>& stack, std::type_identity_t<Rows<const S>> weight,
                           std::type_identity_t<Rows<const S>> bias = {}, std::type_identity_t<Rows<const S>> mask = {}) {
  const Index width = weight.width;
  require_shape("primitives::affine", "a weight", weight, width, width);
  detail::require_table("primitives::affine", "a bias", bias, stack, width);
  detail::require_table("primitives::affine", "a mask", mask, stack, width);
  Program<S> program;
  for (Index c = 0; c < width; ++c) {
    Form<S> form;
    for (Index a = 0; a < width; ++a) {
      if (!(weight(a, c) == S{})) form.add(a, weight(a, c));
    }
    program.lin(c, std::move(form), detail::profile(bias, c, S{}), detail::profile(mask, c, S(1)));
  }
  return stack.then(std::move(program));
}

/// y[i,c] = mask[i,c] * (sum_t taps[t,c] u[i-t,c] + bias[i,c]) on the first d columns: 1 layer. taps [K, d], K <= N'; bias and
/// mask [N', d], or none (0 and 1).
template <Ring S>
constexpr Stack<S>& convolution(Stack<S>& stack, std::type_identity_t<Rows<const S>> taps,
                                std::type_identity_t<Rows<const S>> bias = {}, std::type_identity_t<Rows<const S>> mask = {}) {
  detail::require_table("primitives::convolution", "a bias", bias, stack, taps.width);
  detail::require_table("primitives::convolution", "a mask", mask, stack, taps.width);
  Program<S> program;
  for (Index c = 0; c < taps.width; ++c) {
    Impulses<S> impulses;
    for (Index t = 0; t < taps.rows; ++t) {
      if (!(taps(t, c) == S{})) impulses.add(t, taps(t, c));
    }
    program.conv(c, std::move(impulses), detail::profile(mask, c, S(1)), detail::profile(bias, c, S{}));
  }
  return stack.then(std::move(program));
}

/// y[to[k]] = u[from[k]]: copies, and with the same columns in another order permutes. 1 layer.
template <Ring S>
constexpr Stack<S>& copy(Stack<S>& stack, const Columns& from, const Columns& to) {
  if (from.size() != to.size()) throw Error("primitives::copy", words(from.size(), " destinations"), words(to.size()));
  Program<S> program;
  for (Index k = 0; k < to.size(); ++k) program.lin(to[k], Form<S>::column(from[k]));
  return stack.then(std::move(program));
}

/// y[c] = 0: 1 layer.
template <Ring S>
constexpr Stack<S>& erase(Stack<S>& stack, const Columns& columns) {
  Program<S> program;
  for (Index c : columns) program.lin(c, {});
  return stack.then(std::move(program));
}

/// y[i,c] = u[i-by,c], with one `by` for all columns or one for each: 1 layer.
template <Ring S>
constexpr Stack<S>& shift_down(Stack<S>& stack, const Columns& columns, const Columns& by) {
  if (by.size() != 1 && by.size() != columns.size()) {
    throw Error("primitives::shift_down", words("one distance or ", columns.size()), words(by.size()));
  }
  Program<S> program;
  for (Index k = 0; k < columns.size(); ++k) program.conv(columns[k], Impulses<S>::at(by[by.size() == 1 ? 0 : k]));
  return stack.then(std::move(program));
}

/// y[i,c] = u[i+by,c], 0 in the last `by` rows: 1 layer. Errors: a causal stack; `by` outside 0 .. N'-1.
template <Ring S>
constexpr Stack<S>& shift_up(Stack<S>& stack, const Columns& columns, Index by) {
  detail::require_wrap("primitives::shift_up", stack, Wrap::cyclic);
  const Index n = stack.length();
  if (by < 0 || by >= n) throw Error("primitives::shift_up", words("a distance in 0 .. ", n - 1), words(by));
  Program<S> program;
  for (Index c : columns) program.conv(c, Impulses<S>::at((n - by) % n), Profile<S>::on(0, n - 1 - by));
  return stack.then(std::move(program));
}

/// y[i,c] = (form(u[i]) + bias[i]) * (scale * u[i,c] + offset[i]): 1 layer.
template <Ring S>
constexpr Stack<S>& product_in_place(Stack<S>& stack, std::type_identity_t<Form<S>> form, std::type_identity_t<Profile<S>> bias,
                                     Index c, std::type_identity_t<S> scale = S(1),
                                     std::type_identity_t<Profile<S>> offset = {}) {
  return stack.then(Program<S>().gate(c, std::move(form), std::move(bias), Impulses<S>::at(0, scale), std::move(offset)));
}

/// y[to] = u[a] * u[b]: 2 layers. Errors: `to` is a or b.
template <Ring S>
constexpr Stack<S>& product_into(Stack<S>& stack, Index a, Index b, Index to) {
  if (to == a || to == b) {
    throw Error("primitives::product_into", "a third column for the product, or product_in_place", words("column ", to));
  }
  Stack<S> both(stack.length(), stack.width(), stack.wrap());  // so that an error leaves the stack as it is
  copy(both, b, to);
  return stack.then(both.then(Program<S>().gate(to, Form<S>::column(a))));
}

/// y[i,c] = u[i,a] * u[i-lag,c]: 1 layer.
template <Ring S>
constexpr Stack<S>& product_of_positions(Stack<S>& stack, Index a, Index c, Index lag) {
  return stack.then(Program<S>().gate(c, Form<S>::column(a), {}, Impulses<S>::at(lag)));
}

/// y[c] = u[c]^2: 1 layer.
template <Ring S>
constexpr Stack<S>& square(Stack<S>& stack, const Columns& columns) {
  Program<S> program;
  for (Index c : columns) program.gate(c, Form<S>::column(c));
  return stack.then(std::move(program));
}

/// y[i,c] = sum of u[j,c] over j <= i: 1 layer. Errors: a cyclic stack.
template <Ring S>
constexpr Stack<S>& prefix_sum(Stack<S>& stack, const Columns& columns) {
  detail::require_wrap("primitives::prefix_sum", stack, Wrap::causal);
  Program<S> program;
  for (Index c : columns) program.conv(c, Impulses<S>::range(0, stack.length() - 1));
  return stack.then(std::move(program));
}

/// y[i,c] = u[row,c] for i >= row, else 0: 2 layers. Errors: a cyclic stack.
template <Ring S>
constexpr Stack<S>& broadcast_row(Stack<S>& stack, const Columns& columns, Index row) {
  detail::require_wrap("primitives::broadcast_row", stack, Wrap::causal);
  Program<S> program;
  for (Index c : columns) program.lin(c, Form<S>::column(c), {}, Profile<S>::on(row, row));
  stack.then(std::move(program));
  return prefix_sum(stack, columns);
}

/// y[i] = f(u)[i] where rows[i] is 1, u[i] where it is 0: 2 layers, on the first d columns of at least 2 d; columns d .. 2d-1 are
/// overwritten, 0 afterwards. f is one layer on the first d columns, without gates. Errors: a gate in f; a narrower stack.
template <Ring S>
constexpr Stack<S>& on_rows(Stack<S>& stack, Index width, std::type_identity_t<Profile<S>> rows, const Program<S>& f) {
  const Index n = stack.length();
  if (width < 1 || 2 * width > stack.width()) {
    throw Error("primitives::on_rows", words("a stack of twice the width ", width), words(stack.width()));
  }
  if (f.has_gate()) throw Error("primitives::on_rows", "lin and conv columns", "a gate");
  const auto others = Profile<S>::of(n, [&](Index i) { return S(1) - rows.at(i); });
  Program<S> split, merge;
  Array<bool> named(width);
  for (const Column<S>& c : f.columns()) {
    if (c.column < 0 || c.column >= width) {
      throw Error("primitives::on_rows", words("columns 0 .. ", width - 1), words("column ", c.column));
    }
    named[c.column] = true;
    if (c.taps.runs.size() > 0) {
      split.conv(c.column, c.taps, detail::product(c.b1, rows, n), c.b2);
    } else {
      split.lin(c.column, c.form, c.b1, detail::product(c.b2, rows, n));
    }
  }
  for (Index c = 0; c < width; ++c) {
    if (!named[c]) split.lin(c, Form<S>::column(c), {}, rows);
    split.lin(width + c, Form<S>::column(c), {}, others);
    merge.lin(c, {{c, S(1)}, {width + c, S(1)}}).lin(width + c, {});
  }
  return stack.then(std::move(split)).then(std::move(merge));
}

/// y[i, t d + c] = u[i-t, c] for t < window and c < d = width: 2 layers, window * width columns.
template <Ring S>
constexpr Stack<S>& unfold(Stack<S>& stack, Index width, Index window) {
  Program<S> copies, shifts;
  for (Index t = 1; t < window; ++t) {
    for (Index c = 0; c < width; ++c) {
      copies.lin(t * width + c, Form<S>::column(c));
      shifts.conv(t * width + c, Impulses<S>::at(t));
    }
  }
  return stack.then(std::move(copies)).then(std::move(shifts));
}

/// The product of m columns, by pairs: ceil(log2 m) layers, as few as the degree m allows. Overwrites the columns; returns the
/// one that holds the product. Errors: no column.
template <Ring S>
constexpr Index product_tree(Stack<S>& stack, const Columns& columns) {
  if (columns.size() < 1) throw Error("primitives::product_tree", "at least one column", "none");
  List<Index> left;
  for (Index c : columns) left.emplace(c);
  while (left.size() > 1) {
    Program<S> program;
    List<Index> next;
    for (Index k = 0; k + 1 < left.size(); k += 2) {
      program.gate(left[k + 1], Form<S>::column(left[k]));
      next.emplace(left[k + 1]);
    }
    if (left.size() % 2 == 1) next.emplace(left[left.size() - 1]);
    stack.then(std::move(program));
    left = std::move(next);
  }
  return left[0];
}

/// y[c] = u[a] and u[c], for columns of zeros and ones: 1 layer.
template <Ring S>
constexpr Stack<S>& logical_and(Stack<S>& stack, Index a, Index c) {
  return stack.then(Program<S>().gate(c, Form<S>::column(a)));
}

/// y[c] = not u[c]: 1 layer.
template <Ring S>
constexpr Stack<S>& logical_not(Stack<S>& stack, Index c) {
  return stack.then(Program<S>().lin(c, {{c, -S(1)}}, S(1)));
}

/// y[c] = u[a] or u[c]: 2 layers, 1 - (1 - a)(1 - c).
template <Ring S>
constexpr Stack<S>& logical_or(Stack<S>& stack, Index a, Index c) {
  stack.then(Program<S>().gate(c, {{a, -S(1)}}, S(1), Impulses<S>::at(0, -S(1)), S(1)));
  return logical_not(stack, c);
}

/// y[c] = (1 if u[a] = u[c], else 0) - 1/2, for columns of zeros and ones: 1 layer, (2a - 1)(c - 1/2). The missing 1/2 goes into
/// the biases of whatever reads the column next. Errors: `half` is not 1/2.
template <Ring S>
constexpr Stack<S>& equality_minus_half(Stack<S>& stack, Index a, Index c, std::type_identity_t<S> half) {
  if (!(half + half == S(1))) throw Error("primitives::equality_minus_half", "a half: half + half = 1", "another number");
  return stack.then(Program<S>().gate(c, {{a, S(1) + S(1)}}, -S(1), Impulses<S>::at(0), -half));
}

/// y[i,c] = f(i), with biases that are the same in every row: 2 layers, a column of ones and taps f(t) - f(t-1). With it,
/// whatever needs a bias or a mask for every row can be had from a column. Errors: a cyclic stack.
template <Ring S, class F>
constexpr Stack<S>& position_function(Stack<S>& stack, Index c, F&& f) {
  detail::require_wrap("primitives::position_function", stack, Wrap::causal);
  Impulses<S> taps;
  S before{};
  for (Index t = 0; t < stack.length(); ++t) {
    const S now = f(t), step = now - before;
    if (!(step == S{})) taps.add(t, step);
    before = now;
  }
  return stack.then(Program<S>().lin(c, {}, S(1))).then(Program<S>().conv(c, std::move(taps)));
}

/// The same function by residual layers, u := u + layer(u): 2 L layers of width 2 d, columns d .. 2d-1 empty at both ends. The
/// first of each pair adds the layer and remembers u, the second takes u away. Every column is mentioned: run each program with
/// Stack::apply and add its input. Public implementations of BaseConv have this form.
template <Ring S>
constexpr Stack<S> residual_form(const Stack<S>& stack) {
  const Index width = stack.width();
  Stack<S> result(stack.length(), 2 * width, stack.wrap());
  for (const Program<S>& program : stack.programs()) {
    Program<S> add = program, take;
    Array<bool> named(width);
    for (const Column<S>& c : program.columns()) named[c.column] = true;
    for (Index c = 0; c < width; ++c) {
      if (!named[c]) add.lin(c, Form<S>::column(c));
      add.lin(width + c, Form<S>::column(c));
      take.lin(c, {{width + c, -S(1)}}).lin(width + c, {{width + c, -S(1)}});
    }
    result.then(std::move(add)).then(std::move(take));
  }
  return result;
}

}  // namespace coyote::inline v0::theory::primitives

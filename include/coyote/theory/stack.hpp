// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <utility>

#include "coyote/core/array.hpp"
#include "coyote/core/rows.hpp"
#include "coyote/core/scalar.hpp"
#include "coyote/operations/wrap.hpp"
#include "coyote/theory/prime_field.hpp"

namespace coyote::inline v0::theory {

/// Smallest power of two >= n, and its logarithm.
constexpr Index log2_ceil(Index n) {
  Index m = 0;
  while ((Index{1} << m) < n) ++m;
  return m;
}
constexpr Index bit_ceil(Index n) { return Index{1} << log2_ceil(n); }

/// A linear form of a row's columns: sum of coefficient * column.
template <Ring S>
struct Form {
  struct Term {
    Index column = 0;
    S coefficient{};
  };
  List<Term> terms;

  constexpr Form() = default;
  constexpr Form(std::initializer_list<Term> list) {
    for (const Term& term : list) terms.emplace(term);
  }
  /// The column itself.
  static constexpr Form column(Index c) { return {{c, S(1)}}; }
  constexpr Form& add(Index column, S coefficient) {
    terms.emplace(Term{column, coefficient});
    return *this;
  }
  constexpr S of(Rows<const S> u, Index row) const {
    S sum{};
    for (const Term& term : terms) sum += term.coefficient * u(row, term.column);
    return sum;
  }
};

/// A number for every row: a default, and runs of rows that differ from it. Biases and masks.
template <Ring S>
struct Profile {
  struct Run {
    Index first = 0, last = 0;  ///< rows first .. last
    S value{};
  };
  S everywhere{};
  List<Run> runs;

  constexpr Profile() = default;
  constexpr Profile(S value) : everywhere(value) {}
  /// `value` on rows first .. last, 0 elsewhere.
  static constexpr Profile on(Index first, Index last, S value = S(1)) {
    Profile p;
    p.runs.emplace(Run{first, last, value});
    return p;
  }
  /// One value per row, from a function of the row.
  template <class F>
  static constexpr Profile of(Index rows, F&& f) {
    Profile p;
    for (Index i = 0; i < rows;) {
      const S value = f(i);
      Index last = i;
      while (last + 1 < rows && f(last + 1) == value) ++last;
      if (!(value == S{})) p.runs.emplace(Run{i, last, value});
      i = last + 1;
    }
    return p;
  }
  constexpr S at(Index row) const {
    for (const Run& run : runs) {
      if (run.first <= row && row <= run.last) return run.value;
    }
    return everywhere;
  }
  /// at(i) of every row i, in one pass.
  constexpr void write(Array<S>& rows) const {
    for (S& value : rows) value = everywhere;
    for (Index r = runs.size() - 1; r >= 0; --r) {  // backwards: where runs overlap, the first one decides
      for (Index i = runs[r].first; i <= runs[r].last; ++i) rows[i] = runs[r].value;
    }
  }
};

/// A filter: runs of equal taps. {t, t, 1} is a shift by t; {0, N-1, 1} a prefix sum.
template <Ring S>
struct Impulses {
  struct Run {
    Index first = 0, last = 0;  ///< lags first .. last
    S value{};
  };
  List<Run> runs;

  constexpr Impulses() = default;
  constexpr Impulses(std::initializer_list<Run> list) {
    for (const Run& run : list) runs.emplace(run);
  }
  /// One tap of value 1 at a lag.
  static constexpr Impulses at(Index lag, S value = S(1)) { return {{lag, lag, value}}; }
  static constexpr Impulses range(Index first, Index last, S value = S(1)) { return {{first, last, value}}; }
  constexpr Impulses& add(Index lag, S value) {
    runs.emplace(Run{lag, lag, value});
    return *this;
  }
  constexpr Index count() const {
    Index n = 0;
    for (const Run& run : runs) n += run.last - run.first + 1;
    return n;
  }
};

/// What a layer writes into one column c:  y[i] = (form(u[i]) + b1[i]) * (sum_t taps_t u[i-t, c] + b2[i]).
template <Ring S>
struct Column {
  Index column = 0;
  Form<S> form;
  Profile<S> b1;
  Impulses<S> taps;
  Profile<S> b2;
  bool is_gate = false;  ///< both branches depend on the input: only these raise the degree
};

/// One Coyote layer as a column program. Columns that it does not mention keep their value. All columns read the old values.
template <Ring S>
class Program {
 public:
  /// y[i,c] = (form(u[i]) + bias[i]) * mask[i]
  constexpr Program& lin(Index c, Form<S> form, Profile<S> bias = {}, Profile<S> mask = S(1)) {
    return put({c, std::move(form), std::move(bias), {}, std::move(mask), false});
  }
  /// y[i,c] = mask[i] * (sum_t taps_t u[i-t,c] + bias[i])
  constexpr Program& conv(Index c, Impulses<S> taps, Profile<S> mask = S(1), Profile<S> bias = {}) {
    return put({c, {}, std::move(mask), std::move(taps), std::move(bias), false});
  }
  /// y[i,c] = (form(u[i]) + bias[i]) * (sum_t taps_t u[i-t,c] + beta[i])
  constexpr Program& gate(Index c, Form<S> form, Profile<S> bias = {}, Impulses<S> taps = Impulses<S>::at(0),
                          Profile<S> beta = {}) {
    return put({c, std::move(form), std::move(bias), std::move(taps), std::move(beta), true});
  }
  constexpr const List<Column<S>>& columns() const { return columns_; }
  constexpr bool has_gate() const {
    for (const Column<S>& column : columns_) {
      if (column.is_gate) return true;
    }
    return false;
  }

 private:
  constexpr Program& put(Column<S> column) {
    for (const Column<S>& other : columns_) {
      if (other.column == column.column)
        throw Error("theory::Program", "one program for each column of a layer",
                    words("a second one for column ", column.column));
    }
    columns_.emplace(std::move(column));
    return *this;
  }

  List<Column<S>> columns_;
};

/// Sizes and costs of a stack: inner length N', inner width d', layers.
struct StackSize {
  Index length = 0, width = 0, layers = 0, gate_layers = 0;
  Index dense_parameters = 0;  ///< layers * (d'^2 + 3 N' d'): every matrix, filter and positional bias written out
  Index stored = 0;            ///< numbers that the column programs hold
  Index multiplications = 0;   ///< one run with direct convolutions, dense: N' d'^2 + d' N'(N'+1)/2 + N' d' a layer
  friend constexpr bool operator==(const StackSize&, const StackSize&) = default;
};

/// Coyote layers one after another on [length, width], exact over any ring, each a column program. The input stands in the
/// upper left corner, zeros elsewhere.
template <Ring S>
class Stack {
 public:
  constexpr Stack(Index length, Index width, Wrap wrap = Wrap::causal) : length_(length), width_(width), wrap_(wrap) {
    if (length < 1 || width < 1) throw Error("theory::Stack", "a length and a width of at least 1", words(length, " x ", width));
  }

  constexpr Index length() const { return length_; }
  constexpr Index width() const { return width_; }
  constexpr Wrap wrap() const { return wrap_; }
  constexpr const List<Program<S>>& programs() const { return programs_; }

  /// Appends a layer. Errors: a column, lag or row outside.
  constexpr Stack& then(Program<S> program) {
    for (const Column<S>& c : program.columns()) {
      check(c.column, width_, "column");
      for (const auto& term : c.form.terms) check(term.column, width_, "column");
      for (const auto& run : c.taps.runs) {
        check(run.first, length_, "lag");
        check(run.last, length_, "lag");
      }
      for (const Profile<S>* profile : {&c.b1, &c.b2}) {
        for (const auto& run : profile->runs) {
          if (run.first > run.last) continue;
          check(run.first, length_, "row");
          check(run.last, length_, "row");
        }
      }
    }
    programs_.emplace(std::move(program));
    return *this;
  }
  /// Appends all layers of another stack of the same length, on columns shifted by `offset`.
  constexpr Stack& then(const Stack& other, Index offset = 0) {
    require_same_kind(other);
    for (const Program<S>& program : other.programs_) then(shifted(program, offset));
    return *this;
  }
  /// Runs another stack side by side: its column c is our column `offset` + c; the shorter one keeps its values to the end.
  constexpr Stack& beside(const Stack& other, Index offset) {
    require_same_kind(other);
    List<Program<S>> merged;
    for (Index l = 0; l < std::max(programs_.size(), other.programs_.size()); ++l) {
      Program<S>& program = merged.emplace(l < programs_.size() ? programs_[l] : Program<S>());
      if (l < other.programs_.size()) append(program, other.programs_[l], offset);
    }
    programs_ = List<Program<S>>();
    for (Program<S>& program : merged) then(std::move(program));
    return *this;
  }

  constexpr StackSize size() const {
    StackSize s{length_, width_, programs_.size()};
    s.dense_parameters = s.layers * (width_ * width_ + 3 * length_ * width_);
    s.multiplications = s.layers * (length_ * width_ * width_ + width_ * length_ * (length_ + 1) / 2 + length_ * width_);
    for (const Program<S>& program : programs_) {
      s.gate_layers += program.has_gate() ? 1 : 0;
      for (const Column<S>& c : program.columns()) {
        s.stored += c.form.terms.size() + c.taps.count() + (c.b1.everywhere == S{} ? 0 : 1) + c.b1.runs.size() +
                    (c.b2.everywhere == S{} ? 0 : 1) + c.b2.runs.size();
      }
    }
    return s;
  }

  /// The input in the upper left corner of [length, width].
  constexpr Matrix<S> embedded(Rows<const S> u) const {
    if (u.rows > length_ || u.width > width_) {
      throw Error("theory::Stack", words("an input of at most [", length_, ", ", width_, "]"),
                  words("[", u.rows, ", ", u.width, "]"));
    }
    Matrix<S> x(length_, width_);
    for (Index i = 0; i < u.rows; ++i) {
      for (Index c = 0; c < u.width; ++c) x(i, c) = u(i, c);
    }
    return x;
  }
  /// All layers, exactly. Cost: what the programs hold times the length; a run of taps costs two additions a row, and a filter of
  /// many different taps over the field N log N products.
  constexpr Matrix<S> run(Rows<const S> u) const {
    const Matrix<S> x = embedded(u);
    Workspace workspace(x);
    for (const Program<S>& program : programs_) apply(program, workspace);
    return workspace.table();
  }
  /// One layer, in place.
  constexpr void apply(const Program<S>& program, Matrix<S>& x) const {
    Workspace workspace(x);
    apply(program, workspace);
    x = workspace.table();
  }

 private:
  static constexpr void check(Index value, Index bound, const char* what) {
    if (value < 0 || value >= bound) throw Error("theory::Stack", words("a ", what, " in 0 .. ", bound - 1), words(value));
  }
  constexpr void require_same_kind(const Stack& other) const {
    if (other.length_ != length_ || other.wrap_ != wrap_) {
      throw Error("theory::Stack", words("a stack of length ", length_, " with the same ends"),
                  words("one of length ", other.length_));
    }
  }
  static constexpr void append(Program<S>& to, const Program<S>& from, Index offset) {
    for (const Column<S>& c : from.columns()) {
      Form<S> form;
      for (const auto& term : c.form.terms) form.add(term.column + offset, term.coefficient);
      if (c.is_gate) {
        to.gate(c.column + offset, form, c.b1, c.taps, c.b2);
      } else if (c.taps.runs.size() > 0) {
        to.conv(c.column + offset, c.taps, c.b1, c.b2);
      } else {
        to.lin(c.column + offset, form, c.b1, c.b2);
      }
    }
  }
  static constexpr Program<S> shifted(const Program<S>& program, Index offset) {
    Program<S> result;
    append(result, program, offset);
    return result;
  }
  /// A table while layers run: a program reads and writes whole columns, so each is an array of its own, and what a layer writes
  /// changes places with what it replaces.
  struct Workspace {
    List<Array<S>> now, next;
    Array<S> filtered, bias;

    constexpr explicit Workspace(const Matrix<S>& x) : filtered(x.rows()), bias(x.rows()) {
      for (Index c = 0; c < x.width(); ++c) {
        Array<S>& column = now.emplace(x.rows());
        next.emplace();
        for (Index i = 0; i < x.rows(); ++i) column[i] = x(i, c);
      }
    }
    constexpr Matrix<S> table() const {
      Matrix<S> x(filtered.size(), now.size());
      for (Index c = 0; c < x.width(); ++c) {
        for (Index i = 0; i < x.rows(); ++i) x(i, c) = now[c][i];
      }
      return x;
    }
  };
  static constexpr bool is(const Profile<S>& profile, S value) { return profile.runs.size() == 0 && profile.everywhere == value; }
  /// to[i] += factor * from[i]
  static constexpr void add(S* to, const S* from, Index count, S factor) {
    if (factor == S(1)) {
      for (Index i = 0; i < count; ++i) to[i] += from[i];
    } else {
      for (Index i = 0; i < count; ++i) to[i] += factor * from[i];
    }
  }
  constexpr void apply(const Program<S>& program, Workspace& x) const {
    for (const Column<S>& c : program.columns()) {
      Array<S>& to = x.next[c.column];
      if (to.size() == 0) to = Array<S>(length_);
      if (c.form.terms.size() == 0 && is(c.b1, S(1))) {  // a convolution alone
        c.b2.write(to);
        convolve(c.taps, x.now[c.column].data(), to);
        continue;
      }
      for (S& value : to) value = S{};
      for (const auto& term : c.form.terms) add(to.data(), x.now[term.column].data(), length_, term.coefficient);
      if (!is(c.b1, S{})) {
        c.b1.write(x.bias);
        add(to.data(), x.bias.data(), length_, S(1));
      }
      if (c.taps.runs.size() == 0 && is(c.b2, S(1))) continue;
      c.b2.write(x.filtered);
      convolve(c.taps, x.now[c.column].data(), x.filtered);
      for (Index i = 0; i < length_; ++i) to[i] *= x.filtered[i];
    }
    for (const Column<S>& c : program.columns()) std::swap(x.now[c.column], x.next[c.column]);
  }
  /// filtered[i] += sum_t taps_t x[i - t]; a run of lags by a running sum, many taps of the field by transforms.
  constexpr void convolve(const Impulses<S>& taps, const S* x, Array<S>& filtered) const {
    if constexpr (std::same_as<S, Field>) {
      if (transforms_pay(taps)) {
        Array<S> dense(length_);
        for (const auto& run : taps.runs) {
          for (Index t = run.first; t <= run.last; ++t) dense[t] += run.value;
        }
        convolve_by_transform(dense.data(), length_, x, length_, wrap_ == Wrap::cyclic, filtered.data());
        return;
      }
    }
    const auto value = [&](Index i) { return i >= 0 ? x[i] : (wrap_ == Wrap::cyclic ? x[i + length_] : S{}); };
    for (const auto& run : taps.runs) {
      if (run.first == run.last) {
        const Index t = run.first;
        if (wrap_ == Wrap::cyclic) add(filtered.data(), x + (length_ - t), t, run.value);
        add(filtered.data() + t, x, length_ - t, run.value);
        continue;
      }
      S sum{};
      for (Index t = run.first; t <= run.last; ++t) sum += value(-t);
      for (Index i = 0; i < length_; ++i) {
        if (i > 0) sum += value(i - run.first) - value(i - 1 - run.last);
        filtered[i] += run.value * sum;
      }
    }
  }

  /// Three transforms of M = bit_ceil(2N - 1) points, of M/2 log2 M butterflies of two products each, against one product a row
  /// and run.
  constexpr bool transforms_pay(const Impulses<S>& taps) const {
    const Index m = log2_ceil(2 * length_ - 1);
    return taps.runs.size() * length_ > 3 * (Index{1} << m) * (m + 1);
  }

  Index length_, width_;
  Wrap wrap_;
  List<Program<S>> programs_;
};

}  // namespace coyote::inline v0::theory

// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/embedding.cuh"

#include <doctest/doctest.h>
#include "cuda/support/matrices.cuh"

namespace {

using namespace coyote_test;
using cy::bf16;
using Context = cy::Context<cy::Cuda>;

enum class Kind { uniform, mostly_zero, all_equal, ascending };

std::vector<std::int32_t> make_tokens(Kind kind, Index rows, Index vocabulary, Random& random) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows));
  for (Index i = 0; i < rows; ++i) {
    Index token = random.below(vocabulary);
    if (kind == Kind::mostly_zero && random.below(4) > 0) token = 0;
    if (kind == Kind::all_equal) token = vocabulary - 1;
    if (kind == Kind::ascending) token = i % vocabulary;
    tokens[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(token);
  }
  return tokens;
}

struct Table {
  Index rows, vocabulary, width;
  Layout layout;
};

template <class S>
void check_table(Context& context, Kind kind, const Table& shape, std::uint64_t seed) {
  const auto& [rows, vocabulary, width, layout] = shape;
  Random random(seed);
  const auto tokens = make_tokens(kind, rows, vocabulary, random);
  const auto there = on_device(tokens);
  OnDevice<float> table(vocabulary, width, {}, random), dtable(vocabulary, width, {}, random);
  OnDevice<S> y(rows, width, layout), dy(rows, width, layout, random);
  Doubles wanted(rows, width), gradient(vocabulary, width);
  for (Index t = 0; t < vocabulary; ++t) {
    for (Index c = 0; c < width; ++c) gradient(t, c) = dtable(t, c);
  }
  for (Index i = 0; i < rows; ++i) {
    for (Index c = 0; c < width; ++c) {
      const Index token = tokens[static_cast<std::size_t>(i)];
      wanted(i, c) = table(token, c);
      gradient(token, c) += dy(i, c);
    }
  }
  CAPTURE(static_cast<int>(kind));
  CAPTURE(rows);
  CAPTURE(width);
  embed<S>(context, span_of(there), table.read(), y.view());
  CHECK(error(y.now(), wanted) <= tolerance<S>);
  OnDevice<float> again(vocabulary, width, {}, [&](Index i, Index c) { return dtable(i, c); });
  const auto frame = context.frame();
  const cy::Batch batch{.sequences = 1, .length = rows};
  auto order = token_order(context, span_of(there), vocabulary);
  embed_batch_backward<S>(context, order, batch, {}, dy.view(), dtable.view(), {});
  CHECK(error(dtable.now(), gradient) <= 1e-5);
  auto order_again = token_order(context, span_of(there), vocabulary);
  embed_batch_backward<S>(context, order_again, batch, {}, dy.view(), again.view(), {});
  CHECK(again.now() == dtable.now());
}

TEST_CASE_TEMPLATE("A table's rows by token, and their gradient", S, float, bf16) {
  Context context;
  context.poison(true);
  std::uint64_t seed = 0;
  for (const Kind kind : {Kind::uniform, Kind::mostly_zero, Kind::all_equal, Kind::ascending}) {
    for (const Table& shape : {Table{1, 1, 1, {}},
                               {31, 5, 3, {1, 1}},
                               {32, 2, 8, {}},
                               {33, 1000, 64, {0, 8}},
                               {1024, 7, 70, {}},
                               {5000, 300, 520, {}},
                               {65536, 8192, 8, {}},
                               {2049, 50257, 16, {0, 16}}}) {
      check_table<S>(context, kind, shape, ++seed);
    }
  }
}

TEST_CASE_TEMPLATE("A table's rows at small shapes", S, float, bf16) {
  Context context;
  context.poison(true);
  for (const Kind kind : {Kind::uniform, Kind::all_equal}) {
    check_table<S>(context, kind, {1, 1, 1, {}}, 1);
    check_table<S>(context, kind, {65, 5, 40, {1, 1}}, 2);
    check_table<S>(context, kind, {130, 9, 64, {}}, 3);
  }
}

TEST_CASE_TEMPLATE("Embedded batches, with positions and dropout, and their gradients", S, float, bf16) {
  Context context;
  context.poison(true);
  std::uint64_t seed = 100;
  std::vector<Index> many(1000, 6);
  for (const auto& sizes : {std::vector<Index>{1}, {3, 3}, {5, 1, 9, 2}, {64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64}, many}) {
    for (const auto& [width, layout] : {std::pair<Index, Layout>{1, {}}, {8, {0, 8}}, {64, {}}, {33, {1, 0}}, {1040, {}}}) {
      DeviceSequences sequences(sizes);
      Random random(++seed);
      const auto tokens = make_tokens(Kind::uniform, sequences.batch().rows(), 50, random);
      const auto there = on_device(tokens);
      const cy::Batch batch = sequences.with_tokens(tokens, there);
      const cy::DropoutRule rule(0.3, cy::Stream(cy::Seed{seed}, cy::Purpose::dropout, 5, 2));
      OnDevice<float> embedding(50, width, {}, random);
      OnDevice<float> table(batch.length + 2, width, {}, random), dtable(batch.length + 2, width, {}, random);
      OnDevice<S> y(batch.rows(), width, layout), dropped(batch.rows(), width, layout), dy(batch.rows(), width, layout, random);
      Doubles wanted(batch.rows(), width), kept(batch.rows(), width), gradient(batch.length + 2, width);
      OnDevice<float> dembedding(50, width, {}, random);
      Doubles embedding_gradient(50, width);
      for (Index t = 0; t < 50; ++t) {
        for (Index c = 0; c < width; ++c) embedding_gradient(t, c) = dembedding(t, c);
      }
      for (Index i = 0; i < batch.length + 2; ++i) {
        for (Index c = 0; c < width; ++c) gradient(i, c) = dtable(i, c);
      }
      for (Index s = 0; s < batch.sequences; ++s) {
        for (Index i = 0; i < batch.size(s); ++i) {
          for (Index c = 0; c < width; ++c) {
            const Index row = batch.begin(s) + i;
            wanted(row, c) = embedding(tokens[static_cast<std::size_t>(row)], c) + table(i, c);
            const bool keeps = rule.keeps(static_cast<std::uint64_t>(row), static_cast<std::uint64_t>(c));
            kept(row, c) = keeps ? wanted(row, c) * rule.scale() : 0.0;
            const double slope = keeps ? dy(row, c) * rule.scale() : 0.0;
            gradient(i, c) += slope;
            embedding_gradient(tokens[static_cast<std::size_t>(row)], c) += slope;
          }
        }
      }
      embed_batch<S>(context, batch, embedding.read(), table.read(), {}, y.view());
      CHECK(error(y.now(), wanted) <= tolerance<S>);
      embed_batch<S>(context, batch, embedding.read(), table.read(), rule, dropped.view());
      CHECK(error(dropped.now(), kept) <= tolerance<S>);
      const auto frame = context.frame();
      auto order = token_order(context, batch.resident_tokens(), 50);
      embed_batch_backward<S>(context, order, batch, rule, dy.view(), dembedding.view(), dtable.view());
      const double rounded = std::max(1e-5, sizeof(S) == 2 ? tolerance<S> : 0.0);  // what dropout leaves is of type S
      CHECK(error(dtable.now(), gradient) <= rounded);
      CHECK(error(dembedding.now(), embedding_gradient) <= rounded);
    }
  }
}

TEST_CASE_TEMPLATE("Rows gathered and scattered", S, float, bf16) {
  Context context;
  for (const auto& [rows, width, layout] :
       {std::tuple<Index, Index, Layout>{1, 1, {}}, {50, 8, {0, 8}}, {1000, 64, {}}, {77, 35, {1, 3}}}) {
    Random random(7);
    std::vector<Index> chosen;
    for (Index i = 0; i < rows; ++i) {
      if (i % 3 == 1 || rows == 1) chosen.push_back(i);
    }
    const auto count = static_cast<Index>(chosen.size());
    const cy::cuda::DeviceArray<Index> array(chosen.data(), count);
    const std::span<const Index> there(array.data(), chosen.size());
    OnDevice<S> x(rows, width, layout, random), some(count, width, layout), y(rows, width, layout);
    Doubles gathered(count, width), scattered(rows, width);
    for (Index n = 0; n < count; ++n) {
      for (Index c = 0; c < width; ++c)
        scattered(chosen[static_cast<std::size_t>(n)], c) = gathered(n, c) = x(chosen[static_cast<std::size_t>(n)], c);
    }
    gather<S>(context, there, x.read(), some.view());
    CHECK(some.now() == gathered.values);
    scatter<S>(context, there, some.read(), y.view());
    CHECK(y.now() == scattered.values);
  }
}

}  // namespace

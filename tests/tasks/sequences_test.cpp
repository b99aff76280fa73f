// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/tasks/sequences.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "coyote/tasks/induction.hpp"
#include "coyote/tasks/mqar.hpp"
#include "coyote/tasks/oracle.hpp"
#include "coyote/tasks/recall.hpp"
#include "support/message_of.hpp"

using coyote::Batch;
using coyote::Index;
using coyote::LabelledBatch;
using coyote::Occurrence;
using coyote::Seed;
using coyote::Split;
using coyote::Token;
using coyote::TokenSequence;
using coyote::test::message_of;

namespace {
std::atomic<long> allocations{0};
}
// Not inlined: g++ would take the pair of malloc and delete for a mistake.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

TokenSequence make(std::vector<Token> tokens, std::vector<Index> rows, std::vector<Token> labels) {
  TokenSequence sequence;
  sequence.tokens = std::move(tokens);
  sequence.label_rows = std::move(rows);
  sequence.labels = std::move(labels);
  return sequence;
}

std::vector<Token> copy(std::span<const Token> tokens) { return {tokens.begin(), tokens.end()}; }
std::vector<Index> copy(std::span<const Index> rows) { return {rows.begin(), rows.end()}; }

/// The least that a user's own task has to say: sequence i is i, i + 1, ... of length 1 + i mod 3, labelled at its last row.
struct Counting {
  Index vocabulary() const { return 1000; }
  Index longest() const { return 3; }
  Index most_labels() const { return 1; }
  void generate(Split, std::uint64_t index, TokenSequence& out) const {
    out.clear();
    for (std::uint64_t i = 0; i <= index % 3; ++i) out.tokens.push_back(static_cast<Token>(index + i));
    out.label_rows.push_back(static_cast<Index>(index % 3));
    out.labels.push_back(static_cast<Token>(index));
  }
};
struct NoBound {
  void generate(Split, std::uint64_t, TokenSequence&) const {}
};
static_assert(coyote::Task<Counting> && coyote::Task<coyote::Mqar> && coyote::Task<coyote::MqarMixture>);
static_assert(coyote::Task<coyote::SingleQueryRecall> && coyote::Task<coyote::InductionHeads>);
static_assert(!coyote::Task<NoBound> && !coyote::Task<int>);

/// Batches of several sizes hold the same sequences, and the batch passes its own check.
template <class T>
void check_batches(const T& task) {
  LabelledBatch all, part;
  coyote::fill(task, Split::training, 5, 12, all);
  all.view().check("all");
  CHECK(all.sequences() == 12);
  CHECK(all.view().length <= task.longest());
  TokenSequence alone;
  for (const Index size : {1, 2, 3, 4, 6, 12})
    for (Index first = 0; first < 12; first += size) {
      coyote::fill(task, Split::training, 5 + static_cast<std::uint64_t>(first), size, part);
      const Batch view = part.view();
      view.check("part");
      for (Index s = 0; s < size; ++s) {
        CHECK(copy(view.tokens_of(s)) == copy(all.view().tokens_of(first + s)));
        task.generate(Split::training, 5 + static_cast<std::uint64_t>(first + s), alone);
        CHECK(copy(view.tokens_of(s)) == alone.tokens);
      }
    }
  // All labels and rows again, sequence by sequence.
  std::vector<Index> rows;
  std::vector<Token> labels;
  for (Index s = 0; s < 12; ++s) {
    task.generate(Split::training, 5 + static_cast<std::uint64_t>(s), alone);
    for (const Index row : alone.label_rows) rows.push_back(all.view().begin(s) + row);
    labels.insert(labels.end(), alone.labels.begin(), alone.labels.end());
    CHECK(static_cast<Index>(alone.labels.size()) <= task.most_labels());
    for (const Token token : alone.tokens) CHECK((token >= 0 && token < task.vocabulary()));
    for (const Token label : alone.labels) CHECK((label >= 0 && label < task.vocabulary()));
  }
  CHECK(copy(all.view().label_rows) == rows);
  CHECK(copy(all.view().labels) == labels);
}

/// From the second call on, fill takes no memory, whatever sequences come.
template <class T>
long allocations_when_warm(const T& task, Index count) {
  LabelledBatch batch;
  coyote::fill(task, Split::training, 0, count, batch);
  const long before = allocations;
  for (std::uint64_t i = 1; i < 50; ++i) coyote::fill(task, Split::training, i * static_cast<std::uint64_t>(count), count, batch);
  return allocations - before;
}

template <class T>
bool same(const T& a, Split split_a, const T& b, Split split_b, std::uint64_t shift = 0) {
  TokenSequence x, y;
  for (std::uint64_t i = 0; i < 20; ++i) {
    a.generate(split_a, i, x);
    b.generate(split_b, i + shift, y);
    if (x.tokens != y.tokens || x.label_rows != y.label_rows || x.labels != y.labels) return false;
  }
  return true;
}

template <class T>
void check_streams(typename T::Options options) {
  const T one(options, Seed{1}), again(options, Seed{1}), two(options, Seed{2});
  CHECK(same(one, Split::training, again, Split::training));
  CHECK(!same(one, Split::training, two, Split::training));
  CHECK(!same(one, Split::training, one, Split::validation));
  CHECK(!same(one, Split::training, one, Split::test));
  CHECK(!same(one, Split::validation, one, Split::test));
  CHECK(!same(one, Split::training, one, Split::training, 1));
}

}  // namespace

TEST_CASE("a batch of equal lengths has no offsets, one of different lengths is packed") {
  LabelledBatch batch;
  CHECK(batch.view().sequences == 0);
  batch.append(make({1, 2, 3}, {0, 2}, {7, 8}));
  batch.append(make({4, 5, 6}, {1}, {9}));
  Batch view = batch.view();
  view.check("uniform");
  CHECK(view.offsets.empty());
  CHECK(view.sequences == 2);
  CHECK(view.length == 3);
  CHECK(copy(view.tokens) == std::vector<Token>{1, 2, 3, 4, 5, 6});
  CHECK(copy(view.label_rows) == std::vector<Index>{0, 2, 4});
  CHECK(copy(view.labels) == std::vector<Token>{7, 8, 9});

  batch.append(make({7}, {}, {}));
  view = batch.view();
  view.check("packed");
  CHECK(copy(view.offsets) == std::vector<Index>{0, 3, 6, 7});
  CHECK(view.length == 3);
  batch.append(make({8, 8, 8}, {2}, {1}));
  view = batch.view();
  view.check("packed again");
  CHECK(view.label_rows.back() == 9);

  batch.clear();
  CHECK(batch.view().sequences == 0);
  batch.append(make({1}, {}, {}));
  view = batch.view();
  view.check("after clear");
  CHECK(view.offsets.empty());
  CHECK(view.length == 1);
}

TEST_CASE("a batch refuses sequences that are not well formed and keeps what it has") {
  LabelledBatch batch;
  batch.append(make({1, 2}, {1}, {5}));
  const auto refuse = [&](TokenSequence sequence) { return message_of([&] { batch.append(sequence); }); };
  CHECK(refuse(make({}, {}, {})) == "LabelledBatch::append: required a sequence of at least one token, came none");
  CHECK(refuse(make({1}, {0}, {})) == "LabelledBatch::append: required one label per labelled row, came 0 labels for 1 rows");
  CHECK(refuse(make({1, 2}, {2}, {0})) == "LabelledBatch::append: required ascending labelled rows in 0 .. 1, came row 2");
  CHECK(refuse(make({1, 2}, {-1}, {0})) == "LabelledBatch::append: required ascending labelled rows in 0 .. 1, came row -1");
  CHECK(refuse(make({1, 2}, {1, 0}, {0, 0})) == "LabelledBatch::append: required ascending labelled rows in 0 .. 1, came row 0");
  CHECK(refuse(make({1, 2}, {1, 1}, {0, 0})) == "LabelledBatch::append: required ascending labelled rows in 0 .. 1, came row 1");
  CHECK(batch.rows() == 2);
  batch.view().check("kept");
  CHECK(message_of([&] { coyote::fill(Counting{}, Split::test, 0, 0, batch); }) ==
        "fill: required a count of at least 1 sequence, came 0");
  CHECK(batch.rows() == 2);
}

TEST_CASE("sequences do not depend on the batch they stand in") {
  check_batches(Counting{});
  check_batches(coyote::Mqar({}, Seed{3}));
  check_batches(coyote::Mqar({.pairs = 3, .passes = 2, .filler = coyote::MqarFiller::random}, Seed{3}));
  check_batches(coyote::SingleQueryRecall({.absent = 0.3}, Seed{3}));
  check_batches(coyote::InductionHeads({}, Seed{3}));
  check_batches(coyote::MqarMixture({{{.length = 16, .pairs = 2}, 1}, {{.length = 64, .pairs = 8}, 2}}, Seed{3}));
}

TEST_CASE("seed, split and index choose the sequence, and nothing else does") {
  check_streams<coyote::Mqar>({});
  check_streams<coyote::Mqar>({.filler = coyote::MqarFiller::random_without_keys});
  check_streams<coyote::SingleQueryRecall>({});
  check_streams<coyote::InductionHeads>({});
  // Indices that differ only above 32 bits are different sequences.
  TokenSequence low, high;
  coyote::Mqar().generate(Split::training, 7, low);
  coyote::Mqar().generate(Split::training, 7 + (std::uint64_t{1} << 32), high);
  CHECK(low.tokens != high.tokens);
}

TEST_CASE("a workspace left by another task changes nothing") {
  TokenSequence fresh, used;
  coyote::SingleQueryRecall({.vocabulary = 5000}, Seed{1}).generate(Split::training, 0, used);
  for (std::uint64_t i = 0; i < 30; ++i) {
    const coyote::Mqar big({.vocabulary = 3000, .length = 256, .pairs = 40, .filler = coyote::MqarFiller::random_without_keys});
    big.generate(Split::test, i, used);
    coyote::Mqar().generate(Split::training, i, used);
    fresh = TokenSequence{};
    coyote::Mqar().generate(Split::training, i, fresh);
    CHECK(fresh.tokens == used.tokens);
    CHECK(fresh.labels == used.labels);
    CHECK(fresh.label_rows == used.label_rows);
  }
}

TEST_CASE("fill allocates on its first call only") {
  CHECK(allocations_when_warm(coyote::Mqar({}, Seed{1}), 16) == 0);
  CHECK(allocations_when_warm(coyote::Mqar({.filler = coyote::MqarFiller::random_without_keys}, Seed{1}), 16) == 0);
  CHECK(allocations_when_warm(coyote::SingleQueryRecall({.absent = 0.5}, Seed{1}), 16) == 0);
  CHECK(allocations_when_warm(coyote::InductionHeads({}, Seed{1}), 16) == 0);
  // The rare setting is larger in every respect and does not come in the first batch.
  const coyote::MqarMixture rare({{{.length = 16, .pairs = 2}, 100}, {{.vocabulary = 20000, .length = 512, .pairs = 64}, 1}},
                                 Seed{2});
  bool early = false;
  for (std::uint64_t i = 0; i < 8; ++i) early = early || rare.setting_of(Split::training, i) == 1;
  bool late = false;
  for (std::uint64_t i = 8; i < 400; ++i) late = late || rare.setting_of(Split::training, i) == 1;
  REQUIRE((!early && late));
  CHECK(allocations_when_warm(rare, 8) == 0);
  // The counter counts: a first call and a larger one take memory.
  const Counting counting;
  LabelledBatch batch;
  for (const Index count : {4, 400}) {
    const long before = allocations;
    coyote::fill(counting, Split::training, 0, count, batch);
    CHECK(allocations > before);
  }
}

TEST_CASE("the product of two words is exact") {
  const std::uint64_t words[] = {
      0, 1, 2, 3, 0xFFFFFFFFu, 0x100000000u, 0x123456789ABCDEF0u, ~std::uint64_t{0}, std::uint64_t{1} << 63};
  for (const std::uint64_t a : words)
    for (const std::uint64_t b : words) {
      // Schoolbook, one bit of b at a time.
      std::uint64_t high = 0, low = 0;
      for (int bit = 63; bit >= 0; --bit) {
        high = high << 1 | low >> 63;
        low <<= 1;
        if ((b >> bit & 1) == 0) continue;
        low += a;
        high += low < a ? 1 : 0;
      }
      CHECK(coyote::detail::multiply_high(a, b) == high);
    }
}

TEST_CASE("the oracles answer by definition") {
  const std::vector<Token> tokens = {5, 7, 5, 5, 9, 7, 5};
  CHECK(coyote::most_recent_answers(tokens) == std::vector<Token>{-1, -1, 7, 5, -1, 5, 9});
  CHECK(coyote::first_answers(tokens) == std::vector<Token>{-1, -1, 7, 7, -1, 5, 7});

  const std::vector<Token> keys = {1, 1, 2, 1}, values = {10, 11, 12, 13}, queries = {1, 1, 1, 2};
  CHECK(coyote::mqar_aligned(keys, values, queries) == std::vector<Token>{-1, 10, 11, 12});
  CHECK(coyote::mqar_aligned(keys, values, queries, Occurrence::first) == std::vector<Token>{-1, 10, 10, 12});
  const std::vector<Token> triples = {1, 10, 1, 1, 11, 1, 2, 12, 1, 1, 13, 2};
  CHECK(coyote::mqar_interleaved(triples) == coyote::mqar_aligned(keys, values, queries));
  CHECK(coyote::mqar_interleaved(triples, Occurrence::first) == coyote::mqar_aligned(keys, values, queries, Occurrence::first));
  CHECK(message_of([&] { coyote::mqar_interleaved(tokens); }) == "mqar_interleaved: required a multiple of 3 tokens, came 7");
  CHECK(message_of([&] { coyote::mqar_aligned(keys, values, tokens); }) ==
        "mqar_aligned: required one key, value and query per row, came 4 keys, 4 values, 7 queries");

  LabelledBatch batch;
  batch.append(make(tokens, {3, 6}, {5, 9}));
  batch.append(make({1}, {0}, {1}));
  batch.append(make({9, 8, 9}, {2}, {8}));
  CHECK(coyote::disagreements(batch.view(), Occurrence::latest) == 1);
  CHECK(coyote::disagreements(batch.view(), Occurrence::first) == 3);
}

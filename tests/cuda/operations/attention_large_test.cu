// SPDX-License-Identifier: Apache-2.0
#include "attention_support.cuh"

// Dense attention in bf16 at sizes where several tiles go by, for every alignment of lengths and tiles.

namespace {

using namespace test;
namespace cuda = coyote::cuda;

TEST_CASE("long and odd lengths, one and many sequences") {
  for (const Index width : {Index{64}, Index{128}}) {
    for (const Index length : {255, 256, 257, 383, 384, 385, 511, 512, 513, 640, 777, 1024, 1025}) {
      check<bf16, Dense>({.lengths = {length}, .heads = 1, .width = width, .packed = false});
    }
    check<bf16, Dense>({.lengths = {512, 512, 512}, .heads = 3, .width = width, .packed = false});
    check<bf16, Dense>({.lengths = {300, 1, 129, 128, 127, 700, 2}, .heads = 2, .width = width});
    check<bf16, Dense>({.lengths = {2049}, .heads = 1, .width = width});
  }
  for (const Index width : {8, 16, 24, 40, 56, 72, 88, 104, 120}) {
    check<bf16, Dense>({.lengths = {300}, .heads = 2, .width = width, .pad = 8});
  }
  check<bf16, Dense>({.lengths = {300, 100}, .heads = 2, .width = 64, .pad = 1});
  check<bf16, Dense>({.lengths = {300, 100}, .heads = 2, .width = 128, .pad = 8, .offset = 8});
  for (const Index width : {8, 40, 64, 88, 128}) {  // sequences that begin at every place of a draw's eight keys
    check<bf16, Dense>({.lengths = {601, 66, 135, 1, 520}, .heads = 3, .width = width, .rate = 0.1});
    check<bf16, Dense>({.lengths = {513, 513}, .heads = 1, .width = width, .packed = false, .rate = 0.5});
  }
  check<bf16, Dense>({.lengths = {400, 101, 530}, .heads = 1, .width = 64, .rate = 0.1, .pad = 1});
  check<bf16, Window<200>>({.lengths = {700, 100}, .heads = 2, .width = 128});
}

TEST_CASE("many sequences with dropout, each backward by a block of its own") {
  std::vector<Index> lengths = {129, 255, 256, 257, 300, 511, 512, 1, 40, 384, 33, 200};
  while (lengths.size() < 24) lengths.push_back(static_cast<Index>(120 + lengths.size()));
  check<bf16, Dense>({.lengths = lengths, .heads = 3, .width = 64, .rate = 0.1});
  check<bf16, Dense>({.lengths = lengths, .heads = 3, .width = 24, .rate = 0.3, .pad = 3});
}

/// A sequence of numbers before, and behind it, one of NaN.
void check_leaks(Index length, Index width, double rate) {
  CAPTURE(length);
  CAPTURE(width);
  CAPTURE(rate);
  const Index rows = 2 * length;
  const Sequences sequences({length, length}, 7);
  const AttentionDropout dropout{rate, Stream(Seed{9}, Purpose::dropout)};
  Both<bf16> q(rows, width, width), k(rows, width, width), v(rows, width, width), dy(rows, width, width), y(rows, width, width),
      dq(rows, width, width), dk(rows, width, width), dv(rows, width, width);
  Both<float> log(rows, 1, 1);
  Both<bf16>* const inputs[] = {&q, &k, &v, &dy};
  for (std::uint64_t n = 0; n < 4; ++n) {
    inputs[n]->fill(n);
    for (Index i = length; i < rows; ++i) {
      for (Index c = 0; c < width; ++c) (*inputs[n])(i, c) = cuda::from_float<bf16>(NAN);
    }
    inputs[n]->upload();
  }
  Context<Cuda> context;
  context.poison(true);
  attention<bf16, Dense>(context, sequences.batch(), {}, 1, 0.1f, dropout, q.view(), k.view(), v.view(), y.view(), log.view());
  attention_backward<bf16, Dense>(context, sequences.batch(), {}, 1, 0.1f, dropout, q.view(), k.view(), v.view(), y.view(),
                                  log.view(), dy.view(), dq.view(), dk.view(), dv.view());
  context.synchronise();
  for (Both<bf16>* m : {&y, &dq, &dk, &dv}) {
    m->download();
    bool finite = true;
    for (Index i = 0; i < length; ++i) {
      for (Index c = 0; c < width; ++c) finite = finite && std::isfinite(std::as_const(*m)(i, c));
    }
    CHECK(finite);
    CHECK(std::isnan(std::as_const(*m)(length, 0)));
  }
}

TEST_CASE("NaN in another sequence stays there") {
  for (const double rate : {0.0, 0.1}) {
    for (const Index length : {5, 63, 70, 130}) {
      for (const Index width : {64, 128, 256, 512}) check_leaks(length, width, rate);
    }
  }
}

/// Scores so large that their rounding is far above 1: probabilities stay at most 1, and gradients finite.
void check_extremes(Index length, Index width, double rate) {
  CAPTURE(length);
  CAPTURE(width);
  CAPTURE(rate);
  const Sequences sequences({length, length}, 7);
  const Index rows = 2 * length;
  const AttentionDropout dropout{rate, Stream(Seed{9}, Purpose::dropout)};
  Both<bf16> q(rows, width, width), k(rows, width, width), v(rows, width, width), dy(rows, width, width), y(rows, width, width),
      dq(rows, width, width), dk(rows, width, width), dv(rows, width, width);
  Both<float> log(rows, 1, 1);
  const double size = std::sqrt(2.5e8 / std::sqrt(static_cast<double>(width)));
  q.fill(1, size);
  k.fill(2, size);
  v.fill(3);
  dy.fill(4);
  Context<Cuda> context;
  context.poison(true);
  attention<bf16, Dense>(context, sequences.batch(), {}, 1, 1.0f, dropout, q.view(), k.view(), v.view(), y.view(), log.view());
  attention_backward<bf16, Dense>(context, sequences.batch(), {}, 1, 1.0f, dropout, q.view(), k.view(), v.view(), y.view(),
                                  log.view(), dy.view(), dq.view(), dk.view(), dv.view());
  context.synchronise();
  log.download();
  double largest = 0;
  for (Index i = 0; i < rows; ++i) largest = std::max(largest, static_cast<double>(std::as_const(log)(i, 0)));
  CHECK(largest > 5e8);
  for (Both<bf16>* m : {&y, &dq, &dk, &dv}) {
    m->download();
    double most = 0;
    bool finite = true;
    for (Index i = 0; i < rows; ++i) {
      for (Index c = 0; c < width; ++c) {
        const double x = std::as_const(*m)(i, c);
        finite = finite && std::isfinite(x);
        most = std::max(most, std::abs(x));
      }
    }
    CHECK(finite);
    if (m == &y) CHECK(most > 0);
  }
}

TEST_CASE("scores near 1e9 give finite gradients") {
  for (const double rate : {0.0, 0.1}) {
    for (const Index length : {64, 100, 300}) {
      for (const Index width : {64, 128, 256, 512}) check_extremes(length, width, rate);
    }
  }
}

TEST_CASE("worst relative error") { MESSAGE("worst relative error of this program: ", worst_seen); }

}  // namespace

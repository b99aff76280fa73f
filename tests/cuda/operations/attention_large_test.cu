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
  check<bf16, Dense>({.lengths = {400, 100}, .heads = 2, .width = 128, .rate = 0.1});
  check<bf16, Window<200>>({.lengths = {700, 100}, .heads = 2, .width = 128});
}

TEST_CASE("NaN in another sequence stays there") {
  const Index d = 128, first = 130, second = 70;
  const Sequences sequences({first, second}, 7);
  Both<bf16> q(first + second, d, d), k(first + second, d, d), v(first + second, d, d), y(first + second, d, d);
  q.fill(1);
  k.fill(2);
  v.fill(3);
  for (Index i = first; i < first + second; ++i) {
    for (Index c = 0; c < d; ++c) q(i, c) = k(i, c) = v(i, c) = cuda::from_float<bf16>(NAN);
  }
  for (Both<bf16>* m : {&q, &k, &v}) m->upload();
  Context<Cuda> context;
  attention<bf16, Dense>(context, sequences.batch(), {}, 1, 0.1f, {}, q.view(), k.view(), v.view(), y.view(), {});
  context.synchronise();
  y.download();
  bool finite = true;
  for (Index i = 0; i < first; ++i) {
    for (Index c = 0; c < d; ++c) finite = finite && std::isfinite(std::as_const(y)(i, c));
  }
  CHECK(finite);
  CHECK(std::isnan(std::as_const(y)(first, 0)));
}

TEST_CASE("worst relative error") { MESSAGE("worst relative error of this program: ", worst_seen); }

}  // namespace

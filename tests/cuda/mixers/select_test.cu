// SPDX-License-Identifier: Apache-2.0
#include "coyote/combinators/contract.hpp"
#include "coyote/combinators/outer.hpp"
#include "coyote/combinators/select.hpp"
#include "coyote/mixers/attention.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

TEST_CASE("selection on Cuda is the Reference's") {
  using Top = Select<TopRows<>, Linear>;
  using Threshold = Select<ThresholdRows<>, Linear>;
  // Scores that lie far apart, a penalty that counts, and rows below the threshold as well as above.
  Top::Options top;
  top.selector = {.penalty = 0.5, .weight = Init::normal(1)};
  Threshold::Options threshold;
  threshold.selector = {.penalty = 0.5, .weight = Init::normal(1)};
  for (const Index width : {6, 17}) {
    agrees_with_reference<Top, float, Cuda>({.width = width, .lengths = {5, 1, 300, 33}}, top);
    agrees_with_reference<Threshold, float, Cuda>({.width = width, .lengths = {5, 1, 300, 33}}, threshold);
    // All of conforms<> a selection cannot keep: its inference drops rows that its training weighs.
    agrees_with_reference<Top, bf16, Cuda>({.width = width, .lengths = {7, 1, 65}}, top);
    agrees_with_reference<Threshold, bf16, Cuda>({.width = width, .lengths = {7, 1, 65}}, threshold);
  }
  const Packed packed({5, 1, 300, 33}, 5);
  const Batch batch = packed.view();
  const Matrix<float> u = random_matrix<float>(batch.rows(), 6, 1), dy = random_matrix<float>(batch.rows(), 6, 2);
  const auto picked = [&]<class M, class Backend>(std::type_identity<M>, std::type_identity<Backend>,
                                                  const typename M::Options& options) {
    Bench<M, Backend, float> bench({6, batch.length}, options);
    return bench.run(batch, u, dy.view(), 1, Mode::inference).y;
  };
  const auto compare = [&]<class M>(std::type_identity<M> mixer, const typename M::Options& options) {
    const auto here = picked(mixer, std::type_identity<Cuda>{}, options),
               there = picked(mixer, std::type_identity<Reference>{}, options);
    CHECK(relative_error(here, there) <= 1e-5);
  };
  compare(std::type_identity<Top>{}, top);
  compare(std::type_identity<Threshold>{}, threshold);
}

TEST_CASE("products of heads on Cuda are the Reference's") {
  for (const Index width : {6, 24}) {
    agrees_with_reference<Outer<3, Linear, Linear>, float, Cuda>({.width = width, .lengths = {5, 1, 33}});
    agrees_with_reference<Contract<3, Linear, Outer<3, Linear, Linear>>, float, Cuda>({.width = width, .lengths = {5, 1, 33}});
  }
  conforms<Contract<2, Linear, Outer<2, Linear, Linear>>, Cuda, float>();
}

TEST_CASE("decoding with attention on Cuda") {
  conforms<Attention<Heads<2>, Dense, Rotary<>>, Cuda, float>();
  conforms<Attention<Heads<1>, Window<3>>, Cuda, float>();
  conforms<Attention<Heads<2>, RepeatedBigrams<2>>, Cuda, float>();
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include "cuda/training/toy_models.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

template <class S>
void agrees(double tolerance) {
  Context<Cuda> context;
  context.poison(true);
  Context<Reference> host;
  context.seed = host.seed = Seed{5};
  context.step = host.step = 3;
  auto model = make<OnGpu<S>>();
  auto plain = make<Plain>();
  model.enable_gradients();
  plain.enable_gradients();
  const PreviousToken task;
  LabelledBatch data;
  fill(task, Split::training, 0, 6, data);
  typename OnGpu<S>::Saved saved;
  Plain::Saved plain_saved;
  const double loss = model.loss_and_gradients(context, data.view(), saved);
  const double truth = plain.loss_and_gradients(host, data.view(), plain_saved);
  CHECK(std::abs(loss - truth) <= tolerance * truth);
  const std::vector<float> found = in_order(model, true);
  const std::vector<double> wanted = in_order(plain, true);
  CHECK(relative_error(found, wanted) <= 10 * tolerance);
  CHECK_FALSE(relative_error(std::vector<float>(found.size()), wanted) <= 10 * tolerance);
  CHECK(std::abs(static_cast<double>(model.loss(context, data.view())) - plain.loss(host, data.view())) <= tolerance * truth);
}

TEST_CASE("loss and gradients are those of the definition, with the same dropout") {
  agrees<float>(1e-5);
  agrees<bf16>(1e-2);
}

}  // namespace

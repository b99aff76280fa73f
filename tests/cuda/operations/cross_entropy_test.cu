// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include "coyote/operations/cuda/cross_entropy.cuh"

#include "coyote/operations/reference/cross_entropy.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

template <class S>
void agrees(Index rows, Index vocabulary, Index width, double tolerance) {
  CAPTURE(rows);
  CAPTURE(vocabulary);
  CAPTURE(width);
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  const Matrix<float> hidden = random_matrix<S>(rows, width, 1), table = random_matrix<S>(vocabulary, width, 2, 0.3);
  std::vector<Token> labels;
  const Stream draws(Seed{3}, Purpose::test);
  for (Index i = 0; i < rows; ++i) {
    labels.push_back(static_cast<Token>(draws.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(vocabulary))));
  }
  const DeviceMatrix<S> hidden_(hidden.view());
  const DeviceMatrix<float> table_(table.view());
  DeviceMatrix<S> dhidden_(rows, width);
  DeviceMatrix<float> dtable_(table.view());
  const cuda::DeviceArray<Token> labels_(labels.data(), rows);
  cuda::DeviceArray<Token> predicted_(rows);
  cuda::DeviceArray<double> losses_(rows);
  const auto size = static_cast<std::size_t>(rows);
  const double loss = cross_entropy<S>(context, hidden_, table_, {labels_.data(), size}, {predicted_.data(), size},
                                       {losses_.data(), size}, dhidden_, dtable_);
  const double only = cross_entropy<S>(context, hidden_, table_, {labels_.data(), size}, {}, {}, Rows<S>(), Rows<float>());
  CHECK(only == loss);
  std::vector<Token> predicted(size), expected(size);
  std::vector<double> losses(size), terms(size);
  predicted_.download(predicted.data());
  losses_.download(losses.data());
  Context<Reference> plain;
  Matrix<double> wide(rows, width), wide_table(vocabulary, width), dhidden(rows, width), dtable(vocabulary, width);
  for (Index i = 0; i < hidden.size(); ++i) wide.data()[i] = hidden.data()[i];
  for (Index i = 0; i < table.size(); ++i) wide_table.data()[i] = dtable.data()[i] = table.data()[i];
  const double truth = cross_entropy<double>(plain, wide, wide_table, labels, expected, terms, dhidden, dtable);
  CHECK(std::abs(loss - truth) <= 1e-4 * truth);
  CHECK(relative_error(losses, terms) <= 1e-4);
  Index differ = 0;
  for (std::size_t i = 0; i < size; ++i) differ += predicted[i] == expected[i] ? 0 : 1;
  CHECK(differ <= rows / 50);  // near ties
  CHECK(relative_error(dhidden_.read(), dhidden) <= tolerance);
  Matrix<double> gradient = dtable;
  Matrix<float> found = dtable_.read();
  for (Index i = 0; i < table.size(); ++i) {
    gradient.data()[i] -= table.data()[i];
    found.data()[i] -= table.data()[i];
  }
  CHECK(relative_error(found, gradient) <= tolerance);
  CHECK_FALSE(relative_error(Matrix<float>(vocabulary, width), gradient) <= tolerance);
  const double right = count_equal(context, {predicted_.data(), size}, {labels_.data(), size});
  Index equal = 0;
  for (std::size_t i = 0; i < size; ++i) equal += predicted[i] == labels[i] ? 1 : 0;
  CHECK(right == static_cast<double>(equal));
}

TEST_CASE("cross entropy agrees with its definition") {
  agrees<float>(1, 2, 1, 1e-5);
  agrees<float>(37, 101, 21, 1e-5);
  agrees<float>(130, 1024, 64, 1e-5);
  agrees<bf16>(37, 101, 21, 1e-2);
  agrees<bf16>(130, 1024, 64, 1e-2);
  agrees<bf16>(2000, 8192, 64, 1e-2);  // in several chunks
}

}  // namespace

int main(int argc, char** argv) {
  coyote::test::require_gpu();
  return doctest::Context(argc, argv).run();
}

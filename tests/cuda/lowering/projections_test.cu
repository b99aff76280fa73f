// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/contract.hpp"
#include "coyote/combinators/outer.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/mixers/short_conv.hpp"
#include "coyote/models/model.hpp"
#include "coyote/operations/cuda/operations.cuh"
#include "coyote/operations/reference/operations.hpp"
#include "coyote/training/checkpoint.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

/// H3's tree with a short convolution in place of its long ones.
using Tree = Contract<2, Linear, Outer<2, Chain<Linear, ShortConv<3>>, Linear>>;
using Fused = lowered<Tree, Cuda>;
static_assert(!std::same_as<Fused, Tree>);

/// All gradients, in the order of the parameters' names.
template <class M, class S>
std::vector<double> gradients(Bench<M, Cuda, S>& bench) {
  std::vector<double> values;
  bench.store.on_host(bench.layer, [&] {
    for (const auto& p : parameters_of<float>(bench.layer)) {
      for (Index i = 0; i < p.gradient.rows; ++i) {
        values.insert(values.end(), p.gradient.row(i), p.gradient.row(i) + p.gradient.width);
      }
    }
  });
  return values;
}

/// Float within rounding; bf16 within its tolerance, since what one product sums up the others round between them.
template <class S>
void same(Index width, const std::vector<Index>& lengths) {
  CAPTURE(width);
  using Tol = Tolerance<S>;
  const Packed packed(lengths);
  const Batch batch = packed.view();
  Bench<Tree, Cuda, S> plain({width, batch.length}, {});
  Bench<Fused, Cuda, S> fused({width, batch.length}, {});
  const auto u = random_matrix<S>(batch.rows(), width, 1), w = random_matrix<S>(batch.rows(), width, 2);
  const Results<S> expected = plain.run(batch, u, w.view()), r = fused.run(batch, u, w.view());
  CHECK(relative_error(r.y, expected.y) <= Tol::forward);
  CHECK(relative_error(r.du, expected.du) <= Tol::gradient);
  std::vector<double> found = gradients(fused);
  const std::vector<double> truth = gradients(plain);
  REQUIRE(found.size() == truth.size());
  CHECK(relative_error(found, truth) <= Tol::gradient);
  std::rotate(found.begin(), found.begin() + 1, found.end());  // negative controls: another place, another row
  CHECK_FALSE(relative_error(found, truth) <= Tol::gradient);
  const auto other = fused.run(batch, random_matrix<S>(batch.rows(), width, 3), w.view());
  CHECK_FALSE(relative_error(other.y, expected.y) <= Tol::forward);
  CHECK_FALSE(relative_error(other.du, expected.du) <= Tol::gradient);
}

TEST_CASE("projections of one input as one product are those that are one each") {
  for (const Index width : {2, 6, 40, 64, 128, 256}) {
    same<float>(width, {65, 1, 300});
    same<bf16>(width, {65, 1, 300});
  }
}

TEST_CASE("they keep every mixer's promises, small") {
  for (const Index width : {6, 64}) {
    conforms<Fused, Cuda, float>({.width = width});
    conforms<Fused, Cuda, bf16>({.width = width});
  }
}

TEST_CASE("files of parameters know nothing of it") {
  const std::string path = (std::filesystem::temp_directory_path() / "coyote_projections_test.safetensors").string();
  const Index rows = 9, width = 24;
  Model<Tree, Cuda, float> model({width, rows}, Seed{3}), other({width, rows}, Seed{4});
  Layer<Tree, Reference, float> layer({width, rows}, {}, {});
  ParameterStore<float> store;
  store.bind(layer);
  const Batch batch{.sequences = 1, .length = rows};
  const Matrix<float> u = random_matrix<float>(rows, width, 1);
  const auto by_definition = [&] {
    Context<Reference> context;
    Layer<Tree, Reference, float>::Saved saved;
    Matrix<float> y(rows, width);
    layer.forward(context, batch, u, y, saved);
    return y;
  };
  const auto by_model = [&](const Model<Tree, Cuda, float>& m) {
    Context<Cuda> context;
    const DeviceMatrix<float> x(u.view());
    DeviceMatrix<float> y(rows, width);
    m.forward(context, batch, x, y);
    return y.read();
  };
  save_parameters(model, path);
  load_parameters(layer, path);
  CHECK(relative_error(by_model(model), by_definition()) <= 1e-5);
  CHECK_FALSE(relative_error(by_model(other), by_definition()) <= 1e-5);
  save_parameters(layer, path);
  load_parameters(other, path);
  CHECK(relative_error(by_model(other), by_definition()) <= 1e-5);
  std::filesystem::remove(path);
}

}  // namespace

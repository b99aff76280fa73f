// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/cross_entropy.cuh"

#include "coyote/operations/reference/cross_entropy.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
namespace cuda = coyote::cuda;  // CUB has another
using namespace coyote::test;

/// One problem: normal numbers, the table's of size `scale`; hidden rows and their gradients lie in rows `padding` longer, off
/// the boundaries of 16 bytes if there is any. `sure` models: hidden rows are that often their label's entry.
struct Problem {
  Index rows, vocabulary, width;
  double scale = 0.3;
  Index padding = 0;
  double sure = 0;
};

template <class S>
struct Case {
  Problem problem;
  Matrix<float> hidden, table;
  std::vector<Token> labels;

  explicit Case(Problem p)
      : problem(p), hidden(random_matrix<S>(p.rows, p.width, 1)), table(random_matrix<S>(p.vocabulary, p.width, 2, p.scale)) {
    const Stream draws(Seed{3}, Purpose::test);
    for (Index i = 0; i < p.rows; ++i) {
      labels.push_back(static_cast<Token>(draws.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(p.vocabulary))));
      for (Index c = 0; c < p.width && p.sure > 0; ++c) {
        hidden(i, c) = cuda::to_float(cuda::from_float<S>(static_cast<float>(p.sure) * table(labels.back(), c)));
      }
    }
  }
};

struct Found {
  double loss = 0;
  std::vector<Token> predicted;
  std::vector<double> losses;
  Matrix<float> dhidden, dtable;
};

enum class Path { chosen, products };

template <class S>
Found find(const Case<S>& c, Path path = Path::chosen) {
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  const auto& [rows, vocabulary, width, scale, padding, sure] = c.problem;
  const Index before = padding > 0 ? 1 : 0;
  const DeviceMatrix<S> hidden(c.hidden.view(), width + padding, before);
  const DeviceMatrix<float> table(c.table.view());
  DeviceMatrix<S> dhidden(rows, width + padding);
  // What gradients are added to; next to the small ones of sure models it would drown them.
  Matrix<float> start = c.table;
  if (sure > 0) std::fill(start.data(), start.data() + start.size(), 0.0f);
  DeviceMatrix<float> dtable(start.view());
  const cuda::DeviceArray<Token> labels(c.labels.data(), rows);
  cuda::DeviceArray<Token> predicted(rows);
  cuda::DeviceArray<double> losses(rows);
  const auto size = static_cast<std::size_t>(rows);
  const Rows<const S> h = hidden.view().columns(before, width);
  const Rows<S> dh = dhidden.view().columns(before, width);
  Found found;
  if (path == Path::chosen) {
    found.loss =
        cross_entropy<S>(context, h, table, {labels.data(), size}, {predicted.data(), size}, {losses.data(), size}, dh, dtable);
    const double only = cross_entropy<S>(context, h, table, {labels.data(), size}, {}, {}, Rows<S>(), Rows<float>());
    CHECK((only == found.loss || (std::isnan(only) && std::isnan(found.loss))));
  } else {
    const auto frame = context.frame();
    cuda::product_cross_entropy<S>(context, h, table, labels.data(), predicted.data(), losses.data(), dh, dtable);
    context.synchronise();
  }
  found.predicted.resize(size);
  found.losses.resize(size);
  predicted.download(found.predicted.data());
  losses.download(found.losses.data());
  const Matrix<float> wide = dhidden.read();
  found.dhidden = Matrix<float>(rows, width);
  for (Index i = 0; i < rows; ++i) {
    for (Index k = 0; k < width; ++k) found.dhidden(i, k) = wide(i, before + k);
    for (Index k = 0; k < padding; ++k) CHECK(std::isnan(wide(i, k < before ? k : width + k)));
  }
  found.dtable = dtable.read();
  for (Index i = 0; i < found.dtable.size(); ++i) found.dtable.data()[i] -= start.data()[i];
  Index equal = 0;
  for (std::size_t i = 0; i < size; ++i) equal += found.predicted[i] == c.labels[i] ? 1 : 0;
  const double right = count_equal(context, {predicted.data(), size}, {labels.data(), size});
  CHECK(right == static_cast<double>(equal));
  return found;
}

template <class S>
void agrees(Problem p, double tolerance, Path path = Path::chosen) {
  CAPTURE(p.rows);
  CAPTURE(p.vocabulary);
  CAPTURE(p.width);
  CAPTURE(p.sure);
  const Case<S> c(p);
  const Found found = find<S>(c, path);
  Context<Reference> plain;
  Matrix<double> wide(p.rows, p.width), table(p.vocabulary, p.width), dhidden(p.rows, p.width), dtable(p.vocabulary, p.width);
  for (Index i = 0; i < c.hidden.size(); ++i) wide.data()[i] = c.hidden.data()[i];
  for (Index i = 0; i < c.table.size(); ++i) table.data()[i] = c.table.data()[i];
  std::vector<Token> expected(c.labels.size());
  std::vector<double> terms(c.labels.size());
  const double truth = cross_entropy<double>(plain, wide, table, c.labels, expected, terms, dhidden, dtable);
  if (path == Path::chosen) CHECK(std::abs(found.loss - truth) <= 1e-4 * truth);
  CHECK(relative_error(found.losses, terms) <= 1e-4);
  Index differ = 0;
  for (std::size_t i = 0; i < terms.size(); ++i) differ += found.predicted[i] == expected[i] ? 0 : 1;
  CHECK(differ <= p.rows / 50);  // near ties
  CHECK(relative_error(found.dhidden, dhidden) <= tolerance);
  CHECK(relative_error(found.dtable, dtable) <= tolerance);
  if (p.vocabulary > 1) {  // one entry alone has no gradient
    CHECK_FALSE(relative_error(Matrix<float>(p.vocabulary, p.width), dtable) <= tolerance);
    Matrix<float> wrong = found.dhidden;
    for (Index k = 0; k < p.width; ++k) wrong(p.rows / 2, k) *= 0.5f;
    if (p.rows < 500 && p.sure == 0) CHECK_FALSE(relative_error(wrong, dhidden) <= tolerance);
  }
}

TEST_CASE("cross entropy in float agrees with its definition") {
  agrees<float>({1, 2, 1}, 1e-5);
  agrees<float>({37, 101, 21}, 1e-5);
  agrees<float>({130, 1024, 64}, 1e-5);
  agrees<float>({300, 1001, 64, 0.3, 3}, 1e-5);
}

TEST_CASE("cross entropy in bf16 agrees with its definition") {
  agrees<bf16>({1, 2, 1}, 1e-2);
  agrees<bf16>({5, 1, 64}, 1e-2);
  agrees<bf16>({37, 101, 21}, 1e-2);
  agrees<bf16>({3, 65, 64}, 1e-2);
  agrees<bf16>({64, 64, 64}, 1e-2);
  agrees<bf16>({65, 63, 16}, 1e-2);
  agrees<bf16>({130, 1024, 64}, 1e-2);
  agrees<bf16>({129, 4099, 48, 0.3, 3}, 1e-2);
  agrees<bf16>({200, 1000, 128}, 1e-2);
  agrees<bf16>({333, 777, 100, 0.3, 4}, 1e-2);
  agrees<bf16>({193, 500, 256, 0.1}, 1e-2);
  agrees<bf16>({97, 1300, 200, 0.1, 8}, 1e-2);
  agrees<bf16>({70, 600, 272, 0.1}, 1e-2);
  agrees<bf16>({2000, 8192, 64}, 1e-2);
  agrees<bf16>({50, 3000, 64, 3}, 1e-2);  // scores up to a hundred
}

TEST_CASE("cross entropy at its smallest shapes") {  // for compute-sanitizer
  for (const Index width : {3, 64, 128, 256}) agrees<bf16>({3, 70, width, 0.1}, 1e-2);
  agrees<bf16>({3, 12, 272, 0.1}, 1e-2);
  agrees<float>({3, 5, 2}, 1e-5);
}

TEST_CASE("cross entropy of sure models does not cancel") {
  for (const double sure : {1.0, 2.0, 3.0}) {
    agrees<bf16>({200, 500, 64, 0.3, 0, sure}, 1e-2);
    agrees<bf16>({200, 500, 128, 0.2, 0, sure}, 1e-2);
  }
}

TEST_CASE("cross entropy by products agrees with its definition") {
  agrees<bf16>({37, 101, 21}, 1e-2, Path::products);
  agrees<bf16>({130, 1024, 64}, 1e-2, Path::products);
  agrees<bf16>({1100, 8192, 64}, 1e-2, Path::products);  // in several chunks
}

template <class S>
void repeats(Problem p) {
  const Case<S> c(p);
  const Found one = find<S>(c), two = find<S>(c);
  CHECK(one.loss == two.loss);
  CHECK(one.predicted == two.predicted);
  CHECK(one.losses == two.losses);
  CHECK(std::equal(one.dhidden.data(), one.dhidden.data() + one.dhidden.size(), two.dhidden.data()));
  CHECK(std::equal(one.dtable.data(), one.dtable.data() + one.dtable.size(), two.dtable.data()));
}

TEST_CASE("cross entropy gives the same bits every time") {
  repeats<float>({300, 1000, 32});
  repeats<bf16>({2048, 8192, 64});
  repeats<bf16>({700, 3001, 128});
  repeats<bf16>({700, 3001, 256, 0.1});
}

TEST_CASE("the first of equally likely entries is predicted") {
  for (const Index width : {64, 128, 256}) {
    for (const Index apart : {1, 2, 8, 64, 500}) {
      CAPTURE(width);
      CAPTURE(apart);
      Case<bf16> c({150, 1000, width, 0.3});
      for (Index v = 0; v < 1000; ++v) {  // in each run of 2 * apart entries the second half repeats the first
        if (v / apart % 2 == 1) std::copy_n(c.table.view().row(v - apart), width, c.table.view().row(v));
      }
      const Found found = find<bf16>(c);
      Index second = 0;
      for (const Token v : found.predicted) second += v / apart % 2;
      CHECK(second == 0);
    }
  }
}

TEST_CASE("a NaN among a row's scores makes its loss NaN") {
  for (const Index width : {21, 64, 128, 256}) {
    CAPTURE(width);
    Case<bf16> c({200, 1000, width, 0.3});
    c.hidden(77, width / 2) = NAN;
    const Found found = find<bf16>(c);
    CHECK(std::isnan(found.loss));
    for (std::size_t i = 0; i < 200; ++i) CHECK(std::isnan(found.losses[i]) == (i == 77));
    Case<bf16> other({200, 1000, width, 0.3});
    other.table(999, 0) = NAN;
    const Found all = find<bf16>(other);
    for (std::size_t i = 0; i < 200; ++i) CHECK(std::isnan(all.losses[i]));
  }
}

}  // namespace

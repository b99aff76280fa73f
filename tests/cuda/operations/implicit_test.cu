// SPDX-License-Identifier: Apache-2.0
#include "coyote/operations/cuda/implicit.cuh"

#include "coyote/filters/implicit.hpp"
#include "coyote/operations/reference/operations.hpp"
#include "support/cuda.cuh"

namespace {

using namespace coyote;
using namespace coyote::test;

struct Shape {
  Index rows, features, units, width, layers = 1;
  bool biased = true, trains_features = false;
};

/// The parameters of a net, its values and its gradients, which begin as the parameters.
template <class P, template <class> class M>
struct NetOf {
  std::vector<M<P>> weight, bias, dweight, dbias;
  M<P> features, frequency, dfeatures, dfrequency, before, after, out, dout;

  template <class Make>
  NetOf(const Shape& s, bool has_frequency, Make make)
      : features(make(s.rows, s.features, 1.0)),
        frequency(make(has_frequency ? 1 : 0, s.units, 1.0)),
        dfeatures(make(s.trains_features ? s.rows : 0, s.features, 1.0)),
        dfrequency(make(has_frequency ? 1 : 0, s.units, 1.0)),
        before(make(s.rows, s.layers * s.units, 0.0)),
        after(make(s.rows, s.layers * s.units, 0.0)),
        out(make(s.rows, s.width, 0.0)),
        dout(make(s.rows, s.width, 1.0)) {
    for (Index l = 0; l <= s.layers; ++l) {
      const Index in = l == 0 ? s.features : s.units, to = l == s.layers ? s.width : s.units;
      const Index biases = l < s.layers || s.biased ? 1 : 0;
      for (auto* weights : {&weight, &dweight}) weights->push_back(make(in, to, 0.5));
      for (auto* all : {&bias, &dbias}) all->push_back(make(biases, to, 0.5));
    }
  }
  template <class Activation, class C>
  void run(C& context, const Shape& s) {
    const auto map = [this](Index l) {
      const auto at = static_cast<std::size_t>(l);
      return NetMap<P>{std::as_const(weight[at]), std::as_const(bias[at]), dweight[at], dbias[at]};
    };
    const Net<P, decltype(map)> net{s.layers, s.units, std::as_const(frequency), dfrequency, map};
    const Rows<const P> z = std::as_const(features), sums = std::as_const(before), units = std::as_const(after);
    implicit_net<P, Activation>(context, net, z, before, after, out);
    implicit_net_backward<P, Activation>(context, net, z, sums, units, Rows<const P>(std::as_const(dout)), Rows<P>(dfeatures));
  }
  template <class Use>
  void results(Use&& use) {
    use("out", out);
    use("after", after);
    use("dfrequency", dfrequency);
    use("dfeatures", dfeatures);
    for (std::size_t l = 0; l < dweight.size(); ++l) {
      use("dweight", dweight[l]);
      use("dbias", dbias[l]);
    }
  }
};

/// The same random numbers in float and in double.
template <class P>
auto drawn() {
  return [seed = 0u](Index rows, Index width, double scale) mutable {
    const Matrix<float> drawn = random_matrix<float>(rows, width, ++seed, scale);
    Matrix<P> m(rows, width);
    std::copy(drawn.begin(), drawn.end(), m.begin());
    return m;
  };
}

template <class Activation>
void agrees(const Shape& s, double tolerance = 2e-6) {
  CAPTURE(s.rows);
  CAPTURE(s.features);
  CAPTURE(s.units);
  CAPTURE(s.width);
  constexpr bool waves = Activation::has_frequency;
  NetOf<double, Matrix> expected(s, waves, drawn<double>());
  Context<Reference> plain;
  expected.run<Activation>(plain, s);
  auto upload = [draw = drawn<float>()](Index rows, Index width, double scale) mutable {
    return DeviceMatrix<float>(draw(rows, width, scale).view());
  };
  Context<Cuda> context = ContextFor<Cuda>::make(1);
  NetOf<float, DeviceMatrix> net(s, waves, upload), again(s, waves, upload), untouched(s, waves, upload);
  net.run<Activation>(context, s);
  again.run<Activation>(context, s);
  std::vector<Matrix<float>> first, second, none;
  net.results([&](const char*, const DeviceMatrix<float>& m) { first.push_back(m.read()); });
  again.results([&](const char*, const DeviceMatrix<float>& m) { second.push_back(m.read()); });
  untouched.results([&](const char*, const DeviceMatrix<float>& m) { none.push_back(m.read()); });
  std::size_t n = 0;
  expected.results([&](const char* name, const Matrix<double>& m) {
    CAPTURE(name);
    CHECK(relative_error(first[n], m) <= tolerance);
    CHECK(relative_error(second[n], first[n]) == 0);
    if (m.size() > 0) CHECK_FALSE(relative_error(none[n], m) <= tolerance);
    ++n;
  });
}

TEST_CASE("nets with one small hidden layer") {
  for (const Index rows : {1, 7, 64, 1000}) {
    for (const Index width : {1, 64, 130, 512}) {
      agrees<Rectifier>({.rows = rows, .features = 3, .units = 16, .width = width});
      agrees<Sine>({.rows = rows, .features = 5, .units = 20, .width = width, .biased = false, .trains_features = true});
    }
  }
  agrees<Rectifier>({.rows = 33, .features = 1, .units = 1, .width = 6});
  agrees<Rectifier>({.rows = 33, .features = 3, .units = 32, .width = 257, .biased = false, .trains_features = true});
  agrees<Sine>({.rows = 513, .features = 3, .units = 16, .width = 64});
}

TEST_CASE("other nets") {
  agrees<Rectifier>({.rows = 4000, .features = 3, .units = 16, .width = 72});
  agrees<Rectifier>({.rows = 33, .features = 3, .units = 40, .width = 72});
  agrees<Sine>({.rows = 65, .features = 3, .units = 24, .width = 40, .layers = 3, .biased = false, .trains_features = true},
               1e-5);
}

}  // namespace

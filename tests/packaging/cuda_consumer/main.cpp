// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <coyote/mixers/linear.hpp>
#include <coyote/models/model.hpp>
#include <coyote/operations/cpu/linear.hpp>
#include <cstdio>

/// The same map on a GPU; false when there is none.
bool on_gpu(coyote::Rows<const float> u, coyote::Rows<float> y);

int main() {
  using namespace coyote;
  const Model<Linear, Cpu, float> model({.width = 16, .length = 4}, Seed{1});
  Context<Cpu> context(1);
  Matrix<float> u(4, 16), y(4, 16), z(4, 16);
  for (Index i = 0; i < u.size(); ++i) u.data()[i] = static_cast<float>(i % 7);
  model.forward(context, {.sequences = 1, .length = 4}, u, y);
  if (!on_gpu(u, z)) {
    std::puts("no GPU");
    return 0;
  }
  for (Index i = 0; i < y.size(); ++i) {
    if (!(std::abs(y.data()[i] - z.data()[i]) <= 1e-5f)) return 1;
  }
  std::puts("the backends agree");
}

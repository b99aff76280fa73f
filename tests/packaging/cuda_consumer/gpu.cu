// SPDX-License-Identifier: Apache-2.0
#include <coyote/core/cuda/resident.cuh>
#include <coyote/mixers/linear.hpp>
#include <coyote/models/model.hpp>
#include <coyote/operations/cuda/linear.cuh>

bool on_gpu(coyote::Rows<const float> u, coyote::Rows<float> y) {
  using namespace coyote;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return false;
  Context<Cuda> context;
  const Model<Linear, Cuda, float> model({.width = 16, .length = 4}, Seed{1});
  const coyote::cuda::DeviceArray<float> in(u.data, u.rows * u.width);
  coyote::cuda::DeviceArray<float> out(y.rows * y.width);
  model.forward(context, {.sequences = 1, .length = 4}, Rows<const float>(in.data(), 4, 16), Rows<float>(out.data(), 4, 16));
  out.download(y.data);
  return true;
}

// SPDX-License-Identifier: Apache-2.0
// Linear maps in bf16 and nets of implicit filters on a GPU: forward and backward, one line for each, medians over replays of a
// graph of twenty calls. Of maps once with the same activations in every call, which the second-level cache then holds as in a
// training step, and once with activations that rotate over at least 240 MB. Usage: cuda_linear [rows in out]

#include <cstdlib>

#include "coyote/filters/implicit.hpp"
#include "coyote/operations/cuda/implicit.cuh"
#include "timing.cuh"

namespace {

using namespace coyote;
using namespace coyote_benchmark;

constexpr Index calls = 20;

void time_map(Context<Cuda>& context, double rate, Index rows, Index in, Index out) {
  const auto n = static_cast<double>(rows);
  const double forward = 2 * n * static_cast<double>(in + out), backward = 2 * n * static_cast<double>(2 * in + out);
  const Index turns = turns_for(backward);
  Turns<bf16> x(turns, rows, in), y(turns, rows, out), dy(turns, rows, out), dx(turns, rows, in);
  Turns<float> parameters(1, in + 1, out, 0.1f), gradients(1, in + 1, out);
  Turns<bf16> rounded(1, in + 1, out, 0.1f);
  context.use_rounded(parameters[0].data, (in + 1) * out, rounded[0].data);  // as in a model
  const Rows<const float> weight = parameters[0].slice(0, in), bias = parameters[0].slice(in, 1);
  const Rows<float> dweight = gradients[0].slice(0, in), dbias = gradients[0].slice(in, 1);
  const Batch batch{.sequences = 1, .length = rows};
  const std::string shape = words("[", rows, ",", in, "] x [", in, ",", out, "]");
  for (const Index over : {Index{1}, turns}) {
    const std::string where = over == 1 ? ", cached" : "";
    const auto run = [&](Index i) { linear<bf16>(context, batch, x[i % over], weight, bias, y[i % over]); };
    report("linear" + where, shape, replayed_ms(context, calls, run), forward, rate);
    const auto run_backward = [&](Index i) {
      linear_backward<bf16>(context, batch, x[i % over], weight, dy[i % over], dx[i % over], Write::overwrite, dweight, dbias);
    };
    report("linear backward" + where, shape, replayed_ms(context, calls, run_backward), backward, rate);
  }
  context.use_rounded(nullptr, 0, nullptr);
}

void time_net(Context<Cuda>& context, double rate, Index length, Index width) {
  constexpr Index features = 3, units = 16;
  Turns<float> z(1, length, features), before(1, length, units), after(1, length, units), out(1, length, width);
  Turns<float> first(2, features, units), first_bias(2, 1, units), last(2, units, width), last_bias(2, 1, width);
  const auto map = [&](Index l) {
    return l == 0 ? NetMap<float>{first[0], first_bias[0], first[1], first_bias[1]}
                  : NetMap<float>{last[0], last_bias[0], last[1], last_bias[1]};
  };
  const Net<float, decltype(map)> net{1, units, {}, {}, map};
  const std::string shape = words("L=", length, ",D=", width);
  const double bytes = 4 * static_cast<double>(length) * static_cast<double>(features + 2 * units + width);
  const Rows<const float> sums = before[0], activated = after[0], dout = out[0];
  report("net", shape,
         replayed_ms(
             context, calls,
             [&](Index) { implicit_net<float, Rectifier>(context, net, Rows<const float>(z[0]), before[0], after[0], out[0]); }),
         bytes, rate);
  report("net backward", shape,
         replayed_ms(context, calls,
                     [&](Index) {
                       implicit_net_backward<float, Rectifier>(context, net, Rows<const float>(z[0]), sums, activated, dout,
                                                               Rows<float>());
                     }),
         bytes, rate);
}

}  // namespace

int main(int argc, char** argv) {
  Context<Cuda> context;
  const double rate = copy_rate(context);
  if (argc > 3) {
    time_map(context, rate, std::atoll(argv[1]), std::atoll(argv[2]), std::atoll(argv[3]));
    return 0;
  }
  for (const Index rows : {32768, 65536}) {
    for (const Index in : {64, 128}) {
      for (const Index out : {64, 128, 192}) time_map(context, rate, rows, in, out);
    }
  }
  time_map(context, rate, 65536, 512, 512);
  time_map(context, rate, 65536, 512, 1536);
  for (const Index width : {64, 512}) {
    for (const Index length : {64, 512, 8192}) time_net(context, rate, length, width);
  }
}

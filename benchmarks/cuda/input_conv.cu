// SPDX-License-Identifier: Apache-2.0
// Input-dependent convolutions on Cuda in bf16: finding the lags, the convolution and its gradients, 4 lags a row. Inputs rotate
// through at least 240 MB; the floor is the bytes that each reads and writes once, over the measured copy rate.

#include <cmath>
#include <cstdlib>
#include <vector>

#include "coyote/mixers/input_conv.hpp"
#include "coyote/operations/cuda/input_conv.cuh"
#include "timing.cuh"

namespace {

using namespace coyote_benchmark;

constexpr Index count = 4;

template <class Lags>
void measure(cy::Context<cy::Cuda>& context, Index sequences, Index length, Index width, cy::Token symbols, double rate) {
  using S = cy::bf16;
  const Index rows = sequences * length;
  const std::string shape = cy::words("B=", sequences, ",L=", length, ",D=", width);
  std::vector<cy::Token> tokens(static_cast<std::size_t>(rows));
  const cy::Stream draws(cy::Seed{1}, cy::Purpose::test, 1);
  for (Index i = 0; i < rows; ++i) {
    tokens[static_cast<std::size_t>(i)] =
        static_cast<cy::Token>(draws.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(symbols)));
  }
  const double row_bytes = static_cast<double>(rows) * 2 * static_cast<double>(width),
               list_bytes = static_cast<double>(rows) * 4 * count;
  const Index turns = turns_for(7 * row_bytes);
  Turns<S> qkv(turns, rows, 3 * width), y(turns, rows, width), dy(turns, rows, width), dqkv(turns, rows, 3 * width);
  const auto part = [&](auto x, Index which) { return x.columns(which * width, width); };
  const auto frame = context.frame();
  const cy::Resident<cy::Cuda> here(context, cy::Batch{.sequences = sequences, .length = length, .tokens = tokens});
  const auto lags = context.make<std::int32_t>(rows, count);
  const auto weights = context.make<float>(rows, count), ds = context.make<float>(rows, count);
  double ms = median_ms(context, [&](Index turn) {
    const Rows<const S> x = qkv[turn % turns];
    cy::find_all_lags<S, Lags>(context, here, part(x, 0), part(x, 1), lags);
  });
  report("find_all_lags", shape, ms, (Lags::uses_tokens ? 0 : 2 * row_bytes) + 1.25 * list_bytes, rate);
  ms = median_ms(context, [&](Index turn) {
    const Rows<const S> x = qkv[turn % turns];
    cy::input_convolution<S, true>(context, here, lags, part(x, 0), part(x, 1), part(x, 2), weights, y[turn % turns]);
  });
  report("input_convolution", shape, ms, 4 * row_bytes + 2 * list_bytes, rate);
  ms = median_ms(context, [&](Index turn) {
    const Rows<const S> x = qkv[turn % turns];
    const Rows<S> d = dqkv[turn % turns];
    cy::input_convolution_backward<S, true>(context, here, lags, part(x, 0), part(x, 1), part(x, 2), weights,
                                            Rows<const S>(dy[turn % turns]), ds, part(d, 0), part(d, 1), part(d, 2));
  });
  report("input_convolution_backward", shape, ms, 7 * row_bytes + 3 * list_bytes, rate);
}

}  // namespace

// Usage: input_conv [sequences length width symbols]   (a table of shapes when none is given)
int main(int argc, char** argv) {
  cy::Context<cy::Cuda> context;
  const double rate = copy_rate(context);
  if (argc == 5) {
    measure<cy::TokenLags<count>>(context, std::atol(argv[1]), std::atol(argv[2]), std::atol(argv[3]), std::atoi(argv[4]), rate);
    return 0;
  }
  for (const cy::Token symbols : {8192, 3}) {
    measure<cy::TokenLags<count>>(context, 512, 64, 64, symbols, rate);
    measure<cy::TokenLags<count>>(context, 64, 512, 128, symbols, rate);
    measure<cy::TokenLags<count>>(context, 8, 8192, 512, symbols, rate);
    measure<cy::TokenLags<count>>(context, 1, 65536, 64, symbols, rate);
  }
  measure<cy::Autocorrelation<count>>(context, 512, 64, 64, 8192, rate);
  measure<cy::Autocorrelation<count>>(context, 64, 1024, 64, 8192, rate);
}

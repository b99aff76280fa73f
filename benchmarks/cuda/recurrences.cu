// SPDX-License-Identifier: Apache-2.0
// Short convolutions, recurrences and row-wise operations on the GPU, each line with its floor: the bytes that must move over the
// measured rate of a copy. A line is the time of a call in a series of at least twenty, a graph that is replayed, unless it says
// `alone`. Usage: recurrences [part of a name]

#include <cmath>
#include <cstring>

#include "coyote/operations/cuda/embedding.cuh"
#include "coyote/operations/cuda/norm.cuh"
#include "coyote/operations/cuda/short_convolution.cuh"
#include "coyote/operations/cuda/wkv.cuh"
#include "timing.cuh"

namespace {

using namespace coyote_benchmark;
using cy::bf16;
using cy::Write;

cy::Context<cy::Cuda>* context;
double rate;
const char* wanted = "";

bool chosen(const std::string& name) { return std::strstr(name.c_str(), wanted) != nullptr; }
template <class S>
const char* scalar_name() {
  return sizeof(S) == 2 ? "bf16" : "float";
}
std::string shape_name(Index batch, Index length, Index width) {
  return "B=" + std::to_string(batch) + " L=" + std::to_string(length) + " D=" + std::to_string(width);
}

/// A call of a series that takes turns: run(call, turn).
template <class Run>
double in_series(Index turns, Run&& run) {
  return replayed_ms(*context, calls_for(turns), [&](Index call) { run(call, call % turns); });
}

__global__ void empty_kernel() {}

/// What a launch between two events costs.
void empty_launch() {
  if (!chosen("empty launch")) return;
  const double ms = median_ms(*context, [](Index) { empty_kernel<<<1, 32, 0, context->stream()>>>(); });
  std::printf("%-59s %9.4f ms\n", "empty launch", ms);
}

/// What the driver's own copy of a matrix takes: the least that a forward pass can.
template <class S>
void copy_rows(Index sequences, Index length, Index width, bool alone) {
  const std::string name = std::string("copy ") + scalar_name<S>() + (alone ? " alone" : "");
  if (!chosen(name)) return;
  const Index rows = sequences * length;
  const double bytes = static_cast<double>(rows * width) * sizeof(S);
  const Index turns = turns_for(2 * bytes);
  Turns<S> x(turns, rows, width), y(turns, rows, width);
  const auto copy = [&](Index, Index turn) {
    COYOTE_CUDA_CHECK(cudaMemcpyAsync(y[turn].data, x[turn].data, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice,
                                      context->stream()));
  };
  const double ms = alone ? median_ms(*context, [&](Index i) { copy(i, i % turns); }) : in_series(turns, copy);
  report(name, shape_name(sequences, length, width), ms, 2 * bytes, rate);
}

template <class S, Index K>
void short_convolution_rows(Index sequences, Index length, Index width, bool gated) {
  const std::string name =
      std::string("short convolution ") + scalar_name<S>() + " K=" + std::to_string(K) + (gated ? " gated" : "");
  if (!chosen(name)) return;
  const Index rows = sequences * length;
  const double bytes = static_cast<double>(rows * width) * sizeof(S);
  const Index turns = turns_for(2 * bytes);
  const cy::Batch batch{.sequences = sequences, .length = length};
  Turns<S> x(turns, rows, width), y(turns, rows, width), dy(turns, rows, width), gate(gated ? turns : 0, rows, width),
      dgate(gated ? turns : 0, rows, width);
  const Index calls = calls_for(turns);
  Turns<float> taps(1, K, width), bias(1, 1, width), dtaps(calls, K, width), dbias(calls, 1, width);
  const auto gate_of = [&](Turns<S>& matrices, Index turn) { return gated ? matrices[turn] : Rows<S>(); };
  const double forward = in_series(turns, [&](Index, Index turn) {
    short_convolution<S, K>(*context, batch, x[turn], taps[0], bias[0], gate_of(gate, turn), y[turn]);
  });
  report(name + " forward", shape_name(sequences, length, width), forward, (gated ? 3 : 2) * bytes, rate);
  const double backward = in_series(turns, [&](Index call, Index turn) {
    short_convolution_backward<S, K>(*context, batch, x[turn], taps[0], bias[0], gate_of(gate, turn), dy[turn], y[turn],
                                     Write::overwrite, gate_of(dgate, turn), dtaps[call], dbias[call]);
  });
  report(name + " backward", shape_name(sequences, length, width), backward, (gated ? 5 : 3) * bytes, rate);
}

template <class S>
void wkv_rows(Index sequences, Index length, Index width) {
  const std::string name = std::string("wkv ") + scalar_name<S>();
  if (!chosen(name)) return;
  const Index rows = sequences * length;
  const double bytes = static_cast<double>(rows * width) * sizeof(S);
  const Index turns = turns_for(3 * bytes);
  const cy::Batch batch{.sequences = sequences, .length = length};
  Turns<S> k(turns, rows, width), v(turns, rows, width), y(turns, rows, width), dy(turns, rows, width), dk(turns, rows, width);
  const Index calls = calls_for(turns);
  Turns<float> decay(1, 1, width), bonus(1, 1, width), ddecay(calls, 1, width), dbonus(calls, 1, width);
  Turns<float> checkpoints(turns, wkv_checkpoints(*context, batch), 3 * width);
  const auto forward = [&](bool training) {
    return in_series(turns, [&](Index, Index turn) {
      wkv<S>(*context, batch, decay[0], bonus[0], k[turn], v[turn], y[turn], training ? checkpoints[turn] : Rows<float>());
    });
  };
  const double states = 12.0 * static_cast<double>(checkpoints[0].rows * width);
  report(name + " forward, training", shape_name(sequences, length, width), forward(true), 3 * bytes + states, rate);
  report(name + " forward", shape_name(sequences, length, width), forward(false), 3 * bytes, rate);
  const double backward = in_series(turns, [&](Index call, Index turn) {
    wkv_backward<S>(*context, batch, decay[0], bonus[0], k[turn], v[turn], checkpoints[turn], dy[turn], dk[turn], y[turn],
                    ddecay[call], dbonus[call]);
  });
  report(name + " backward", shape_name(sequences, length, width), backward, 5 * bytes + states, rate);
}

template <class S>
void norm_rows(Index rows, Index width) {
  const std::string name = std::string("layer norm ") + scalar_name<S>();
  if (!chosen(name)) return;
  const double bytes = static_cast<double>(rows * width) * sizeof(S);
  const Index turns = turns_for(2 * bytes);
  Turns<S> x(turns, rows, width), y(turns, rows, width), dy(turns, rows, width);
  const Index calls = calls_for(turns);
  Turns<float> scale(1, 1, width), shift(1, 1, width), statistics(turns, rows, 2), dscale(calls, 1, width),
      dshift(calls, 1, width);
  const double forward = in_series(turns, [&](Index, Index turn) {
    normalise<S>(*context, cy::NormKind::layer, 1e-5f, x[turn], scale[0], shift[0], y[turn], statistics[turn]);
  });
  report(name + " forward", shape_name(1, rows, width), forward, 2 * bytes, rate);
  const double backward = in_series(turns, [&](Index call, Index turn) {
    normalise_backward<S>(*context, cy::NormKind::layer, x[turn], scale[0], statistics[turn], dy[turn], y[turn], Write::overwrite,
                          dscale[call], dshift[call]);
  });
  report(name + " backward", shape_name(1, rows, width), backward, 3 * bytes, rate);
}

template <class S>
void embedding_rows(Index rows, Index vocabulary, Index width, bool half_zero) {
  const std::string name = std::string("embedding ") + scalar_name<S>() + (half_zero ? " half token 0" : "");
  if (!chosen(name)) return;
  const double bytes = static_cast<double>(rows * width) * sizeof(S);
  const Index turns = turns_for(bytes);
  Turns<S> y(turns, rows, width);
  Turns<float> table(1, vocabulary, width), dtable(1, vocabulary, width);
  std::vector<cy::Token> tokens(static_cast<std::size_t>(rows));
  std::uint32_t state = 1;
  for (cy::Token& token : tokens) {
    state = state * 1664525u + 1013904223u;
    token = half_zero && (state >> 30) < 2 ? 0 : static_cast<cy::Token>((state >> 8) % static_cast<std::uint32_t>(vocabulary));
  }
  const cy::cuda::DeviceArray<cy::Token> array(tokens.data(), rows);
  const std::span<const cy::Token> there(array.data(), tokens.size());
  const double forward = in_series(turns, [&](Index, Index turn) { embed<S>(*context, there, table[0], y[turn]); });
  report(name + " forward", shape_name(1, rows, width), forward, bytes, rate);
  const double backward = in_series(turns, [&](Index, Index turn) {
    const auto frame = context->frame();
    auto order = token_order(*context, there, vocabulary);
    embed_batch_backward<S>(*context, order, {.sequences = 1, .length = rows}, {}, y[turn], dtable[0], {});
  });
  report(name + " backward", shape_name(1, rows, width), backward, bytes, rate);
}

template <class S>
void elementwise_rows(Index rows, Index width) {
  const std::string name = std::string("product ") + scalar_name<S>();
  if (!chosen(name)) return;
  const double bytes = static_cast<double>(rows * width) * sizeof(S);
  const Index turns = turns_for(3 * bytes);
  Turns<S> a(turns, rows, width), b(turns, rows, width), y(turns, rows, width);
  const double contiguous =
      in_series(turns, [&](Index, Index turn) { multiply<S>(*context, a[turn], b[turn], y[turn], Write::overwrite); });
  report(name, shape_name(1, rows, width), contiguous, 3 * bytes, rate);
  const double columns = in_series(turns, [&](Index, Index turn) {
    multiply<S>(*context, a[turn].columns(0, width / 2), b[turn].columns(0, width / 2), y[turn].columns(0, width / 2),
                Write::overwrite);
  });
  report(name + " of half the columns", shape_name(1, rows, width), columns, 1.5 * bytes, rate);
}

template <class S>
void all() {
  copy_rows<S>(64, 1024, 768, false);
  copy_rows<S>(512, 128, 128, false);
  copy_rows<S>(1024, 64, 64, false);
  for (const bool gated : {false, true}) {
    short_convolution_rows<S, 3>(64, 1024, 768, gated);
    short_convolution_rows<S, 4>(64, 1024, 768, gated);
    short_convolution_rows<S, 4>(8, 16384, 2048, gated);
    short_convolution_rows<S, 4>(512, 128, 128, gated);
    short_convolution_rows<S, 3>(1024, 64, 64, gated);
  }
  wkv_rows<S>(64, 1024, 768);
  wkv_rows<S>(8, 4096, 1024);
  wkv_rows<S>(8, 16384, 768);
  wkv_rows<S>(1, 65536, 768);
  wkv_rows<S>(512, 128, 128);
  for (const Index width : {64, 512, 1024}) norm_rows<S>(65536, width);
  for (const Index width : {64, 512}) {
    embedding_rows<S>(65536, 8192, width, false);
    embedding_rows<S>(65536, 8192, width, true);
    elementwise_rows<S>(65536, width);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) wanted = argv[1];
  cy::Context<cy::Cuda> made;
  context = &made;
  rate = copy_rate(made);
  std::printf("copy %.0f GB/s\n", rate / 1e6);
  empty_launch();
  copy_rows<bf16>(512, 128, 128, true);
  copy_rows<bf16>(1024, 64, 64, true);
  all<bf16>();
  all<float>();
}

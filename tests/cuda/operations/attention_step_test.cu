// SPDX-License-Identifier: Apache-2.0
#include "attention_support.cuh"
#include "coyote/operations/cuda/attention_step.cuh"

namespace {

using namespace test;
namespace cuda = coyote::cuda;

/// Enters the rows of some sequences one after another, as one captured graph launched for every position, and compares each
/// step's output with the same row of the definition over the whole sequence.
template <class S, class Pattern>
void check_steps(Index sequences, Index capacity, Index length, Index heads, Index width) {
  CAPTURE(capacity);
  CAPTURE(width);
  const Sequences all(std::vector<Index>(static_cast<std::size_t>(sequences), length), 7, false);
  const Batch& batch = all.batch();
  const Index d = heads * width;
  Both<S> q(batch.rows(), d, d), k(batch.rows(), d, d), v(batch.rows(), d, d), dy(batch.rows(), d, d);
  q.fill(1);
  k.fill(2);
  v.fill(3);
  dy.fill(4);
  const double scale = 1 / std::sqrt(static_cast<double>(width));
  const Expected expected = plain<Pattern>(batch, heads, scale, {}, q, k, v, dy);

  Context<Cuda> context;
  context.poison(true);
  Both<float> keys(sequences * capacity, d, d), values(sequences * capacity, d, d);
  Both<std::int32_t> tokens(sequences, capacity, capacity),
      index(sequences, Pattern::index_size(capacity), Pattern::index_size(capacity));
  Both<S> got(sequences, d, d + 3), now(3 * sequences, d, d);
  cuda::DeviceArray<std::int32_t> position(1);
  cuda::DeviceArray<Token> new_tokens(sequences);
  const auto part = [&](Index n) { return now.view().slice(n * sequences, sequences); };
  const auto step = [&] {
    using Kept = std::conditional_t < requires { Pattern::window; }
    , Dense, Pattern > ;
    const DeviceStep on_device{position.data(), new_tokens.data()};
    attention_decode<S, Pattern, Kept>(context, {.device = &on_device}, heads, static_cast<float>(scale), part(0), part(1),
                                       part(2), keys.view(), values.view(), tokens.view(), index.view(), got.view());
  };
  step();  // lets the arena grow before the capture; everything begins anew behind it
  context.synchronise();
  keys = Both<float>(sequences * capacity, d, d);
  std::vector<std::int32_t> none(static_cast<std::size_t>(sequences * Pattern::index_size(capacity)), -1);
  if (!none.empty()) {
    COYOTE_CUDA_CHECK(cudaMemcpy(index.view().data, none.data(), none.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice));
  }
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  COYOTE_CUDA_CHECK(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal));
  step();
  COYOTE_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &graph));
  COYOTE_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));

  double error = 0, size = 1e-30;
  for (Index t = 0; t < length; ++t) {
    const auto at = static_cast<std::int32_t>(t);
    position.upload(&at);
    std::vector<Token> tokens_now;
    for (Index s = 0; s < sequences; ++s) {
      tokens_now.push_back(batch.tokens_of(s)[static_cast<std::size_t>(t)]);
      const Both<S>* from[3] = {&q, &k, &v};
      for (Index n = 0; n < 3; ++n) {
        for (Index c = 0; c < d; ++c) {
          now(n * sequences + s, c) = from[n]->host()[static_cast<std::size_t>((s * length + t) * d + c)];
        }
      }
    }
    new_tokens.upload(tokens_now.data());
    now.upload();
    COYOTE_CUDA_CHECK(cudaGraphLaunch(executable, context.stream()));
    context.synchronise();
    got.download();
    for (Index s = 0; s < sequences; ++s) {
      for (Index c = 0; c < d; ++c) {
        const double x = expected.y[static_cast<std::size_t>((s * length + t) * d + c)], e = std::as_const(got)(s, c) - x;
        error += e * e;
        size += x * x;
      }
    }
  }
  CHECK(got.kept_outside());
  CHECK(std::sqrt(error) <= tolerance<S> * std::sqrt(size));
  CHECK_FALSE(std::sqrt(size) <= tolerance<S> * std::sqrt(size));  // zeros would be refused
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

TEST_CASE_TEMPLATE("steps equal the rows of the whole sequence", S, float, bf16) {
  for (const Index width : {Index{5}, Index{64}, Index{128}}) {
    check_steps<S, Dense>(3, 40, 40, 2, width);
    check_steps<S, Window<7>>(2, 7, 40, 2, width);
    check_steps<S, RepeatedTokens>(2, 50, 40, 2, width);
    check_steps<S, RepeatedBigrams<4>>(3, 64, 40, 2, width);
    check_steps<S, RepeatedBigrams<0>>(2, 41, 40, 1, width);
    check_steps<S, RandomEdges<3>>(2, 41, 40, 1, width);
  }
  check_steps<S, Dense>(2, 1100, 1060, 1, 64);  // several parts
  check_steps<S, Dense>(2, 40, 20, 1, 300);
  check_steps<S, RepeatedBigrams<4>>(1, 40, 40, 1, 520);
}

TEST_CASE_TEMPLATE("steps at small shapes", S, float, bf16) {
  check_steps<S, Dense>(3, 9, 9, 2, 5);
  check_steps<S, Window<7>>(2, 7, 9, 2, 64);
  check_steps<S, RepeatedTokens>(2, 9, 9, 2, 64);
  check_steps<S, RepeatedBigrams<4>>(3, 9, 9, 1, 300);
  check_steps<S, RandomEdges<3>>(2, 9, 9, 1, 64);
  check_steps<S, Dense>(1, 1100, 3, 1, 8);  // several parts
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <span>

#include "coyote/core/error.hpp"
#include "coyote/core/scalar.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// logits[i, v] = <hidden[i], embedding[v]>
template <class S>
constexpr void head_logits(Context<Reference>&, Rows<const S> hidden, Rows<const parameter_t<S>> embedding,
                           Rows<parameter_t<S>> logits) {
  for (Index i = 0; i < hidden.rows; ++i) {
    for (Index v = 0; v < embedding.rows; ++v) {
      logits(i, v) = hidden(i, 0) * embedding(v, 0);
      for (Index c = 1; c < hidden.width; ++c) logits(i, v) += hidden(i, c) * embedding(v, c);
    }
  }
}

/// Mean over rows of -log softmax(hidden embedding^T)[label], in nats, and its gradients.
/// predicted[i] is the arg max (the smallest index on ties), losses[i] the row's own value; both may be empty.
/// dhidden is overwritten, dembedding added to; both absent when only the loss is wanted.
/// Errors: a label outside 0 .. V - 1.
template <class S>
double cross_entropy(Context<Reference>& context, Rows<const S> hidden, Rows<const parameter_t<S>> embedding,
                     std::span<const Token> labels, std::span<Token> predicted, std::span<double> losses, Rows<S> dhidden,
                     Rows<parameter_t<S>> dembedding) {
  using P = parameter_t<S>;
  using std::exp, std::log;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= embedding.rows) {
      throw Error(words("label ", i), words("a token in 0 .. ", embedding.rows - 1), words(labels[i]));
    }
  }
  Matrix<P> logits(hidden.rows, embedding.rows);
  head_logits<S>(context, hidden, embedding, logits);
  double total = 0;
  for (Index i = 0; i < hidden.rows; ++i) {
    const auto at = static_cast<std::size_t>(i);
    Index best = 0;
    for (Index v = 1; v < embedding.rows; ++v) {
      if (logits(i, v) > logits(i, best)) best = v;
    }
    P sum{};
    for (Index v = 0; v < embedding.rows; ++v) sum += exp(logits(i, v) - logits(i, best));
    const P loss = log(sum) + logits(i, best) - logits(i, labels[at]);
    if (!predicted.empty()) predicted[at] = static_cast<Token>(best);
    if (!losses.empty()) losses[at] = static_cast<double>(loss);
    total += static_cast<double>(loss);
    if (dhidden.rows == 0) continue;
    for (Index c = 0; c < hidden.width; ++c) dhidden(i, c) = S{};
    for (Index v = 0; v < embedding.rows; ++v) {
      const P p = exp(logits(i, v) - logits(i, best)) / sum;
      const P d = (v == labels[at] ? p - static_cast<P>(1.0) : p) / static_cast<P>(static_cast<double>(hidden.rows));
      for (Index c = 0; c < hidden.width; ++c) {
        dhidden(i, c) += d * embedding(v, c);
        dembedding(v, c) += d * hidden(i, c);
      }
    }
  }
  return total / static_cast<double>(hidden.rows);
}

}  // namespace coyote::inline v0
